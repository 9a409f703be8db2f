"""Keys that are made and revoked while Edge runs: whom they let in, to what, and from when and until when."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.model_server import FakeModel, json_answer
from fakes.ollama import be_ollama
from support.forms import FORM, LAST, TRANSCRIPTIONS, field, form, noise
from support.made_keys import MadeKeys, learnt
from support.raw import CHAT, MESSAGES, ask
from support.running import Serve
from support.sessions import STREAM, said
from support.shapes import COUNT_TOKENS, EVERY_SURFACE, assert_told, get, valid_body

from edge.api import keyring
from edge.policy.auth.keys import KeyRecord, make_key


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Look for changes as often as a test can."""
    monkeypatch.setattr(keyring, "LOOK_S", 0.02)
    return iter([None])


@pytest.fixture
def made(tmp_path: Path) -> MadeKeys:
    return MadeKeys(tmp_path)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key"])
async def test_a_key_lets_its_owner_in_by_each_header(
    serve: Serve, fake: FakeModel, made: MadeKeys, header: str
) -> None:
    key = await made.make("alice")
    edge = await serve(store=made.settings)
    sent = {header: f"Bearer {key}" if header == "Authorization" else key}
    assert (await ask(edge.port, CHAT, valid_body(CHAT), sent)).status == 200
    assert (await edge.record())["principal"] == "alice"
    assert key not in str(fake.requests[0].headers)


async def test_the_first_key_closes_the_door_and_the_last_one_revoked_does_not_open_it(
    serve: Serve, fake: FakeModel, made: MadeKeys
) -> None:
    edge = await serve(store=made.settings)
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200
    key = await made.make()
    await learnt(edge, 1)
    assert_told(await ask(edge.port, CHAT, valid_body(CHAT)), 401, CHAT, "invalid_api_key")
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200
    await made.revoke(key)
    await learnt(edge, 1, live=0)
    answer = await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))
    assert_told(answer, 401, CHAT, "revoked_api_key")
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401
    assert len(fake.requests) == 2
    async with made.opened() as store:
        await store.forget(key.split("-")[1])
    await learnt(edge, 0)
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200, "as if there had never been one"


async def test_static_keys_go_on_beside_those_that_are_made(serve: Serve, made: MadeKeys) -> None:
    edge = await serve(store=made.settings, auth={"keys": ["the-static-key"]})
    await made.make()
    await learnt(edge, 1)
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer("the-static-key"))).status == 200


async def test_required_keys_are_asked_for_before_any_has_been_made(serve: Serve, made: MadeKeys) -> None:
    edge = await serve(store=made.settings, auth={"require_key": True})
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401
    key = await made.make()
    await learnt(edge, 1)
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200


async def test_a_key_ends_when_it_expires(serve: Serve, made: MadeKeys) -> None:
    key = await made.make(expires=time.time() - 1)
    edge = await serve(store=made.settings)
    answer = await ask(edge.port, MESSAGES, valid_body(MESSAGES), bearer(key))
    assert_told(answer, 401, MESSAGES, kind="authentication_error")
    assert "expired" in answer.json["error"]["message"]


async def test_keys_of_one_name_are_one_principal(serve: Serve, made: MadeKeys) -> None:
    """A key that replaces another has what was kept under the old one."""
    old, new, other = [await made.make(name) for name in ("alice", "alice", "bob")]
    edge = await serve(store=made.settings)
    await said(edge, "remember", bearer(old), session_id="s")
    await edge.record()
    assert (await get(edge.port, "/v1/sessions/s", bearer(new))).status == 200
    assert (await get(edge.port, "/v1/sessions/s", bearer(other))).status == 404


# --- what they may do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, MESSAGES, COUNT_TOKENS, "/api/chat", "/api/generate", "/api/embed", STREAM])
async def test_a_model_that_is_not_allowed_is_refused_before_anybody_is_asked(
    serve: Serve, fake: FakeModel, made: MadeKeys, path: str
) -> None:
    fake.models = ["small-1", "big"]
    key = await made.make(models=("small*",))
    edge = await serve(store=made.settings, upstream=EVERY_SURFACE)
    bodies = {
        "/api/chat": {"messages": []}, "/api/generate": {"prompt": "x"}, "/api/embed": {"input": "x"},
        STREAM: {"message": "x"},
    }  # fmt: skip
    body = {**(bodies[path] if path in bodies else valid_body(path)), "model": "big"}
    answer = await ask(edge.port, path, body, bearer(key))
    assert answer.status == 403
    assert "may not use the model 'big'" in str(answer.json)
    if path == CHAT:
        assert_told(answer, 403, path, "model_not_allowed", "permission_error")
    assert fake.requests == []
    (line,) = await edge.lines.wait("refused")
    assert (line["principal"], line["error"]) == ("alice", "model_not_allowed")


async def test_an_allowed_model_is_answered(serve: Serve, fake: FakeModel, made: MadeKeys) -> None:
    fake.models = ["small-1", "big"]
    key = await made.make(models=("small*",))
    edge = await serve(store=made.settings)
    assert (await ask(edge.port, CHAT, valid_body(CHAT) | {"model": "small-1"}, bearer(key))).status == 200
    # A session's default is the only model that there is for this key.
    await said(edge, headers=bearer(key))
    assert [request.json["model"] for request in fake.requests] == ["small-1", "small-1"]


async def test_the_second_of_two_spellings_does_not_slip_through(serve: Serve, fake: FakeModel, made: MadeKeys) -> None:
    fake.models = ["small-1", "big"]
    key = await made.make(models=("small*",))
    edge = await serve(store=made.settings)
    for body, statuses in (
        (b'{"model":"small-1","model":"big","messages":[{"role":"user","content":"x"}]}', {403}),
        (b'{"model":"big","model":"small-1","messages":[{"role":"user","content":"x"}]}', {200}),
        (b'{"model":"small-1","MODEL":"big","messages":[{"role":"user","content":"x"}]}', {200}),
    ):
        assert (await ask(edge.port, CHAT, body, bearer(key))).status in statuses
    assert all(b"big" not in request.body for request in fake.requests)


async def test_lists_of_models_have_those_that_are_allowed(serve: Serve, fake: FakeModel, made: MadeKeys) -> None:
    be_ollama(fake, "small:latest", "big:latest")
    key, all_of_them = await made.make(models=("small",)), await made.make("bob")
    edge = await serve(store=made.settings)
    for headers, names in ((bearer(key), {"small:latest"}), (bearer(all_of_them), {"small:latest", "big:latest"})):
        assert {card["id"] for card in (await get(edge.port, "/v1/models", headers)).json["data"]} == names
        assert {model["name"] for model in (await get(edge.port, "/api/tags", headers)).json["models"]} == names
        assert {model["name"] for model in (await get(edge.port, "/api/ps", headers)).json["models"]} <= names
        status = 200 if "big:latest" in names else 404
        assert (await get(edge.port, "/v1/models/big:latest", headers)).status == status
        assert (await ask(edge.port, "/api/show", {"model": "big"}, headers)).status == status


MANAGEMENT = [
    ("GET", "/metrics"), ("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"), ("POST", "/api/copy"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), MANAGEMENT)
async def test_what_concerns_all_takes_an_admin(serve: Serve, made: MadeKeys, method: str, path: str) -> None:
    key, admin = await made.make(), await made.make("root", admin=True)
    edge = await serve(store=made.settings)
    for headers, code in ((bearer(key), "admin_required"), (bearer(admin), "allow_management")):
        answer = await (get(edge.port, path, headers) if method == "GET" else ask(edge.port, path, {}, headers))
        assert answer.status == (200 if path == "/metrics" and code != "admin_required" else 403)
        if code == "admin_required":
            assert "takes an admin" in str(answer.body)


# --- wrong ones, again and again --------------------------------------------------------------------------------------


async def test_too_many_wrong_keys_make_the_address_wait_but_not_who_was_let_in(
    serve: Serve, fake: FakeModel, made: MadeKeys
) -> None:
    key, fresh = await made.make(), await made.make("bob")
    edge = await serve(store=made.settings, auth={"failures_per_min": 3})
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200
    for _ in range(3):
        assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer("guess"))).status == 401
    for path in (CHAT, MESSAGES):
        answer = await ask(edge.port, path, valid_body(path), bearer("another"))
        assert_told(answer, 429, path, "too_many_attempts", "rate_limit_error")
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert answer.headers["x-should-retry"] == "false"
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(fresh))).status == 429
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401, "who sends nothing guesses nothing"
    assert len(fake.requests) == 2


async def test_each_client_behind_a_trusted_proxy_waits_for_itself(serve: Serve) -> None:
    edge = await serve(
        auth={"keys": ["the-static-key"], "failures_per_min": 1}, server={"trusted_proxies": ["127.0.0.1"]}
    )
    for address, status in (("192.0.2.1", 401), ("192.0.2.1", 429), ("192.0.2.2", 401)):
        sent = {**bearer("guess"), "X-Forwarded-For": address}
        assert (await ask(edge.port, CHAT, valid_body(CHAT), sent)).status == status
    lines = await edge.lines.wait("refused", 3)
    assert [(line["client"], line["error"]) for line in lines] == [
        ("192.0.2.1", "invalid_api_key"), ("192.0.2.1", "too_many_attempts"), ("192.0.2.2", "invalid_api_key"),
    ]  # fmt: skip


# --- the store is not there -------------------------------------------------------------------------------------------


async def test_while_nobody_knows_whether_there_are_keys_nobody_gets_in(serve: Serve) -> None:
    edge = await serve(store={"url": "redis://127.0.0.1:1/0"})
    answer = await ask(edge.port, CHAT, valid_body(CHAT))
    assert_told(answer, 503, CHAT, "auth_unavailable")
    assert answer.headers["retry-after"]
    assert (await get(edge.port, "/health")).status == 200
    (line,) = edge.lines.of("cannot read the key store")
    assert "127.0.0.1:1" in line["why"]


async def test_keys_that_are_known_go_on_through_an_outage(
    serve: Serve, made: MadeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await made.make()
    edge = await serve(store=made.settings)
    damage(made.path)
    await edge.lines.wait("cannot read the key store")
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401
    mend(made.path)
    await edge.lines.wait("key store read again")


async def test_without_keys_an_unreadable_store_shuts_the_door(serve: Serve, made: MadeKeys) -> None:
    """That there are no keys is not known any more: they may have been made since."""
    async with made.opened() as store:
        await store.secret("any", b"so that there is a file")
    edge = await serve(store=made.settings)
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200
    damage(made.path)
    await edge.lines.wait("cannot read the key store")
    for headers in ({}, bearer("anything")):
        answer = await ask(edge.port, CHAT, valid_body(CHAT), headers)
        assert_told(answer, 503, CHAT, "auth_unavailable")
    mend(made.path)
    await edge.lines.wait("key store read again")
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200


async def test_who_may_be_anonymous_is_so_while_the_key_store_cannot_be_read(serve: Serve, made: MadeKeys) -> None:
    made.path.mkdir(parents=True)
    edge = await serve(store=made.settings, auth={"allow_anonymous": True})
    (line,) = edge.lines.of("cannot read the key store")
    assert str(made.path) in line["why"]
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200


async def test_keys_that_were_made_are_not_forgotten_with_their_file(serve: Serve, made: MadeKeys) -> None:
    """Another file in its place has no keys, but that is no word of theirs."""
    key = await made.make()
    edge = await serve(store=made.settings)
    damage(made.path)
    made.path.unlink()
    async with made.opened() as store:
        await store.secret("any", b"a file of another installation")
    await edge.lines.wait("cannot read the key store")
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 401
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200


async def test_a_key_works_from_the_moment_it_is_made(serve: Serve, made: MadeKeys) -> None:
    """Not when the store is next looked at; and it is no wrong guess before."""
    await made.make()
    edge = await serve(store=made.settings, auth={"failures_per_min": 1})
    for name in ("bob", "carol", "dave"):
        key = await made.make(name)
        assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200


async def test_a_key_that_cannot_be_looked_up_is_no_wrong_guess(serve: Serve, made: MadeKeys) -> None:
    await made.make()
    edge = await serve(store=made.settings, auth={"failures_per_min": 1})
    key, record = make_key(KeyRecord("", "bob", "", 0.0), time.time())
    damage(made.path)
    await edge.lines.wait("cannot read the key store")
    for _ in range(3):
        assert_told(await ask(edge.port, CHAT, valid_body(CHAT), bearer(key)), 503, CHAT, "auth_unavailable")
    mend(made.path)
    async with made.opened() as store:
        await store.put(record)
    await edge.lines.wait("key store read again")
    assert (await ask(edge.port, CHAT, valid_body(CHAT), bearer(key))).status == 200


async def test_a_guess_beside_a_key_that_cannot_be_looked_up_is_a_guess(serve: Serve, made: MadeKeys) -> None:
    await made.make()
    edge = await serve(store=made.settings, auth={"failures_per_min": 1, "keys": ["the-static-key"]})
    key, _ = make_key(KeyRecord("", "bob", "", 0.0), time.time())
    damage(made.path)
    await edge.lines.wait("cannot read the key store")
    sent = {**bearer(key), "x-api-key": "guess"}
    statuses = [(await ask(edge.port, CHAT, valid_body(CHAT), sent)).status for _ in range(2)]
    assert statuses == [503, 429]


async def test_a_page_elsewhere_is_kept_out_also_when_it_takes_a_look_to_let_anybody_in(
    serve: Serve, made: MadeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without keys only loopback names are answered; that none is needed may be found out by the request itself."""
    edge = await serve(store=made.settings)
    ring = edge.edge.callers._ring
    monkeypatch.setattr(ring, "_unchanged_at", float("-inf"))
    assert (await ask(edge.port, CHAT, valid_body(CHAT), {"Host": "evil.example"})).status == 403
    monkeypatch.setattr(ring, "_unchanged_at", float("-inf"))
    assert (await ask(edge.port, CHAT, valid_body(CHAT))).status == 200


def damage(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.write_bytes(b"broken" * 1000)


def mend(path: Path) -> None:
    path.with_name("away").rename(path)


# --- uploads ----------------------------------------------------------------------------------------------------------


async def test_a_second_model_in_a_form_does_not_slip_through(serve: Serve, fake: FakeModel, made: MadeKeys) -> None:
    """Servers differ in which of two they take; so whoever may use some models only sends one."""
    fake.models = ["small-1", "big"]
    key, free = await made.make(models=("small*",)), await made.make("bob")
    edge = await serve(store=made.settings, upstream={"relay": [TRANSCRIPTIONS]})
    small = form(noise(300_000), "small-1")
    twice = small[: -len(LAST)] + field("model", "big") + LAST
    fake.script(*json_answer({"text": "a"}))
    assert (await ask(edge.port, TRANSCRIPTIONS, small, {**FORM, **bearer(key)})).status == 200
    answer = await ask(edge.port, TRANSCRIPTIONS, twice, {**FORM, **bearer(key)})
    assert (answer.status, answer.json["error"]["param"]) == (400, "model")
    assert len([request for request in fake.requests if request.body.endswith(LAST)]) == 1
    assert (await ask(edge.port, TRANSCRIPTIONS, form(b"x", "big"), {**FORM, **bearer(key)})).status == 403
    assert (await ask(edge.port, TRANSCRIPTIONS, form(b"x", None), {**FORM, **bearer(key)})).status == 403
    fake.script(*json_answer({"text": "b"}))
    assert (await ask(edge.port, TRANSCRIPTIONS, twice, {**FORM, **bearer(free)})).status == 200
