"""Tickets: what a page with EventSource does, where a ticket is of no use, and that it is found nowhere afterwards."""

import time
from pathlib import Path
from urllib.parse import quote

import pytest
from fakes.model_server import FakeModel
from support.eventsource import parsed
from support.made_keys import MadeKeys, learnt
from support.raw import CHAT, MESSAGES, Answer, ask
from support.running import Running, Serve, Tape
from support.sessions import STREAM
from support.shapes import assert_told, get

from edge.api import keyring
from edge.policy.auth.principal import Principal
from edge.policy.auth.tickets import issue, sign
from edge.telemetry import log

KEY = "canary-of-the-first-client"
AUTH = {"keys": [KEY]}
RIGHT = {"Authorization": f"Bearer {KEY}"}
PATH = "/v1/tickets"
ID = "st_" + "0" * 32


async def ticket(edge: Running, headers: dict[str, str] | None = None, **fields: object) -> str:
    answer = await ask(edge.port, PATH, fields, RIGHT if headers is None else headers)
    assert answer.status == 200, answer.body
    return str(answer.json["ticket"])


def listen(text: str, path: str = STREAM, **query: str) -> str:
    told = {"prompt": "hi", **query, "ticket": text}
    return f"{path}?" + "&".join(f"{name}={quote(value)}" for name, value in told.items())


@pytest.mark.parametrize("path", [STREAM, "/stream"])
async def test_an_event_source_gets_in_with_a_ticket_and_again(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve(auth=AUTH)
    text = await ticket(edge)
    for index in range(3):
        answer = await get(edge.port, listen(text, path))
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
        assert (await edge.record(index))["principal"].startswith("key-")
    assert text not in str([request.body for request in fake.requests])
    assert all("ticket" not in request.body.decode() for request in fake.requests)


async def test_it_says_how_long_it_lasts_and_is_not_to_be_kept(serve: Serve) -> None:
    edge = await serve(auth=AUTH)
    for body, ttl_s in (({}, 60), ({"ttl_s": 600, "stream": ID}, 600), ({"ttl_s": 1, "stream": None}, 1)):
        before = time.time()
        answer = await ask(edge.port, PATH, body, RIGHT)
        after = time.time()
        assert set(answer.json) == {"object", "ticket", "expires_at", "stream"}
        assert before - 1 <= answer.json["expires_at"] - ttl_s <= after + 1
        assert answer.json["stream"] == body.get("stream")
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "field"),
    [({"ttl_s": 0}, "ttl_s"), ({"ttl_s": 601}, "ttl_s"), ({"ttl_s": "60"}, "ttl_s"), ({"stream": "x"}, "stream"),
     ({"ttl": 60}, "ttl")],
)  # fmt: skip
async def test_a_field_that_makes_no_sense_is_named(serve: Serve, body: dict[str, object], field: str) -> None:
    answer = await ask((await serve(auth=AUTH)).port, PATH, body, RIGHT)
    assert (answer.status, answer.json["error"]["param"]) == (400, field)


async def test_a_ticket_is_given_to_who_has_a_key_only_and_not_for_a_ticket(serve: Serve) -> None:
    edge = await serve(auth=AUTH)
    assert (await ask(edge.port, PATH, {}, {})).status == 401
    assert (await ask(edge.port, f"{PATH}?ticket={await ticket(edge)}", {}, {})).status == 401


async def test_without_keys_a_page_need_not_know_that_there_are_none(serve: Serve) -> None:
    edge = await serve()
    assert (await get(edge.port, listen(await ticket(edge, {})))).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", CHAT), ("POST", MESSAGES), ("POST", STREAM), ("GET", "/v1/models"), ("GET", "/metrics"), ("POST", PATH),
     ("GET", "/v1/sessions/s"), ("DELETE", "/v1/sessions/s"), ("GET", "/api/tags"),
     ("DELETE", "/v1/streams/" + ID), ("GET", "/v1/streams"), ("GET", "/v1/chat/streams"),
     ("GET", "/v1/streams?follow=0"), ("GET", "//stream")],
)  # fmt: skip
async def test_it_is_of_no_use_but_for_reading_streams(serve: Serve, fake: FakeModel, method: str, path: str) -> None:
    edge = await serve(auth=AUTH)
    target = f"{path}{'&' if '?' in path else '?'}ticket={await ticket(edge)}"
    answer = await (ask(edge.port, target, {}) if method == "POST" else get(edge.port, target, method=method))
    assert answer.status == 401
    assert fake.requests == []


async def test_a_ticket_for_one_stream_opens_no_other(serve: Serve) -> None:
    """404 is what a stream's route says to who may ask."""
    edge = await serve(auth=AUTH)
    text = await ticket(edge, stream=ID)
    assert (await get(edge.port, f"/v1/streams/{ID}?ticket={text}")).status == 404
    for target in (f"/v1/streams/st_{'1' * 32}?ticket={text}", f"/v1/streams?follow=1&ticket={text}", listen(text)):
        assert_told(await get(edge.port, target), 401, CHAT, "invalid_ticket")


async def test_it_ends_with_the_key_that_it_was_given_for(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_S", 0.02)
    made = MadeKeys(tmp_path)
    key = await made.make(models=("other",))
    edge = await serve(store=made.settings)
    text = await ticket(edge, {"x-api-key": key})
    answer = await get(edge.port, listen(text, model="m"))
    assert_told(answer, 403, CHAT, "model_not_allowed")
    await made.revoke(key)
    await learnt(edge, 1, live=0)
    assert_told(await get(edge.port, listen(text)), 401, CHAT, "invalid_ticket")


async def test_it_is_good_at_every_node_and_after_a_restart(serve: Serve, tmp_path: Path) -> None:
    made = MadeKeys(tmp_path)
    first = await serve(store=made.settings, auth=AUTH)
    text = await ticket(first)
    await first.stop()
    second = await serve(store=made.settings, auth=AUTH)
    assert (await get(second.port, listen(text))).status == 200
    third = await serve(store=made.settings, auth={"keys": ["another-static-key"]})
    assert (await get(third.port, listen(text))).status == 401


async def test_one_that_was_given_when_nobody_needed_a_key_is_worth_nothing_afterwards(
    serve: Serve, tmp_path: Path
) -> None:
    made = MadeKeys(tmp_path)
    before = await serve(store=made.settings)
    text = await ticket(before, {})
    after = await serve(store=made.settings, auth=AUTH)
    assert (await get(after.port, listen(text))).status == 401


async def test_forged_and_old_ones_are_refused_and_counted_and_named_nowhere(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth={**AUTH, "failures_per_min": 4})
    tape = Tape()
    log.configure(edge.edge.settings.log, stream=tape)
    secret = await edge.edge.callers._ring.secret()
    principal = Principal("canary-name", grant="jwt")
    forged = sign(b"canary" * 6, issue(principal, 60, None, time.time()))
    old = sign(secret, issue(principal, 60, None, time.time() - 61))
    good = await ticket(edge)
    tried: list[Answer] = [
        await get(edge.port, listen(text)) for text in (forged, old, good[:-2], "canary-x", "canary-y")
    ]
    assert [answer.status for answer in tried] == [401, 401, 401, 401, 429]
    assert [answer.json["error"]["code"] for answer in tried[:2]] == ["invalid_ticket", "expired_ticket"]
    await get(edge.port, f"/nowhere?ticket={good}")
    await get(edge.port, listen(good, session_id="%"))
    await tape.wait("refused", 6)
    for text in (forged, old, good, "canary-"):
        assert text not in tape.text.getvalue()
        assert text not in str(tried)
    assert fake.requests == []


async def test_a_page_reads_on_with_a_ticket_where_it_was(serve: Serve) -> None:
    """What it began with a header, or another page did."""
    edge = await serve(auth=AUTH)
    begun = await ask(edge.port, STREAM, {"message": "hi"}, RIGHT)
    stream_id = begun.headers["x-stream-id"]
    for text in (await ticket(edge), await ticket(edge, stream=stream_id)):
        again = await get(edge.port, f"/v1/streams/{stream_id}?starting_after=1&ticket={text}")
        assert again.status == 200
        assert parsed(again.body).events == parsed(begun.body).events[1:]
        last = {"Last-Event-ID": f"{stream_id}:2"}
        again = await get(edge.port, f"/v1/streams/{stream_id}?ticket={text}", last)
        assert parsed(again.body).events == parsed(begun.body).events[2:]
    text = await ticket(edge)
    answer = await get(edge.port, f"/v1/streams?follow=1&ids={stream_id}&ticket={text}")
    assert answer.status == 200
    assert stream_id in answer.body.decode()
    assert (await get(edge.port, f"/v1/streams/{stream_id}")).status == 401
    assert (await get(edge.port, f"/v1/streams/{stream_id}?ticket={text}", method="DELETE")).status == 401
