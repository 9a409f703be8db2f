"""Which functions of Edge run while something real happens: a request, one token, one failover.

In: an Edge, fake model servers and a client, all in this process on real sockets. Out: ``Recording``: calls in order.
Must not: look into Edge's objects, depend on time, or count what Edge does by itself (its clocks, its looks at
servers).
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Self

import orjson
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_finish,
    chat_role,
    chat_token,
    chunk,
    gate,
    rst,
)
from fakes.steps import SSE_HEADERS, Step, Wire, framed
from support.hanging import HANG_S, hang_limit
from support.raw import CHAT, RawClient, chat_body
from support.running import make_settings, start

from edge.stream.ticker import Ticker
from edge.upstream import fleet, pool
from edge.upstream.discovery import servers

ROOT = Path(__file__).parents[2]
_PACKAGE = f"{ROOT / 'edge'}/"
_CLOCKS = Ticker._sweep.__code__
# However slow the machine: no clock runs out, and no connection gets too old to be used again.
servers.PROBE_S = fleet.FIRST_LOOK_S = pool.POOL_KEEPALIVE_S = HANG_S
_SETTINGS: dict[str, Any] = {
    "discovery": {"interval_s": 3600.0},
    "stream": {"connect_s": HANG_S, "commit_after_s": HANG_S, "heartbeat_s": HANG_S, "inter_token_s": HANG_S},
}
_QUIET_TURNS = 30  # of the loop: everything between two sockets of one process takes a few

BODY = orjson.dumps(chat_body())
REQUEST = (
    f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY


@dataclass(frozen=True)
class Called:
    """One function of Edge: its file within the repository, and its qualified name."""

    file: str
    function: str


@dataclass
class Recording:
    """The calls of functions of Edge, in order, each as often as it was made.

    Attributes:
        stacks: For each call the functions of Edge that it was made within, outermost first.
        background: Tasks of Edge's own, whose calls do not count.
        changes: Calls so far, those of comprehensions and lambdas too.
    """

    calls: list[Called] = field(default_factory=list)
    stacks: list[list[Called]] = field(default_factory=list)
    background: frozenset[asyncio.Task[Any]] = frozenset()
    changes: int = 0

    @property
    def functions(self) -> list[Called]:
        """Each once, in the order of the first call."""
        return list(dict.fromkeys(self.calls))

    @property
    def files(self) -> list[str]:
        """Each once, in the order of the first call into it."""
        return list(dict.fromkeys(call.file for call in self.calls))

    def __add__(self, later: "Recording") -> "Recording":
        return Recording(self.calls + later.calls, self.stacks + later.stacks)

    def __enter__(self) -> Self:
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call" or not frame.f_code.co_filename.startswith(_PACKAGE):
            return
        stack = _stack(frame)
        if _CLOCKS in stack or asyncio.current_task() in self.background:
            return
        self.changes += 1
        # Comprehensions and lambdas are part of the function around them, and no frames any more in Python 3.12.
        names = [_called(code) for code in stack if not code.co_name.startswith("<")]
        if names and not frame.f_code.co_name.startswith("<"):
            self.calls.append(names[-1])
            self.stacks.append(names)

    async def quiet(self) -> None:
        """Wait until everything that was to follow has happened: nothing of Edge runs any more."""
        before, turns = -1, 0
        async with hang_limit():
            while turns < _QUIET_TURNS:
                turns = turns + 1 if before == self.changes else 0
                before = self.changes
                await asyncio.sleep(0)


def _stack(frame: FrameType | None) -> list[CodeType]:
    codes: list[CodeType] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PACKAGE):
            codes.append(frame.f_code)
        frame = frame.f_back
    return codes[::-1]


def _called(code: CodeType) -> Called:
    return Called(str(Path(code.co_filename).relative_to(ROOT)), code.co_qualname.replace(".<locals>", ""))


def begins(*events: bytes) -> Step:
    """The head of a stream and its first events, in one write, so that Edge reads them at once."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in SSE_HEADERS.items())
    data = f"HTTP/1.1 200 OK\r\n{fields}\r\n".encode() + b"".join(map(framed, events))

    async def step(wire: Wire) -> None:
        wire.chunked = True
        await wire.write(data)

    return step


def ends(*events: bytes) -> Step:
    """The last events and the end of the body, in one write likewise."""
    data = b"".join(map(framed, events)) + b"0\r\n\r\n"

    async def step(wire: Wire) -> None:
        await wire.write(data)

    return step


def _tokens(*words: str) -> list[Step]:
    steps: list[Step] = []
    for word in words:
        steps += [gate(word), chunk(chat_token(word))]
    return steps


@asynccontextmanager
async def _edge(*servers: FakeModel) -> AsyncIterator[tuple[Callable[[], Recording], RawClient]]:
    """An Edge that has answered a request already: what makes recordings of it, and the client's connection.

    What is made at the first request ever is of no interest here, and would hide what each request costs.
    """
    running = await start(make_settings(*(server.url for server in servers), **_SETTINGS))
    background = frozenset(asyncio.all_tasks())
    try:
        async with RawClient(running.port) as client:
            for server in servers:
                server.script(begins(chat_role(), chat_token("warm")), ends(chat_finish(), DONE))
            await _ask(client)
            await client.until(b"0\r\n\r\n")
            await running.record()
            client.buffer = b""
            yield partial(Recording, background=background), client
    finally:
        await running.stop()


async def _ask(client: RawClient) -> None:
    await client.send(REQUEST)


@dataclass
class Recordings:
    """All that the page shows.

    Attributes:
        asked: From a request's first byte until the server has the request.
        prelude: The head of the answer, and the event before its first token, which Edge holds.
        first: The first token: the status goes out.
        token: A later token.
        end: The last events and the record.
        failover: The server dies before the first token, until the prelude of another one is held.
    """

    asked: Recording
    prelude: Recording
    first: Recording
    token: Recording
    end: Recording
    failover: Recording


async def record() -> Recordings:
    """Let one request be answered, and another one fail over, and record what runs."""
    async with FakeModel() as server, _edge(server) as (recording, client):
        asked, prelude, first, second, token, ending = (recording() for _ in range(6))
        server._scripts.clear()
        last = ends(chat_finish(), DONE)
        server.script(gate("asked"), begins(chat_role()), *_tokens("a", "b", "c"), gate("last"), last)
        with asked:
            await _ask(client)
            await server.reached("asked")
            await asked.quiet()
        with prelude:
            server.open("asked")
            await server.reached("a")
            await prelude.quiet()
        for word, made in (("a", first), ("b", second), ("c", token)):
            with made:
                server.open(word)
                await client.until(f'"{word}"'.encode())
                await made.quiet()
        with ending:
            server.open("last")
            await client.until(b"0\r\n\r\n")
            await ending.quiet()
    return Recordings(asked, prelude, first, token, ending, await _failover())


async def _failover() -> Recording:
    async with FakeModel() as broken, FakeModel() as other, _edge(broken, other) as (recording, client):
        made = recording()
        for server in (broken, other):
            server._scripts.clear()
            server.script(begins(chat_role()), gate("held"), rst())
        await _ask(client)
        waits = [asyncio.create_task(server.reached("held")) for server in (broken, other)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        first, second = (broken, other) if waits[0].done() else (other, broken)
        second._scripts.clear()
        second.script(begins(chat_role()), gate("again"), ends(chat_token("x"), chat_finish(), DONE))
        for wait in waits:
            wait.cancel()
        with recording() as before:
            await before.quiet()  # the prelude of the first one is held by then
        with made:
            first.open("held")
            await second.reached("again")
            await made.quiet()
        second.open("again")
        await client.until(b"0\r\n\r\n")
    return made
