"""Streams in a Redis server, for several nodes: begun on one, read, followed and stopped on any.

In: events. Out: what ``ports.StreamStore`` promises. Must not: ask Redis while an event is on its way (``writer``
writes behind), or judge who is gone by this node's own clock.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
from typing_extensions import override

from edge.settings import Settings
from edge.settings import Store as StoreSettings
from edge.store.ports import (
    Dropped,
    DurableStreams,
    Ending,
    Sizes,
    StoreDown,
    StoreStatistics,
    StreamMeta,
    StreamState,
    Stretch,
    lost,
)
from edge.store.redis.fields import known
from edge.store.redis.follow import Followers
from edge.store.redis.link import Part, RedisLink
from edge.store.redis.scripts import CAME_BACK, FIND, FORGET, LEAVE, LIST, PREFIX, READ, SIZES, STOP
from edge.store.redis.writer import RedisLog, Writer

_AT_A_TIME = 200  # streams of a call, as all of Redis waits for it


class RedisStreams(DurableStreams, Part):
    """A ``ports.StreamStore``. ``clock`` is Unix time, for what is kept how long."""

    def __init__(self, link: RedisLink, bounds: StoreSettings, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._bounds = bounds
        self._clock = clock
        self._writer = Writer(link, bounds.keep_s)
        self._followers = Followers(link, self._writer.written)
        self._closed = False
        link.join(self)

    def __repr__(self) -> str:
        return f"<RedisStreams {self._link!r} {len(self._writer.live)} live, {self._writer.backlog} B to write>"

    @override
    def apply_settings(self, settings: Settings) -> None:
        """What has ended stays as long as it was to."""
        self._bounds = settings.store
        self._writer.keep_s = settings.store.keep_s

    @override
    def statistics(self) -> StoreStatistics:
        link, writer = self._link, self._writer
        return StoreStatistics(link.up.is_set(), writer.backlog, writer.lag_s, link.failures)

    async def open(self) -> None:
        """See at once whether the server can be used; if it is down, only ``hear`` learns of it.

        Raises:
            Unusable: it holds what another version wrote.
        """
        await self._link.open()

    @override
    def begin(self, meta: StreamMeta) -> RedisLog:
        return self._writer.begin(meta)

    @override
    async def find(self, stream_id: str) -> StreamState | None:
        await self._writer.written()
        found = await self._link.ask(FIND, *self._when, "", stream_id)
        return self._state(found[0]) if found else None

    @override
    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        await self._writer.written()
        found: list[StreamState | None] = []
        for at in range(0, len(stream_ids), _AT_A_TIME):
            some = stream_ids[at : at + _AT_A_TIME]
            found += map(self._state, await self._link.ask(FIND, *self._when, principal, *some))
        return {state.meta.id: state for state in found if state is not None}

    @override
    async def read(self, stream_id: str, after: int, most: int) -> list[Stretch]:
        await self._writer.written()
        found = await self._link.ask(READ, self._oldest, stream_id, after, most)
        if found is None:
            raise Dropped(f"what follows event {after} of {stream_id} is not kept any more")
        return list(_stretches(*found))

    @override
    async def changed(self, stream_id: str, last: int, within_s: float) -> None:
        await self._followers.changed(stream_id, last, within_s)

    @override
    async def streams(self, principal: str | None, most: int) -> list[StreamState]:
        await self._writer.written()
        found: list[StreamState] = []
        rank = 0
        while rank >= 0 and len(found) < most:
            wanted = min(_AT_A_TIME, most - len(found))
            rank, rows = await self._link.ask(LIST, *self._when, _index(principal), rank, wanted)
            states = map(self._state, rows)
            found += [state for state in states if state is not None]
        return found

    @override
    async def stop(self, stream_id: str) -> None:
        """If the message does not arrive, the process sees it when it renews."""
        await self._writer.written()
        await self._link.ask(STOP, stream_id)

    @override
    async def came_back(self, stream_id: str) -> int:
        return (await self.came_back_all([stream_id])).get(stream_id, 0)

    @override
    async def came_back_all(self, stream_ids: Sequence[str]) -> dict[str, int]:
        await self._writer.written()
        counts: list[int] = []
        for at in range(0, len(stream_ids), _AT_A_TIME):
            counts += await self._link.ask(CAME_BACK, self._oldest, *stream_ids[at : at + _AT_A_TIME])
        return {stream_id: count for stream_id, count in zip(stream_ids, counts, strict=True) if count}

    @override
    async def forget(self, stream_id: str) -> bool:
        """Also when Redis is full."""
        if self._link.up.is_set():
            await self._writer.written()
        return int(await self._link.ask(FORGET, self._oldest, "", stream_id, even_full=True)) > 0

    @override
    async def purge(self, before: float) -> int:
        """Also when Redis is full."""
        count = 0
        ids = await self._every()
        for at in range(0, len(ids), _AT_A_TIME):
            some = ids[at : at + _AT_A_TIME]
            count += int(await self._link.ask(FORGET, self._oldest, repr(before), *some, even_full=True))
        return count

    @override
    async def sizes(self) -> Sizes:
        """``bytes`` is what the server uses, whoever for."""
        ids = await self._every()
        streams = live = size = 0
        for at in range(0, len(ids), _AT_A_TIME):
            more = await self._link.ask(SIZES, self._oldest, *ids[at : at + _AT_A_TIME], even_full=True)
            streams, live, size = streams + more[0], live + more[1], size + more[2]
        sessions = int(await self._link.command("ZCARD", f"{PREFIX}sessions"))
        return Sizes(streams, live, size, sessions, _used(await self._link.command("INFO", "memory")))

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        left = list(self._writer.live)
        await self._writer.close()
        try:
            if self._link.used:
                await self._link.ask(LEAVE, self._link.owner, *left)
        except StoreDown:
            pass  # the lease lapses by itself
        finally:
            self._followers.went_down(StoreDown("the store is closed"))
            await self._link.leave(self)

    # --- what the link asks ---

    @override
    async def renew(self) -> None:
        await self._writer.renew()
        await self._followers.renew()

    @override
    def went_down(self, error: StoreDown | None) -> None:
        self._writer.went_down(error)
        self._followers.went_down(error)

    @override
    def stop_asked(self, stream_id: str) -> None:
        self._writer.stop(stream_id)

    # --- how ---

    @property
    def _oldest(self) -> str:
        """What ended before is not kept any more."""
        return repr(self._clock() - self._bounds.keep_s)

    @property
    def _when(self) -> tuple[str, str, int]:
        return self._link.now, self._oldest, int(self._bounds.keep_s * 1000)

    def _state(self, row: list[Any]) -> StreamState | None:
        stream_id, meta, owner, first, last, size, ending, gone, upstream, back = row
        here = owner.decode() == self._link.owner
        if here and ending is None and stream_id.decode() not in self._writer.live:
            return None  # a call that was given up came through after all, when it was forgotten
        return StreamState(
            known(StreamMeta, orjson.loads(meta)), int(first), int(last), int(size), here, _ending(ending, gone),
            None if upstream is None else upstream.decode(), int(back),
        )  # fmt: skip

    async def _every(self) -> list[bytes]:
        if self._link.up.is_set():
            await self._writer.written()
        ids: list[bytes] = await self._link.command("ZRANGE", f"{PREFIX}all", 0, -1)
        return ids


def _index(principal: str | None) -> str:
    return f"{PREFIX}all" if principal is None else f"{PREFIX}of:{principal}"


def _ending(said: bytes | None, gone: bytes | None) -> Ending | None:
    if said is not None:
        facts = orjson.loads(said)
        error = facts.pop("error")
        return known(Ending, {**facts, "error": None if error is None else tuple(error)})
    return None if gone is None else lost(float(gone))


def _stretches(heads: bytes, data: bytes) -> Iterator[Stretch]:
    numbers = map(int, heads.split())
    at = 0
    for last, count, size in zip(numbers, numbers, numbers, strict=True):
        yield Stretch(data[at : at + size], last, count)
        at += size


def _used(info: bytes) -> int:
    lines = dict(line.partition(b":")[::2] for line in info.splitlines())
    return int(lines.get(b"used_memory", 0))
