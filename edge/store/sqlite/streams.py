"""Streams in the file: those of this process, as they are written, and those of the others that share it.

In: events. Out: what ``ports.StreamStore`` promises. Must not: keep more in memory of what is not written yet than
``_BACKLOG_BYTES``: beyond it, streams are not kept.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence

from typing_extensions import override

from edge.settings import Settings
from edge.settings import Store as StoreSettings
from edge.store.ports import (
    RENEW_S,
    Dropped,
    DurableStreams,
    Sizes,
    StoreDown,
    StoreStatistics,
    StreamMeta,
    StreamState,
    Stretch,
)
from edge.store.sqlite.batcher import BATCH_S, SqliteFile
from edge.store.sqlite.log import Batch, Log, Owner
from edge.store.sqlite.tables import Found, Tables
from edge.store.sqlite.worker import Part

_BACKLOG_BYTES = 32 * 2**20
_WAITED_S = 0.05  # between looks at what other processes write, while anybody waits for that
_SWEEPS = 16  # so many times while ``store.disk_bytes`` are written
_LIVE_S = 0.1  # while anything is generated here, which others may want stopped


class SqliteStreams(DurableStreams, Owner, Part):
    """A ``ports.StreamStore`` in ``file``."""

    def __init__(self, file: SqliteFile, bounds: StoreSettings) -> None:
        self._file = file
        self._tables = Tables(file.lease)
        self._bounds = bounds
        self._logs: dict[str, Log] = {}  # live ones, and those whose end is not written yet
        self._dirty: list[Log] = []
        self._backlog = 0
        self._since_sweep = 0  # bytes
        self._oldest: float | None = None  # since when something has waited to be written
        self._taken_at = 0.0
        self._waiting: dict[asyncio.Future[None], tuple[str, int]] = {}  # for streams of others: id and last sequence
        self._closed = False
        file.join(self)

    def __repr__(self) -> str:
        return f"<SqliteStreams {len(self._logs)} here, {self._backlog} B to write, in {self._file!r}>"

    @override
    def statistics(self) -> StoreStatistics:
        lag = 0.0 if self._oldest is None else time.monotonic() - self._oldest
        return StoreStatistics(self._file.up, self._backlog, lag, self._file.failures)

    @override
    def apply_settings(self, settings: Settings) -> None:
        """The file stays the same."""
        self._bounds = settings.store
        self._file.sweep_soon()

    # --- streams that are generated here ------------------------------------------------------------------------

    @override
    def begin(self, meta: StreamMeta) -> Log:
        log = Log(self, meta)
        if self._closed:
            log.lose()
            return log
        self._logs[meta.id] = log
        self.dirty(log)
        return log

    @override
    def dirty(self, log: Log) -> None:
        self._dirty.append(log)
        if self._oldest is None:
            self._oldest = time.monotonic()
        self._file.want(BATCH_S)

    @override
    def grown(self, log: Log, size: int) -> None:
        self._backlog += size
        if size > 0:
            self._since_sweep += size
            if self._since_sweep > self._bounds.disk_bytes // _SWEEPS:
                self._since_sweep = 0
                self._file.sweep_soon()
            if self._backlog > _BACKLOG_BYTES:
                self._lose(log)

    @override
    def forsake(self, log: Log) -> None:
        self._logs.pop(log.meta.id, None)
        log.settle(kept=False)

    def _lose(self, log: Log) -> None:
        gone = log.lose()
        if not self._closed:
            self._file.after_commit(lambda connection: self._tables.discard(connection, log.meta.id, gone))

    def _told(self, batch: Batch) -> None:
        """A batch is written, or it is not."""
        if batch.written:
            self._oldest = self._taken_at if self._dirty else None
        for piece in batch.pieces:
            log = piece.log
            if not log.lost:
                if batch.written and piece.number in batch.kept:
                    log.wrote(piece)
                elif batch.written or piece.ending is not None:  # deleted by somebody; or not to be kept in time
                    self._lose(log)
                else:
                    log.failed(piece)
            if piece.ending is not None:
                self._logs.pop(log.meta.id, None)
                log.settle(kept=not log.lost)

    # --- a part of the file -------------------------------------------------------------------------------------

    @property
    @override
    def interval_s(self) -> float | None:
        if self._dirty:
            return BATCH_S
        if self._waiting:
            return _WAITED_S
        return _LIVE_S if self._logs else None

    @override
    def next_task(self) -> Batch | None:
        dirty, self._dirty = self._dirty, []
        self._taken_at = time.monotonic()
        pieces = [log.next_piece() for log in dirty if not log.lost]
        if not pieces:
            self._oldest = None
            return None
        return Batch(self._file.lease.owner, pieces, self._told)

    @override
    def look(self, connection: sqlite3.Connection) -> Callable[[], None]:
        waiting = self._waiting.copy()
        states = self._tables.lasts(connection, {stream_id for stream_id, _ in waiting.values()}) if waiting else {}
        gone_on = [one for one, (stream_id, last) in waiting.items() if states.get(stream_id, last + 1) > last]
        stops = self._tables.asked_to_stop(connection)
        return lambda: self._seen(gone_on, stops)

    @override
    def sweep(self, connection: sqlite3.Connection, now: float, gone: dict[str, float]) -> bool:
        bounds = self._bounds
        self._tables.end_lost(connection, gone)
        _, more = self._tables.delete_ended(connection, now - bounds.keep_s)
        more = self._tables.forget_gone(connection, bounds.keep_s) or more
        return self._tables.shrink(connection, bounds.disk_bytes) or more

    @override
    def leave(self, connection: sqlite3.Connection, now: float) -> None:
        self._tables.end_lost(connection, {self._file.lease.owner: now})

    def _seen(self, gone_on: list[asyncio.Future[None]], stops: list[str]) -> None:
        for waiting in gone_on:
            if not waiting.done():
                waiting.set_result(None)
        for stream_id in stops:
            self._ask_to_stop(self._logs.get(stream_id))

    def _ask_to_stop(self, log: Log | None) -> None:
        if log is not None and log.ending is None and not log.stop_told:
            log.stop_told = True
            self._file.hear.stop_asked(log.meta.id)

    # --- streams of whoever -------------------------------------------------------------------------------------

    @override
    async def find(self, stream_id: str) -> StreamState | None:
        log = self._logs.get(stream_id)
        keep_s = self._bounds.keep_s
        try:
            found = await self._file.read(lambda connection: self._tables.recall(connection, stream_id, keep_s), None)
        except StoreDown:
            if log is None:
                raise
            found = None
        return self._state(log, found)

    @override
    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        logs = {stream_id: self._logs.get(stream_id) for stream_id in stream_ids}
        mine = {
            stream_id: log for stream_id, log in logs.items() if log is not None and log.meta.principal == principal
        }
        keep_s = self._bounds.keep_s
        found: dict[str, StreamState] = {}
        try:
            found = await self._file.read(
                lambda connection: self._tables.recall_all(connection, principal, stream_ids, keep_s), found
            )
        except StoreDown:
            if len(mine) < len(logs):
                raise
        states = {stream_id: self._state(mine.get(stream_id), found.get(stream_id)) for stream_id in stream_ids}
        return {stream_id: state for stream_id, state in states.items() if state is not None}

    @override
    async def read(self, stream_id: str, after: int, most: int) -> list[Stretch]:
        log = self._logs.get(stream_id)
        if log is not None:
            if after + 1 < log.first:
                raise Dropped(f"what follows event {after} of {stream_id} is not kept any more")
            tail = log.tail(after, most)
            if tail is not None:
                return tail
        keep_s = self._bounds.keep_s
        found = await self._file.read(
            lambda connection: self._tables.read(connection, stream_id, after, most, keep_s), None
        )
        if found is None:
            raise Dropped(f"there is no stream {stream_id}")
        return found

    @override
    async def changed(self, stream_id: str, last: int, within_s: float) -> None:
        log = self._logs.get(stream_id)
        if log is None:
            await self._changed_elsewhere(stream_id, last, within_s)
        elif log.last <= last and log.ending is None:
            waiting = asyncio.get_running_loop().create_future()
            log.waiting.add(waiting)
            try:
                await asyncio.wait({waiting}, timeout=within_s)
            finally:
                log.waiting.discard(waiting)

    async def _changed_elsewhere(self, stream_id: str, last: int, within_s: float) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        waiting: asyncio.Future[None] = loop.create_future()
        self._waiting[waiting] = (stream_id, last)
        try:
            while not waiting.done():
                found = await self.find(stream_id)
                left = until - loop.time()
                if found is None or found.ending is not None or found.last > last or left <= 0:
                    return
                self._file.want(_WAITED_S)
                await asyncio.wait({waiting}, timeout=min(left, RENEW_S))  # then its process may be gone
        finally:
            del self._waiting[waiting]

    @override
    async def streams(self, principal: str | None, most: int) -> list[StreamState]:
        logs = dict(self._logs)
        keep_s = self._bounds.keep_s
        rows = await self._file.read(
            lambda connection: self._tables.streams(connection, principal, most, keep_s), list[Found]()
        )
        found = {row.state.meta.id: row.state for row in rows}
        mine = [log for log in logs.values() if principal is None or log.meta.principal == principal]
        states = [self._state(log, found.pop(log.meta.id, None)) for log in mine]
        states += [self._state(None, state) for state in found.values()]
        there = [state for state in states if state is not None]
        there.sort(key=lambda state: state.meta.created, reverse=True)
        return there[:most]

    @override
    async def stop(self, stream_id: str) -> None:
        log = self._logs.get(stream_id)
        if log is not None:
            self._ask_to_stop(log)
        elif await self.find(stream_id) is not None:
            await self._file.change(lambda connection: self._tables.ask_to_stop(connection, stream_id))

    @override
    async def came_back(self, stream_id: str) -> int:
        return (await self.came_back_all([stream_id])).get(stream_id, 0)

    @override
    async def came_back_all(self, stream_ids: Sequence[str]) -> dict[str, int]:
        if not await self._file.read(lambda _: True, nothing=bool(self._logs)):
            return {}  # not to make a file for that
        await self._written(*stream_ids)
        keep_s = self._bounds.keep_s
        return await self._file.change(lambda connection: self._tables.came_back(connection, stream_ids, keep_s))

    @override
    async def forget(self, stream_id: str) -> bool:
        state = await self.find(stream_id)
        if state is None or state.ending is None:
            return False
        await self._written(stream_id)
        keep_s = self._bounds.keep_s
        return await self._file.change(lambda connection: self._tables.forget(connection, stream_id, keep_s))

    @override
    async def purge(self, before: float) -> int:
        purged, more = 0, await self._file.read(lambda _: True, nothing=False)
        while more:
            count, more = await self._file.change(lambda connection: self._purge(connection, before))
            purged += count
        if purged:
            await self._file.shrink()
        return purged

    def _purge(self, connection: sqlite3.Connection, before: float) -> tuple[int, bool]:
        lease = self._file.lease
        self._tables.end_lost(connection, lease.gone(connection, lease.now()))
        return self._tables.delete_ended(connection, before)

    @override
    async def sizes(self) -> Sizes:
        if self._logs:
            with contextlib.suppress(StoreDown):
                await self._file.flush()
        keep_s = self._bounds.keep_s
        streams, live, size, sessions, total = await self._file.read(
            lambda connection: (*self._tables.count(connection, keep_s), self._file.size()), (0, 0, 0, 0, 0)
        )
        return Sizes(streams, live, size, sessions, total)

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._file.leave(self)
        for log in tuple(self._logs.values()):
            log.lose()
            log.wake()
            if log.ending is not None:
                log.settle(kept=False)
        self._logs.clear()
        self._dirty.clear()
        self._seen([*self._waiting], [])

    async def _written(self, *stream_ids: str) -> None:
        """Wait until those of these streams that are this process's are in the file with what there is of them."""
        if not self._logs.keys().isdisjoint(stream_ids):
            await self._file.flush()

    @staticmethod
    def _state(log: Log | None, found: StreamState | None) -> StreamState | None:
        if log is not None:
            return log.state(found)
        if found is None or (found.here and found.ending is None):  # given up, but not deleted yet
            return None
        return found
