"""However the upstream fails, the client is told once, in its surface's shape, and nothing looks like an end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    flood,
    garbage,
    gate,
    head,
    json_answer,
    rst,
    send,
    short_answer,
    stall,
    whole,
)
from support.faults import (
    ERROR_EVENT,
    FINISH,
    SURFACES,
    TERMINATOR,
    assert_cut,
    assert_gone,
    believe_up,
    every_surface,
    streamed_or_not,
    told_by_status,
    whole_stream,
)
from support.raw import CHAT, MESSAGES, RESPONSES, Answer, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

from edge.protocol.batch import Batch
from edge.protocol.chat.codec import ChatCodec, ChatDialect
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface
from edge.upstream.ports import Call, Sink, Source

MAX_EVENT_BYTES = 4096
SSE = {"Content-Type": "text/event-stream"}
OVERSIZED = b'data: {"x":"' + b"x" * 2 * MAX_EVENT_BYTES + b'"}\n\n'

http_versions = pytest.mark.parametrize("http", ["1.1", "1.0"])


@dataclass(frozen=True)
class Fails:
    """A way to fail, and what is to be told of it."""

    steps: Callable[[Spoken], list[Step]]
    outcome: str
    code: str
    status: int = 502


def cut(steps: Callable[[Spoken], list[Step]]) -> Fails:
    return Fails(steps, "upstream_cut", "upstream_cut")


def broken(steps: Callable[[Spoken], list[Step]], status: int = 502) -> Fails:
    return Fails(steps, "upstream_error", "upstream_error", status)


def useless(steps: list[Step]) -> Fails:
    """A whole answer, but not one that can be used."""
    return broken(lambda _: steps)


def just(*steps: Step) -> Callable[[Spoken], list[Step]]:
    return lambda _: list(steps)


# Instead of an answer.
AT_FIRST: Mapping[str, Fails] = {
    "reset before headers": cut(just(rst())),
    "eof before headers": cut(just(fin())),
    "eof inside headers": cut(just(send(b"HTTP/1.1 200 OK\r\nContent-Ty"), fin())),
    "reset inside headers": cut(just(send(b"HTTP/1.1 200 OK\r\nContent-Ty"), rst())),
    "garbage": broken(just(garbage(300), stall())),
    "another protocol": broken(just(send(b"220 mail.example ESMTP\r\n"), stall())),
    "huge headers": broken(just(send(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"), stall())),
    "redirect": useless(whole(b"", 307, {"Location": "/v1/elsewhere"})),
    "moved": useless(whole(b"", 301, {"Location": "/v1/elsewhere"})),
    "no content": useless([head(204, {})]),
    "accepted": useless(json_answer({"id": "later"}, 202)),
    "html": useless(whole(b"<html>", 200, {"Content-Type": "text/html"})),
    "no content type": useless(whole(b"all is well", 200, {})),
    "an end alone, without a type": cut(just(*whole(DONE, 200, {}))),
    "malformed json": useless(whole(b'{"id":', 200, {"Content-Type": "application/json"})),
    "cut json": cut(just(head(200, {"Content-Type": "application/json", "Content-Length": "99"}), send(b"{"), fin())),
    "json error": useless(json_answer({"error": {"message": "the model broke"}})),
    "huge error body": broken(just(head(500, {"Content-Type": "application/json"}), flood(10**7, b"x" * 1000)), 500),
    "reset inside an error body": broken(just(head(500, {"Content-Length": "99"}), send(b"{"), rst()), 500),
    "empty stream": cut(just(head(), end())),
    "empty body": cut(just(*whole(b"", 200, SSE))),
}

# Inside an event stream, before or after generated content.
IN_STREAM: Mapping[str, Fails] = {
    "eof": cut(just(fin())),
    "reset": cut(just(rst())),
    "clean eof": cut(just(end())),
    "eof inside an event": cut(lambda spoken: [chunk(spoken.token[:-9]), fin()]),
    "clean eof inside an event": cut(lambda spoken: [chunk(spoken.token[:-9]), end()]),
    "terminator without finish": cut(lambda spoken: [chunk(TERMINATOR[spoken.path] or b": x\n\n"), end()]),
    "bad chunk size": cut(just(send(b"xyz\r\n"), stall())),
    "eof inside a chunk": cut(just(send(b"fff\r\n: x\n"), fin())),
    "malformed json": broken(lambda spoken: [chunk(spoken.token[:-9] + b"\n\n"), stall()]),
    "not json": broken(just(chunk(b"event: error\ndata: oops\n\n"), stall())),
    "oversized event": broken(just(chunk(OVERSIZED), stall())),
    "oversized comment": broken(just(chunk(b":" + b"x" * 2 * MAX_EVENT_BYTES), stall())),
    "error event": broken(lambda spoken: [chunk(ERROR_EVENT[spoken.path]), end()], -1),
    "terminator after an error": broken(lambda spoken: [chunk(ERROR_EVENT[spoken.path] + DONE), end()], -1),
    "two errors": broken(lambda spoken: [chunk(ERROR_EVENT[spoken.path] * 2), end()], -1),
    "error, then silence": broken(lambda spoken: [chunk(ERROR_EVENT[spoken.path]), stall()], -1),
    "error, then cut": broken(lambda spoken: [chunk(ERROR_EVENT[spoken.path]), rst()], -1),
}


def fail_params(fails: Mapping[str, Fails]) -> Any:
    return pytest.mark.parametrize("fails", fails.values(), ids=fails)


def expected_status(fails: Fails, spoken: Spoken) -> int:
    """Of an error event: the chat fixture's carries a status of its own, 500; the others are a bad gateway's."""
    if fails.status > 0:
        return fails.status
    return 502 if spoken.path in (MESSAGES, RESPONSES) else 500


async def start(serve: Serve, fake: FakeModel) -> Running:
    """An Edge without pooled connections: what dies on one of those is tried again, which is not the matter here."""
    fake.close_after_answer = True
    return await serve(upstream=SURFACES, stream={"max_event_bytes": MAX_EVENT_BYTES})


async def assert_told_by_status(edge: Running, fake: FakeModel, spoken: Spoken, fails: Fails, *, stream: bool) -> None:
    """One request fails before the commit."""
    before = len(edge.records)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    status = expected_status(fails, spoken)
    assert answer.status == status
    error = told_by_status(spoken, answer, own=True)
    assert "127.0.0.1" not in error["message"]
    record = await edge.record(before)
    assert (record["outcome"], record["error"], record["status"]) == (fails.outcome, fails.code, status)
    assert (record["attempts"], record["reader"], len(edge.records)) == (1, "finished", before + 1)
    assert (fake.requests[-1].path, len(fake.requests)) == (spoken.path, before + 1)
    await assert_gone(fake)


async def assert_told_in_band(edge: Running, fake: FakeModel, spoken: Spoken, fails: Fails, *, http: str) -> None:
    """One stream fails after it has begun."""
    before = len(edge.records)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True), version=http)
    assert answer.body.startswith(spoken.prelude + spoken.token)
    error = assert_cut(spoken, answer)
    if fails.status < 0:
        assert answer.events[-2 if spoken.path == RESPONSES else -1] == ERROR_EVENT[spoken.path]
    elif spoken.path != MESSAGES:
        assert error["code"] == fails.code
    record = await edge.record(before)
    assert (record["outcome"], record["error"], record["status"]) == (fails.outcome, fails.code, 200)
    assert (record["attempts"], record["reader"], record["http10"]) == (1, "finished", http == "1.0")
    await assert_gone(fake)


@fail_params(AT_FIRST)
async def test_it_fails_instead_of_answering(serve: Serve, fake: FakeModel, fails: Fails) -> None:
    edge = await start(serve, fake)
    for spoken, stream in product(SPOKEN, (True, False)):
        fake.script(*fails.steps(spoken))
        await assert_told_by_status(edge, fake, spoken, fails, stream=stream)


@fail_params(IN_STREAM)
async def test_it_fails_before_the_first_content(serve: Serve, fake: FakeModel, fails: Fails) -> None:
    edge = await start(serve, fake)
    for spoken, stream in product(SPOKEN, (True, False)):
        fake.script(head(), chunk(spoken.prelude or b": x\n\n"), *fails.steps(spoken))
        await assert_told_by_status(edge, fake, spoken, fails, stream=stream)


@fail_params(IN_STREAM)
async def test_it_fails_after_the_first_content(serve: Serve, fake: FakeModel, fails: Fails) -> None:
    edge = await start(serve, fake)
    for spoken, http in product(SPOKEN, ("1.1", "1.0")):
        fake.script(head(), chunk(spoken.prelude + spoken.token), *fails.steps(spoken))
        await assert_told_in_band(edge, fake, spoken, fails, http=http)
    for spoken in SPOKEN:
        fake.script(head(), chunk(spoken.prelude + spoken.token), *fails.steps(spoken))
        await assert_told_by_status(edge, fake, spoken, fails, stream=False)


@every_surface
@pytest.mark.parametrize("framing", ["length", "close"])
async def test_a_body_that_is_not_chunked_is_cut_short(
    serve: Serve, fake: FakeModel, spoken: Spoken, framing: str
) -> None:
    data = spoken.prelude + spoken.token
    length = {"Content-Length": str(len(data) + 9)} if framing == "length" else {}
    edge = await start(serve, fake)
    for http in ("1.1", "1.0"):
        fake.script(head(200, {**SSE, **length}), send(data), fin())
        await assert_told_in_band(edge, fake, spoken, IN_STREAM["eof"], http=http)


@every_surface
@pytest.mark.parametrize("content", [True, False])
async def test_a_finished_answer_without_its_terminator_is_whole(
    serve: Serve, fake: FakeModel, spoken: Spoken, *, content: bool
) -> None:
    """Edge supplies the terminator, as a finish reason and a clean end of the body are proof enough."""
    data = spoken.prelude + spoken.token * content + FINISH[spoken.path]
    edge = await start(serve, fake)
    for framing in ({**SSE, "Content-Length": str(len(data))}, {**SSE, "Connection": "close"}):
        for stream in (True, False):
            fake.script(head(200, framing), send(data), fin())
            answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
            assert (answer.status, answer.clean) == (200, True)
            if stream:
                assert answer.body == data + TERMINATOR[spoken.path]
    assert {record["outcome"] for record in edge.records} == {"complete"}


@every_surface
async def test_a_finished_answer_is_whole_whatever_comes_after_its_terminator(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    data = spoken.prelude + spoken.token + spoken.ending
    edge = await start(serve, fake)
    for after in (rst(), fin(), send(b"xyz\r\n"), chunk(ERROR_EVENT[spoken.path]), stall()):
        fake.script(head(), chunk(data), after, stall())
        answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
        assert (answer.clean, answer.body) == (True, whole_stream(spoken))
    assert {record["outcome"] for record in edge.records} == {"complete"}
    await assert_gone(fake)


async def test_what_came_with_the_end_of_the_connection_is_handed_on(serve: Serve, fake: FakeModel) -> None:
    """Head, tokens and the cut in one segment: the tokens are the client's all the same."""
    spoken = SPOKEN[0]
    data = spoken.prelude + spoken.token * 3
    edge = await start(serve, fake)
    headers = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
    fake.script(send(headers + data), fin())
    answer = await ask(edge.port, CHAT, spoken.asked(stream=True))
    assert answer.body.startswith(data)
    assert_cut(spoken, answer)


@every_surface
async def test_json_is_no_stream_but_a_whole_answer(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    edge = await start(serve, fake)
    body = short_answer(spoken.path, {})
    fake.script(*json_answer(body))
    await assert_told_by_status(edge, fake, spoken, AT_FIRST["accepted"], stream=True)
    fake.script(*json_answer(body))
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert (answer.status, answer.json) == (200, body)


@pytest.fixture
async def plain_port() -> AsyncIterator[int]:
    """Where somebody answers TLS as plain HTTP servers do."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@every_surface
@pytest.mark.parametrize("how", ["refused", "name", "tls"])
async def test_it_cannot_be_reached(serve: Serve, fake: FakeModel, plain_port: int, spoken: Spoken, how: str) -> None:
    """It is believed up, for it was at the last look; the failure is noted, and readiness tells of it at once."""
    urls = {"refused": fake.url, "name": "http://nowhere.invalid", "tls": f"https://127.0.0.1:{plain_port}"}
    fake.close_after_answer = True
    edge = await serve(urls[how], upstream=SURFACES)
    await fake.refuse()
    reasons = {"refused": "connection refused", "name": "its name cannot be resolved", "tls": "TLS failed"}
    for stream in (True, False):
        believe_up(edge)
        answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
        assert answer.status == 502
        error = told_by_status(spoken, answer)
        assert error["message"] == f"upstream up cannot be reached: {reasons[how]}"
        record = await edge.record(-1)
        assert (record["outcome"], record["error"]) == ("upstream_cut", "upstream_unreachable")
        ready, facts = edge.edge.fleet.ready()
        assert (ready, facts["upstreams"]["up"]["why"]) == (False, "could not be connected to")
    assert fake.requests == []


@every_surface
@streamed_or_not
@pytest.mark.parametrize("status", [0, 101, 600, 999])
async def test_a_status_that_http_has_not_is_a_bad_gateway(
    serve: Serve, fake: FakeModel, spoken: Spoken, status: int, *, stream: bool
) -> None:
    body = b'{"error": {"message": "odd"}}'
    fake.script(send(b"HTTP/1.1 %03d Odd\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body), end())
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert answer.status == 502
    assert told_by_status(spoken, answer)
    assert (await edge.record())["outcome"] in ("upstream_error", "upstream_cut")


class Buggy(ChatCodec):
    """A codec that fails at the event that says so."""

    def plain(self, data: bytes) -> int:
        if b"bug" in data:
            raise ZeroDivisionError("the bug")
        return super().plain(data)

    def feed(self, data: bytes) -> Batch:
        if b"bug" in data:
            raise ZeroDivisionError("the bug")
        return super().feed(data)


class BuggyDialect(ChatDialect):
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> Buggy:
        return Buggy(prepared, max_event_bytes, repairs)


class BuggyUpstream:
    """An upstream that breaks its port's promise."""

    name = "up"

    def open(self, _call: Call, _sink: Sink) -> Source:
        raise ZeroDivisionError("the bug")

    async def close(self) -> None:
        """Nothing is held."""


@pytest.fixture
def buggy_chat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DIALECTS, Surface.CHAT, BuggyDialect(Surface.CHAT))


async def assert_bug_told(edge: Running, answer: Answer | None) -> None:
    line = await edge.expect_bug()
    assert "ZeroDivisionError: the bug" in line["exception"]
    record = await edge.record()
    assert (record["outcome"], record["error"], line["request_id"]) == (
        "internal_error",
        "internal_error",
        record["request_id"],
    )
    if answer is not None:
        assert answer.status == 500
        assert answer.headers["x-should-retry"] == "false"
        assert told_by_status(SPOKEN[0], answer)["code"] == "internal_error"
        assert b"ZeroDivision" not in answer.body


@pytest.mark.usefixtures("buggy_chat")
@streamed_or_not
async def test_a_bug_of_ours_before_the_commit_is_told_by_the_status(
    serve: Serve, fake: FakeModel, *, stream: bool
) -> None:
    fake.script(head(), chunk(chat_role()), chunk(chat_token("bug")), stall())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(stream=stream))
    await assert_bug_told(edge, answer)
    await assert_gone(fake)


@pytest.mark.usefixtures("buggy_chat")
@http_versions
async def test_a_bug_of_ours_after_the_commit_is_told_in_band(serve: Serve, fake: FakeModel, http: str) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), gate("told"), chunk(chat_token("bug")), stall())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), version=http)
        await client.until(b'"a"')
        fake.open("told")
        answer = await client.answer()
    assert assert_cut(SPOKEN[0], answer)["code"] == "internal_error"
    await assert_bug_told(edge, None)
    await assert_gone(fake)


@streamed_or_not
async def test_an_upstream_that_cannot_even_be_opened_is_a_bug(serve: Serve, *, stream: bool) -> None:
    edge = await serve()
    edge.edge.fleet.members[0].upstream = BuggyUpstream()
    answer = await ask(edge.port, CHAT, chat_body(stream=stream))
    await assert_bug_told(edge, answer)
