"""How a failure looks to each surface's client, and what the fault tests have in common.

In: answers as a raw client saw them. Out: what they say of the failure. Must not: know what went wrong.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_finish,
    completion_finish,
    messages_block_stop,
    messages_delta,
    messages_error,
    messages_stop,
    responses_event,
    responses_events,
    sse_error,
)

from support.hanging import hang_limit
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, RawClient, ask
from support.running import Running, time_passes
from support.surfaces import SPOKEN, Spoken

SURFACES = {"surfaces": ["chat", "completions", "responses", "messages", "embeddings", "count_tokens"]}

every_surface = pytest.mark.parametrize("spoken", SPOKEN, ids=str)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])

_USAGE = b'"choices":[],"usage"'
_COMPLETED = responses_events(["tok"])[-1]

# What says that the answer is whole, and what ends the stream. In Responses both are one event.
FINISH = {
    CHAT: chat_finish(),
    COMPLETIONS: completion_finish(),
    MESSAGES: messages_block_stop() + messages_delta(),
    RESPONSES: _COMPLETED,
}
TERMINATOR = {CHAT: DONE, COMPLETIONS: DONE, MESSAGES: messages_stop(), RESPONSES: b""}
END_MARK = {CHAT: b"[DONE]", COMPLETIONS: b"[DONE]", MESSAGES: b"message_stop", RESPONSES: b"response.completed"}
ERROR_EVENT = {
    CHAT: sse_error(),
    COMPLETIONS: sse_error(),
    MESSAGES: messages_error(),
    RESPONSES: responses_event("error", 9, code="server_error", message="the model broke", param=None),
}


def without_usage(data: bytes) -> bytes:
    """A stream as a client gets it that did not ask for usage."""
    return b"".join(event + b"\n\n" for event in data.split(b"\n\n")[:-1] if _USAGE not in event)


def whole_stream(spoken: Spoken) -> bytes:
    """One token, begun and ended."""
    return without_usage(spoken.prelude + spoken.token + spoken.ending)


def payload(event: bytes) -> Any:
    """The JSON of one event; None if it has none."""
    data = b"\n".join(line[5:].lstrip() for line in event.splitlines() if line.startswith(b"data:"))
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def is_heartbeat(event: bytes) -> bool:
    """A comment, or the surface's own kind of event."""
    decoded = payload(event)
    kind = decoded.get("type") if isinstance(decoded, dict) else None
    return event.startswith(b":") or kind in ("ping", "keepalive")


def told_in_band(spoken: Spoken, answer: Answer) -> Any:
    """The error that ends a stream, the only one in it and the last thing; its code where the surface has one."""
    *before, last = answer.events
    assert answer.body.endswith(last)
    failed = None
    if spoken.path == RESPONSES:  # whose own end follows: Codex reads nothing else
        failed = payload(last)
        *before, last = before
    assert [event for event in before if _error_in(spoken, event)] == []
    error = _error_in(spoken, last)
    if failed is not None:
        assert (failed["type"], failed["sequence_number"]) == ("response.failed", error["sequence_number"] + 1)
        assert (failed["response"]["status"], failed["response"]["error"]["message"]) == ("failed", error["message"])
    assert error is not None, last
    if spoken.path in (MESSAGES, RESPONSES):
        assert last.startswith(b"event: error\n")
    assert isinstance(error["message"], str)
    return error


def _error_in(spoken: Spoken, event: bytes) -> Any:
    decoded = payload(event)
    if not isinstance(decoded, dict):
        return None
    if spoken.path == RESPONSES:
        return decoded if decoded["type"] == "error" else None
    if spoken.path == MESSAGES:
        return decoded["error"] if decoded["type"] == "error" else None
    return decoded.get("error")


def ended_by_error(path: str) -> bool:
    """Whether this surface's error ends a stream by itself, so that the body may end cleanly after it."""
    return path in (RESPONSES, "/api/chat", "/api/generate")


def assert_cut(spoken: Spoken, answer: Answer) -> Any:
    """A committed stream that failed: one error, no terminator, then what follows it. Returns the error.

    A reset, but for Responses, whose own end is the error. To a client of HTTP/1.0 a clean end could be that of a whole
    answer.
    """
    assert answer.status == 200
    error = told_in_band(spoken, answer)
    assert END_MARK[spoken.path] not in answer.body
    closes = ended_by_error(spoken.path) and answer.headers.get("transfer-encoding") == "chunked"
    assert (answer.clean, answer.ending) == ((True, "framed") if closes else (False, "reset"))
    return error


def told_by_status(spoken: Spoken, answer: Answer, *, own: bool = False) -> Any:
    """The error of an answer that never became a stream, in the surface's own shape.

    Args:
        own: It may be the upstream's envelope, which is kept as it is, even if not every field is there.
    """
    assert answer.clean
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json
    error = body["error"]
    assert isinstance(error["message"], str)
    assert error["message"]
    if spoken.path == MESSAGES:
        assert body["type"] == "error"
        assert isinstance(error["type"], str)
        assert body["request_id"]
    elif not own:
        assert error.keys() == {"message", "type", "param", "code"}
    return error


async def assert_silent(edge: Running, client: RawClient) -> None:
    """Not a byte has come: Edge, which shares this loop, has answered somebody else in full meanwhile."""
    answer = await ask(edge.port, "/v1/nowhere", {})
    assert answer.status == 404
    assert client.buffer == b""
    with pytest.raises(BlockingIOError):
        client.sock.recv(1)


async def assert_gone(fake: FakeModel) -> None:
    """No request of Edge's is left at the model server."""
    for request in fake.requests:
        await request.left()


def passing(seconds: float) -> Step:
    """A step of a fake model server: so much time passes for Edge."""

    async def run(_: object) -> None:
        time_passes(seconds)

    return run


async def connecting(edge: Running) -> None:
    """Wait until a connection to an upstream is being made."""
    await edge.wait(lambda: any(one.generation.connecting for one in edge.edge.registry))


def believe_up(edge: Running) -> None:
    """The upstreams answered the last look; what is wrong with them has not been noticed yet."""
    for member in edge.edge.fleet.members:
        member.up = member.any_model = True
        edge.edge.fleet._queues[member].apply()


@contextmanager
def hole(port: int) -> Iterator[None]:
    """On this port nobody accepts or refuses a connection: connecting hangs."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):  # one fills the queue; the rest make sure of it
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield


async def beats(edge: Running, count: int) -> None:
    """Wait until Edge has sent its one reader so many heartbeats."""
    (exchange,) = edge.edge.registry
    async with hang_limit():
        while exchange.reader.heartbeats < count:
            await asyncio.sleep(0.005)
