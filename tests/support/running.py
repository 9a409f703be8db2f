"""An Edge in this process, on a real port, with its log lines at hand; and the proof that it leaves nothing behind."""

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakSet

import msgspec
import orjson

from edge.app import Edge
from edge.settings import Settings
from edge.telemetry import log
from support.hanging import HANG_S, hang_limit

LIMIT_S = HANG_S  # everything a test waits for happens, or never

Line = dict[str, Any]


class Lines(io.TextIOBase):
    """Where the log goes: every line decoded, and waited for without sleeping."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._partial = ""
        self._changed = asyncio.Event()

    def write(self, text: str) -> int:
        *whole, self._partial = (self._partial + text).split("\n")
        self.lines += [orjson.loads(line) for line in whole if line]
        self._changed.set()
        return len(text)

    def of(self, event: str) -> list[Line]:
        return [line for line in self.lines if line["event"] == event]

    async def wait(self, event: str, count: int = 1, timeout_s: float = LIMIT_S) -> list[Line]:
        """Wait until there are ``count`` lines of this event."""
        async with hang_limit(timeout_s):
            while len(self.of(event)) < count:
                self._changed.clear()
                await self._changed.wait()
        return self.of(event)


class Tape(Lines):
    """Lines, and every character of them."""

    def __init__(self) -> None:
        super().__init__()
        self.text = io.StringIO()

    def write(self, text: str) -> int:
        self.text.write(text)
        return super().write(text)  # decodes each line


class Running:
    """A started Edge. ``url`` is its first address."""

    def __init__(self, edge: Edge, lines: Lines) -> None:
        self.edge = edge
        self.lines = lines
        self.url = edge.listener.addresses[0]
        admin = edge.admin_listener.addresses
        self.admin_port = int(admin[0].rsplit(":", 1)[1]) if admin and admin[0].startswith("http") else 0
        self.port = int(self.url.rsplit(":", 1)[1]) if self.url.startswith("http") else 0

    async def record(self, index: int = 0, timeout_s: float = LIMIT_S) -> Line:
        """The canonical line of the exchange that ended as number ``index``."""
        return (await self.lines.wait("exchange", index + 1, timeout_s))[index]

    async def wait(self, happened: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
        """Wait for what no line tells of."""
        async with hang_limit(timeout_s):
            while not happened():
                await asyncio.sleep(0.002)

    async def later(self, happened: Callable[[], Any], step_s: float) -> None:
        """Let time pass, ``step_s`` at a time, until this has happened; nothing shorter than a step may run out."""
        async with hang_limit():
            while not happened():
                time_passes(step_s)
                await asyncio.sleep(0.01)

    @property
    def records(self) -> list[Line]:
        return self.lines.of("exchange")

    async def expect_bug(self) -> Line:
        """Wait for the bug that the test made happen, and take it out of the log: ``stop`` bears none."""
        (line,) = await self.lines.wait("bug")
        self.lines.lines.remove(line)
        return line

    async def stop(self) -> None:
        """Stop, and prove that nothing of it is left."""
        await self.edge.stop()
        assert len(self.edge.registry) == 0
        assert len(self.edge.ticker) == 0
        assert [member.active for member in self.edge.fleet.members if member.active] == []
        for queues in self.edge.fleet._queues.values():
            assert [queue for queue in queues._queues.values() if queue.slots.busy or queue.waiting] == []
        assert self.edge.bodies.budget.used == 0
        bugs = [line for line in self.lines.lines if line["event"] == "bug" or "Traceback" in str(line)]
        assert bugs == []


class Clock:
    """What every Edge of a test reads the time from: the real one, and what a test has let pass besides."""

    def __init__(self) -> None:
        self._passed = 0.0
        self.edges: WeakSet[Edge] = WeakSet()

    def __call__(self) -> float:
        return time.monotonic() + self._passed

    def pass_(self, seconds: float) -> None:
        """Let time pass, and every clock that has run out by then act."""
        self._passed += seconds
        for edge in self.edges:
            ticker = edge.ticker
            if ticker._handle is not None:
                ticker._handle.cancel()
                ticker._sweep()


_CLOCK = Clock()


def time_passes(seconds: float) -> None:
    """For every Edge of this process, what its ticker watches (``[stream]``, waits for a slot) is that much later.

    A clock that is to fire is set to longer than any machine stands still, and passed once what comes before has come.
    """
    _CLOCK.pass_(seconds)


Serve = Callable[..., Awaitable[Running]]  # what the fixture of that name is


def make_settings(*urls: str, **sections: dict[str, Any]) -> Settings:
    """Settings for a test: an ephemeral port, one upstream per url, quick drains; ``sections`` override."""
    server = {"listen": ["127.0.0.1:0"], "drain_s": 0.5, **sections.pop("server", {})}
    discovery = {"enabled": False, **sections.pop("discovery", {})}
    store = {"url": "memory:", **sections.pop("store", {})}
    extra = sections.pop("upstream", {})
    upstream = [{"name": f"up{n}" if n else "up", "url": url, **extra} for n, url in enumerate(urls)]
    return msgspec.convert(
        {"server": server, "discovery": discovery, "upstream": upstream, "store": store, **sections}, Settings
    )


async def start(settings: Settings, expect_ready: Callable[[Edge], bool] | None = None) -> Running:
    """Start an Edge in this process and wait until its upstreams have been looked at."""
    lines = Lines()
    log.configure(settings.log, stream=lines)
    edge = Edge(settings, _CLOCK)
    _CLOCK.edges.add(edge)
    try:
        await edge.start()
        assert expect_ready is None or expect_ready(edge)
    except BaseException:
        await edge.stop()
        raise
    return Running(edge, lines)


async def no_tasks_left(before: set[asyncio.Task[Any]]) -> None:
    """Let finished tasks go, then insist that none is left that was not there before."""
    for _ in range(50):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    async with hang_limit():
        await asyncio.wait(left)
