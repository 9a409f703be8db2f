"""Streams that are written into any store, and looked for in it: what the suites of stream stores have in common."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from support.hanging import HANG_S, hang_limit

from contract.session_store_contract import NOW
from edge.store.ports import Ending, StreamLog, StreamMeta, StreamState, StreamStore, Stretch

# (bounds, clock, hear), by keyword; each has a default
Opened = Callable[..., Awaitable[StreamStore]]

SOON_S = HANG_S
COMPLETE = Ending("complete", clean=True, at=NOW + 1)
_numbers = itertools.count(1)


@dataclass
class Heard:
    """A ``base.StoreListener`` that writes down what it is told."""

    stops: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def stop_asked(self, stream_id: str) -> None:
        self.stops.append(stream_id)
        self.told.set()

    def store_failed(self, why: str) -> None:
        self.failures.append(why)
        self.told.set()

    def store_recovered(self, after_s: float) -> None:
        self.recoveries.append(after_s)
        self.told.set()

    def store_reopened(self, what: str) -> None:
        self.reopened.append(what)
        self.told.set()

    async def anything(self) -> None:
        """Wait until it is told something that it was not when this was last awaited."""
        async with hang_limit():
            await self.told.wait()
        self.told.clear()


def a_meta(principal: str = "a", *, created: float = NOW, keep_bytes: int = 2**20, **facts: Any) -> StreamMeta:
    """Of a stream that no other is like."""
    known = {"surface": "chat", "model": "m", "session": None, "request_id": "req_1", **facts}
    return StreamMeta(
        id=f"st_{next(_numbers):032x}", principal=principal, created=created, keep_bytes=keep_bytes, **known
    )


async def ended(log: StreamLog, ending: Ending = COMPLETE, upstream: str | None = "up", reconnections: int = 0) -> bool:
    """End a stream; whether all of it is kept."""
    settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    log.end(ending, upstream, reconnections, settled.set_result)
    async with hang_limit():
        return await settled


async def is_gone(store: StreamStore, stream_id: str) -> bool:
    """Whether its events are not there any more, whatever is remembered of it."""
    state = await store.find(stream_id)
    return state is None or state.gone


def assert_gone(state: StreamState | None, last: int, ending: Ending) -> StreamState:
    """That it was there is remembered, and nothing else."""
    assert state is not None
    assert state.gone
    assert (state.first, state.last, state.size, state.ending) == (last + 1, last, 0, ending)
    return state


async def finished(store: StreamStore, meta: StreamMeta, *parts: bytes, at: float = NOW + 1) -> str:
    """A stream of these events, ended complete; its id."""
    log = store.begin(meta)
    for part in parts:
        log.append(part, 1)
    assert await ended(log, Ending("complete", clean=True, at=at))
    return meta.id


async def state_of(store: StreamStore, stream_id: str) -> StreamState:
    """As ``find`` finds it."""
    found = await store.find(stream_id)
    assert found is not None
    return found


async def seen(store: StreamStore, stream_id: str, last: int = 0) -> StreamState:
    """As ``find`` finds it, once that has gone so far; another process sees it a little later than its own."""
    async with hang_limit():
        while (found := await store.find(stream_id)) is None or found.last < last:
            if found is None:
                await asyncio.sleep(0.01)
            else:
                await store.changed(stream_id, found.last, SOON_S)
    return found


async def everything(store: StreamStore, stream_id: str, after: int = 0, most: int = 2**20) -> list[Stretch]:
    """Read to the end of what is there. Checks that stretches follow each other."""
    read: list[Stretch] = []
    while more := await store.read(stream_id, read[-1].last if read else after, most):
        read += more
    for before, then in itertools.pairwise(read):
        assert then.last - then.count == before.last
    return read


def joined(stretches: Sequence[Stretch]) -> bytes:
    return b"".join(stretch.data for stretch in stretches)
