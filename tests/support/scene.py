"""A generation and one reader of it, with a clock, a model server and a connection that a test moves by hand.

In: what the model server sends, and time. Out: what the reader's connection gets. Must not: open a socket.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent, Outcome
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import Prepared, prepare
from edge.protocol.surface import Surface
from edge.settings import Settings
from edge.stream.attempt import Attempt
from edge.stream.generation import Generation
from edge.stream.json_reader import JsonReader
from edge.stream.reader import BaseReader
from edge.stream.subscriber import Subscriber
from edge.upstream.ports import Call

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"tok"},"finish_reason":null}]}\n\n'
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"


def _prepared(surface: Surface) -> Prepared:
    field = b"input" if surface is Surface.RESPONSES else b"messages"
    return prepare(surface, b'{"model":"m","max_tokens":9,"%b":[],"stream":true}' % field)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Connection:
    """What ``Writer`` is to a reader: what was written, and how it ended; ``window`` is what the peer will take."""

    http10 = False
    acknowledges = True  # what it has taken

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.window = 1 << 30
        self.closing = False
        self.ended: str | None = None
        self._moved = asyncio.Event()

    @property
    def bytes_out(self) -> int:
        return sum(map(len, self.written))

    @property
    def pending(self) -> int:
        return max(0, self.bytes_out - self.window)

    @property
    def taken(self) -> int:
        return self.bytes_out - self.pending

    @property
    def blocked(self) -> bool:
        return self.pending > 0

    async def open(self, status: int, headers: Any) -> web.StreamResponse:
        return web.StreamResponse(status=status, headers=headers)

    async def answer(self, status: int, headers: Any, body: bytes) -> web.StreamResponse:
        response = await self.open(status, headers)
        self.write_nowait(body)
        await self.finish()
        return response

    def write_nowait(self, data: bytes) -> bool:
        if self.closing:
            raise ConnectionResetError("the client left")
        self.written.append(data)
        return self.blocked

    def take(self, size: int) -> None:
        self.window += size
        self._moved.set()

    async def drain(self) -> None:
        while self.pending:
            if self.closing:
                raise ConnectionError("Connection lost")
            self._moved.clear()
            await self._moved.wait()

    async def finish(self) -> None:
        await self.drain()
        self.ended = self.ended or "finished"

    async def flush(self, deadline_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self.drain()
                return self.acknowledges
        return False

    def abort(self) -> None:
        self.ended = self.ended or "aborted"
        self.closing = True
        self._moved.set()


class Model:
    """An upstream and its call: only told what to do."""

    name = "up"
    paused = aborted = False

    def open(self, call: Call, sink: Any) -> "Model":
        return self

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


class Owner:
    keeps_answer = False
    place = None

    def changed(self) -> None:
        pass

    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        announce()

    def detached(self) -> None:
        pass


class Keeps(Owner):
    """Keeps the answer, which takes until ``announce`` is called."""

    keeps_answer = True
    announce: Callable[[], None]

    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        self.announce = announce


class Breaks(Owner):
    """Has a bug where the answer is kept."""

    keeps_answer = True

    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        raise ZeroDivisionError


class Scene:
    """A generation that waits for its first token, and one reader.

    Args:
        surface: What both client and model server speak.
        closes: The client's stream may end cleanly after an error event.

    Attributes:
        others: Upstreams that are there besides.
    """

    others = 0

    reader: BaseReader
    task: asyncio.Task[web.StreamResponse]

    def __init__(
        self, owner: Owner | None = None, *, surface: Surface = Surface.CHAT, closes: bool = False, **stream: Any
    ) -> None:
        self.dialect, self.prepared, self.closes = DIALECTS[surface], _prepared(surface), closes
        limits = {"heartbeat_s": 10, "commit_after_s": 10, "client_stall_s": 60, "flush_s": 0.05, **stream}
        self.settings = msgspec.convert({"stream": limits}, Settings)
        self.clock = Clock()
        self.connection = Connection()
        self.model = Model()
        own = self.dialect.format("m", "req_1")
        self.generation = Generation("st_1", self.settings, self.clock, owner or Owner(), surface_format=own)

    async def begin(self, *, stream: bool = True) -> None:
        shared: list[Any] = [self.generation, self.connection, self.settings.stream, self.clock, lambda: None]
        if stream:
            self.reader = Subscriber(*shared, headers=dict, closes=self.closes)
        else:
            self.reader = JsonReader(*shared, headers=dict)
        self.attempt(collects=self.dialect.surface is Surface.CHAT, takes_body=not stream)
        self.task = asyncio.create_task(self.reader.run())
        await self.settle()

    def attempt(self, *, collects: bool = False, takes_body: bool = False) -> None:
        """Open one, which the model server accepts."""
        self.codec = self.dialect.codec(self.prepared, 1 << 20, frozenset())
        if collects:
            self.codec.collect(self.dialect.collector(self.prepared))
        self.sink = Attempt(self.generation, self, self.settings.stream, self.clock)
        self.sink.open(self.model, Call(self.dialect.surface, b"", self.codec, {}, 1 << 20, takes_body))
        self.sink.connected()

    def attempt_ended(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """As failover does: another attempt, if there is another upstream and it is early enough."""
        if self.others and error is not None and not self.generation.handed_over:
            self.others -= 1
            self.generation.retrying()
            self.attempt()
        else:
            self.generation.finish(happened, error)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def token(self, data: bytes = TOKEN) -> None:
        self.sink.feed(self.codec.feed(data))
        await self.settle()

    async def after(self, seconds: float) -> None:
        """Time passes, and the ticker looks."""
        self.clock.now += seconds
        self.reader.tick(self.clock.now)
        await self.settle()

    async def after_all(self, seconds: float) -> None:
        """Time passes, and the ticker looks at the generation's clocks."""
        self.clock.now += seconds
        self.generation.tick(self.clock.now)
        await self.settle()

    async def end(self, happened: LifecycleEvent = LifecycleEvent.DONE, error: EdgeError | None = None) -> None:
        self.sink.end(happened, error)
        await self.settle()
