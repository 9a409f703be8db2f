"""Streams in this process's memory: bounded, and gone when it ends.

In: events. Out: what ``ports.StreamStore`` promises. Must not: drop a stream that is still being generated; the
finished ones make room, those that ended first go first, and leave behind that they were there.
"""

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence

from typing_extensions import override

from edge.settings import Settings
from edge.settings import Store as StoreSettings
from edge.store.ports import Dropped, Ending, Sizes, StreamLog, StreamMeta, StreamState, StreamStore, Stretch

# What a stretch takes beside its bytes: the object, a number, and their places in lists.
_STRETCH_BYTES = 120
_STREAM_BYTES = 2000  # what a stream takes beside its stretches
_GONE_BYTES = 1000  # what one takes that is remembered without its events
_GONE_SHARE = 16  # they may take this part of the memory
_JOINED_BYTES = 16 * 1024  # of a finished stream, whose stretches are not the single tokens any more


class _Kept:
    """One stream."""

    __slots__ = ("ending", "lasts", "meta", "parts", "reconnections", "size", "upstream", "waiting")

    def __init__(self, meta: StreamMeta, before: int) -> None:
        self.meta = meta
        self.parts: list[bytes] = []
        self.lasts = [before]  # sequence before the first part, then the last of each
        self.size = 0
        self.ending: Ending | None = None
        self.upstream: str | None = None
        self.reconnections = 0
        self.waiting: set[asyncio.Future[None]] = set()

    @property
    def weight(self) -> int:
        """Bytes that it takes, about."""
        return self.size + len(self.parts) * _STRETCH_BYTES + _STREAM_BYTES

    def trim(self) -> None:
        """Let go of the oldest parts over the bound."""
        first, size = 0, self.size
        while size > self.meta.keep_bytes and first < len(self.parts) - 1:
            size -= len(self.parts[first])
            first += 1
        if first:
            del self.parts[:first], self.lasts[:first]
            self.size = size

    def drop(self) -> None:
        """Let go of all parts."""
        self.parts, self.lasts, self.size = [], self.lasts[-1:], 0

    def join(self) -> None:
        """Make few parts out of many."""
        parts, lasts = self.parts, self.lasts
        self.parts, self.lasts = [], lasts[:1]
        held: list[bytes] = []
        size = 0
        for part, last in zip(parts, lasts[1:], strict=True):
            held.append(part)
            size += len(part)
            if size >= _JOINED_BYTES:
                self.parts.append(b"".join(held))
                self.lasts.append(last)
                held, size = [], 0
        if held:
            self.parts.append(b"".join(held))
            self.lasts.append(lasts[-1])

    def state(self) -> StreamState:
        """As it is now."""
        return StreamState(
            self.meta, self.lasts[0] + 1, self.lasts[-1], self.size, True, self.ending, self.upstream,
            self.reconnections,
        )  # fmt: skip

    def wake(self) -> None:
        """There is more, or the end."""
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)


class _Log(StreamLog):
    """A ``ports.StreamLog``."""

    __slots__ = ("_kept", "_store")

    def __init__(self, store: "MemoryStreams", kept: _Kept) -> None:
        self._store = store
        self._kept = kept

    @override
    def append(self, data: bytes, count: int) -> None:
        kept = self._kept
        kept.parts.append(data)
        kept.lasts.append(kept.lasts[-1] + count)
        kept.size += len(data)
        self._store.added(kept, len(data) + _STRETCH_BYTES)
        if kept.waiting:
            kept.wake()

    @override
    def end(self, ending: Ending, upstream: str | None, reconnections: int, settled: Callable[[bool], None]) -> None:
        self._kept.upstream = upstream
        self._kept.reconnections += reconnections
        self._store.ended(self._kept, ending)
        settled(True)


class MemoryStreams(StreamStore):
    """A ``ports.StreamStore``."""

    def __init__(self, bounds: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        self._bounds = bounds
        self._clock = clock
        self._live: dict[str, _Kept] = {}
        self._ended: OrderedDict[str, _Kept] = OrderedDict()  # the one that ended first is first
        self._ended_of: dict[str, OrderedDict[str, _Kept]] = {}  # the same by principal
        self._gone: OrderedDict[str, StreamState] = OrderedDict()  # those that had to go, the oldest first
        self._bytes = 0
        self._of: Counter[str] = Counter()  # bytes by principal

    def __repr__(self) -> str:
        return f"<MemoryStreams {len(self._live)} live, {len(self._ended)} ended, {self._bytes} B>"

    @override
    def apply_settings(self, settings: Settings) -> None:
        self._bounds = settings.store
        self._shrink(*self._of)

    @override
    def begin(self, meta: StreamMeta, before: int = 0) -> _Log:
        """``before``: the event before the first, where a stream comes from elsewhere."""
        kept = self._live[meta.id] = _Kept(meta, before)
        self._count(kept, _STREAM_BYTES)
        return _Log(self, kept)

    def added(self, kept: _Kept, size: int) -> None:
        """A live stream has grown by so much."""
        self._count(kept, size)
        if kept.size > kept.meta.keep_bytes:
            before = kept.weight
            kept.trim()
            self._count(kept, kept.weight - before)
        if self._bytes > self._bounds.memory_bytes or self._of[kept.meta.principal] > self._bounds.principal_bytes:
            self._shrink(kept.meta.principal)

    def ended(self, kept: _Kept, ending: Ending) -> None:
        """A live stream has ended."""
        before = kept.weight
        kept.ending = ending
        kept.join()
        self._count(kept, kept.weight - before)
        if self._live.pop(kept.meta.id, None) is not None:
            self._ended[kept.meta.id] = kept
            self._ended_of.setdefault(kept.meta.principal, OrderedDict())[kept.meta.id] = kept
        kept.wake()
        self._shrink(kept.meta.principal)

    @override
    async def find(self, stream_id: str) -> StreamState | None:
        kept = self._found(stream_id)
        return self._gone.get(stream_id) if kept is None else kept.state()

    @override
    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        states = [await self.find(stream_id) for stream_id in stream_ids]
        return {state.meta.id: state for state in states if state is not None and state.meta.principal == principal}

    @override
    async def read(self, stream_id: str, after: int, most: int) -> list[Stretch]:
        kept = self._found(stream_id)
        if kept is None or after < kept.lasts[0]:
            raise Dropped(f"what follows event {after} of {stream_id} is not kept any more")
        at = bisect_right(kept.lasts, after) - 1
        taken: list[Stretch] = []
        size = 0
        while at < len(kept.parts) and size < most:
            taken.append(Stretch(kept.parts[at], kept.lasts[at + 1], kept.lasts[at + 1] - kept.lasts[at]))
            size += len(kept.parts[at])
            at += 1
        return taken

    @override
    async def changed(self, stream_id: str, last: int, within_s: float) -> None:
        kept = self._live.get(stream_id)
        if kept is None or kept.lasts[-1] > last:
            return
        waiting = asyncio.get_running_loop().create_future()
        kept.waiting.add(waiting)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await waiting
        finally:
            kept.waiting.discard(waiting)

    @override
    async def streams(self, principal: str | None, most: int) -> list[StreamState]:
        self._expire()
        every = [*self._ended.values(), *self._live.values()]
        mine = [kept for kept in every if principal is None or kept.meta.principal == principal]
        mine.sort(key=lambda kept: kept.meta.created, reverse=True)
        return [kept.state() for kept in mine[:most]]

    @override
    async def stop(self, stream_id: str) -> None:
        """Whoever could be asked is this process itself, which knows its streams."""

    @override
    async def came_back(self, stream_id: str) -> int:
        kept = self._found(stream_id)
        if kept is None:
            return 0
        kept.reconnections += 1
        return kept.reconnections

    @override
    async def came_back_all(self, stream_ids: Sequence[str]) -> dict[str, int]:
        counts = {stream_id: await self.came_back(stream_id) for stream_id in stream_ids}
        return {stream_id: count for stream_id, count in counts.items() if count}

    @override
    async def forget(self, stream_id: str) -> bool:
        return self.discard(stream_id)

    def discard(self, stream_id: str) -> bool:
        """``forget`` at once."""
        if self._gone.pop(stream_id, None) is not None:
            self._bytes -= _GONE_BYTES
        return self._let_go(stream_id) is not None

    @override
    async def purge(self, before: float) -> int:
        old = [stream_id for stream_id, kept in self._ended.items() if kept.ending and kept.ending.at < before]
        return sum(map(self._make_room, old))

    @override
    async def sizes(self) -> Sizes:
        self._expire()
        every = [*self._live.values(), *self._ended.values()]
        return Sizes(len(every), len(self._live), sum(kept.size for kept in every), 0, self._bytes)

    @override
    async def close(self) -> None:
        self._live.clear()
        self._ended.clear()
        self._ended_of.clear()
        self._gone.clear()
        self._of.clear()
        self._bytes = 0

    def _found(self, stream_id: str) -> _Kept | None:
        self._expire()
        return self._live.get(stream_id) or self._ended.get(stream_id)

    def _expire(self) -> None:
        before = self._clock() - self._bounds.keep_s
        while self._ended:
            stream_id, kept = next(iter(self._ended.items()))
            if kept.ending is None or kept.ending.at >= before:
                return
            self._make_room(stream_id)

    def _shrink(self, *principals: str) -> None:
        """Make room: of those principals that are over their share, then of all."""
        self._expire()
        share, whole = self._bounds.principal_bytes, self._bounds.memory_bytes
        for principal in principals:
            while self._of[principal] > share and principal in self._ended_of:
                self._make_room(next(iter(self._ended_of[principal])))
        while self._ended and self._bytes > whole:
            self._make_room(next(iter(self._ended)))

    def _make_room(self, stream_id: str) -> bool:
        """Let go of a stream, but not of what it was: whoever asks for it learns that it is gone."""
        kept = self._let_go(stream_id)
        if kept is None:
            return False
        kept.drop()
        self._gone[stream_id] = kept.state()
        self._bytes += _GONE_BYTES
        if len(self._gone) * _GONE_BYTES * _GONE_SHARE > self._bounds.memory_bytes:
            self._gone.popitem(last=False)
            self._bytes -= _GONE_BYTES
        return True

    def _let_go(self, stream_id: str) -> _Kept | None:
        kept = self._ended.pop(stream_id, None)
        if kept is not None:
            principal = kept.meta.principal
            del self._ended_of[principal][stream_id]
            if not self._ended_of[principal]:
                del self._ended_of[principal]
            self._count(kept, -kept.weight)
        return kept

    def _count(self, kept: _Kept, size: int) -> None:
        principal = kept.meta.principal
        self._bytes += size
        self._of[principal] += size
        if not self._of[principal]:
            del self._of[principal]
