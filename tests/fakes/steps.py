"""The steps a fake model server's script is made of, down to the single byte.

In: what to do. Out: functions that do it on a connection. Must not: sleep, or know which request it answers.
"""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from http.client import responses
from itertools import pairwise
from random import Random
from typing import Protocol

import orjson
from fakes.answers import (
    WORDS,
    Json,
    chat_events,
    completion_events,
    messages_events,
    responses_events,
)

SSE_HEADERS = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


class Wire(Protocol):
    """What a step may do to its connection."""

    transport: asyncio.Transport
    chunked: bool

    async def write(self, data: bytes) -> None:
        """Write, and wait until the kernel has all of it."""

    def close(self, *, reset: bool = False) -> None:
        """End the connection."""

    def promises(self) -> Mapping[str, str]:
        """Headers that the server itself adds."""

    async def pass_gate(self, name: str) -> None:
        """Say that the gate is reached, and wait until it is open."""

    async def read_body(self) -> None:
        """Read the request's body after all."""


Step = Callable[[Wire], Awaitable[None]]


async def turns(count: int = 3) -> None:
    """Let the loop turn until a peer in this process has read what was written."""
    for _ in range(count):
        await asyncio.sleep(0)


def head(status: int = 200, headers: Mapping[str, str] | None = None, reason: str | None = None) -> Step:
    """Status line and headers; without ``headers``, those of a chunked event stream."""
    sent = SSE_HEADERS if headers is None else headers

    async def run(wire: Wire) -> None:
        wire.chunked = sent.get("Transfer-Encoding", "").lower() == "chunked"
        complete = {**wire.promises(), **sent}
        phrase = responses.get(status, "") if reason is None else reason
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in complete.items())]
        await wire.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    return run


def send(data: bytes, *, split: list[int] | None = None, every: int | None = None) -> Step:
    """Exactly these bytes, without any framing; cut as in ``chunk``."""
    pieces = cut(data, split, every)

    async def run(wire: Wire) -> None:
        for piece in pieces:
            await wire.write(piece)
            await turns()

    return run


def chunk(data: bytes, *, split: list[int] | None = None, every: int | None = None) -> Step:
    """A piece of the body, in chunked framing if the head promised it.

    ``split`` (offsets) or ``every`` (bytes) cut it into pieces, each a chunk and a TCP segment of its own.
    """
    pieces = cut(data, split, every)

    async def run(wire: Wire) -> None:
        for piece in pieces:
            await wire.write(framed(piece) if wire.chunked else piece)
            await turns()

    return run


def end() -> Step:
    """The end of a chunked body; nothing for other bodies."""

    async def run(wire: Wire) -> None:
        if wire.chunked:
            await wire.write(b"0\r\n\r\n")

    return run


def gate(name: str) -> Step:
    """Wait until the test opens the gate."""

    async def run(wire: Wire) -> None:
        await wire.pass_gate(name)

    return run


def fin() -> Step:
    """Close cleanly; what follows in the script is not run."""

    async def run(wire: Wire) -> None:
        wire.close()

    return run


def rst() -> Step:
    """Reset the connection; what follows in the script is not run."""

    async def run(wire: Wire) -> None:
        await turns()
        wire.close(reset=True)

    return run


def stall() -> Step:
    """Do nothing until the peer leaves."""

    async def run(_: Wire) -> None:
        await asyncio.Event().wait()

    return run


async def pause_reading(wire: Wire) -> None:
    wire.transport.pause_reading()


def no_read() -> Step:
    """As the first step: read the headers and nothing more. That the peer leaves is not seen before ``left()``."""
    return pause_reading


def read_body() -> Step:
    """After ``no_read``: read the body after all."""

    async def run(wire: Wire) -> None:
        await wire.read_body()

    return run


def flood(total_bytes: int, event: bytes) -> Step:
    """Write ``event`` over and over, as fast as the peer takes it; ``request.written`` counts."""
    block = event * max(1, 65536 // len(event))

    async def run(wire: Wire) -> None:
        ready = framed(block) if wire.chunked else block
        for _ in range(-(-total_bytes // len(block))):
            await wire.write(ready)
            await asyncio.sleep(0)

    return run


def garbage(count: int) -> Step:
    """Random bytes, the same in every run, without framing."""
    return send(Random(count).randbytes(count))


def whole(body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Step]:
    """A complete answer with its length."""
    return [head(status, {"Content-Length": str(len(body)), **(headers or {})}), send(body)]


def json_answer(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> list[Step]:
    """A complete JSON answer."""
    return whole(orjson.dumps(body), status, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})


def stream_answer(events: list[bytes]) -> list[Step]:
    """A complete event stream, one chunk for each event."""
    return [head(), *(chunk(event) for event in events), end()]


def chat_answer(words: list[str] | tuple[str, ...] = WORDS, *, usage: bool = True) -> list[Step]:
    """A complete chat stream."""
    return stream_answer(chat_events(words, usage=usage))


def completion_answer(words: list[str] | tuple[str, ...] = WORDS, *, usage: bool = True) -> list[Step]:
    """A complete completions stream."""
    return stream_answer(completion_events(words, usage=usage))


def messages_answer(words: list[str] | tuple[str, ...] = WORDS) -> list[Step]:
    """A complete Messages stream."""
    return stream_answer(messages_events(words))


def responses_answer(words: list[str] | tuple[str, ...] = WORDS) -> list[Step]:
    """A complete Responses stream."""
    return stream_answer(responses_events(words))


def framed(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def cut(data: bytes, split: list[int] | None, every: int | None) -> list[bytes]:
    at = [*(split or []), *(range(every, len(data), every) if every else [])]
    edges = [0, *at, len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A loopback port that neither accepts nor refuses a connection: connecting hangs."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # one fills the queue; the rest make sure of it
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
