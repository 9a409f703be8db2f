"""The archive of resumable streams: writes each to a store while it runs, and finds it again afterwards.

In: streams that begin and end here; ids of streams. Out: the store that has a stream. Must not: serve a reader, or let
a stream wait for a store or fail with it: memory keeps what a store has not taken, within ``store`` settings.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edge.errors import EdgeError, StoreUnavailable
from edge.policy.lifecycle import Outcome
from edge.settings import Settings
from edge.store.memory.streams import MemoryStreams
from edge.store.opening import Stores
from edge.store.ports import Ending, StoreDown, StreamLog, StreamMeta, StreamState, StreamStore
from edge.stream.channel import Channel, Retention
from edge.stream.late import LateStreams


@dataclass(frozen=True, slots=True)
class StoredStream:
    """A stream in a store. ``archive`` finds it again, since it may move from one store to another."""

    store: StreamStore
    state: StreamState
    archive: "StreamArchive"


class ArchivedStream:
    """A running stream that is written to a store."""

    def __init__(self, archive: "StreamArchive", meta: StreamMeta, log: StreamLog, *, durable: bool) -> None:
        self._durable = durable
        self._archive = archive
        self._meta = meta
        self._log = log
        self.retention = Retention(meta.keep_bytes, log.append)

    def end(self, stream: Channel, upstream: str | None, reconnections: int) -> None:
        """The stream has ended, all its events are in its journal; memory keeps it until the store has all of it."""
        archive, meta, journal = self._archive, self._meta, stream.journal
        ending = self._ending(stream)
        if not self._durable:
            self._log.end(ending, upstream, reconnections, _unneeded)
            return
        copy = archive.memory.begin(meta, journal.before)
        for data, count in journal.held():
            copy.append(data, count)
        copy.end(ending, upstream, reconnections, _unneeded)

        def settled(stored: bool) -> None:  # noqa: FBT001 - the port's signature
            if stored:
                archive.memory.discard(meta.id)

        self._log.end(ending, upstream, reconnections, settled)

    def _ending(self, stream: Channel) -> Ending:
        error, outcome = stream.error, stream.outcome or Outcome.INTERNAL_ERROR
        return Ending(
            outcome=str(outcome),
            clean=stream.clean,
            at=self._archive.clock(),
            status=200 if error is None else error.status,
            error=None if error is None else (error.message, error.code, error.type),
        )


class StreamArchive:
    """All resumable streams.

    Args:
        memory: Has what the durable store does not have; everything, if there is no durable store.
        stores: Open the durable store (a file or a server), if one is configured.
        clock: Unix time.
    """

    def __init__(self, memory: MemoryStreams, stores: Stores, clock: Callable[[], float] = time.time) -> None:
        self.memory = memory
        self.stores = stores
        self.clock = clock
        self._late = LateStreams(self._find_all)

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self.memory.apply_settings(settings)

    def begin(self, meta: StreamMeta) -> ArchivedStream:
        """Begin to write a new stream."""
        durable = self.stores.streams()
        return ArchivedStream(self, meta, (durable or self.memory).begin(meta), durable=durable is not None)

    async def find(self, principal: str, stream_id: str) -> StoredStream | None:
        """A stream of this principal that does not run here; None if there is no such stream. See ``find_all``."""
        return (await self.find_all(principal, [stream_id])).get(stream_id)

    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StoredStream]:
        """Those of these streams that belong to this principal and do not run here.

        One query looks for all of them. If one is missing, another process may have begun it a moment ago, so this
        waits for all missing ones together. A stream of somebody else counts as missing: the time of the answer does
        not show whether it exists.

        Raises:
            StoreUnavailable: one may be in a store that cannot be asked now.
        """
        found = await self._find_all(principal, stream_ids)
        if len(found) < len(stream_ids) and self.stores.shared:
            missing = [stream_id for stream_id in stream_ids if stream_id not in found]
            found.update(await self._late.find(principal, missing))
        return found

    async def _find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StoredStream]:
        found: dict[str, StoredStream] = {}
        left = stream_ids
        for store in self._stores():
            try:
                states = await store.find_all(principal, left)
            except StoreDown:
                raise unavailable() from None
            found.update({stream_id: StoredStream(store, state, self) for stream_id, state in states.items()})
            # If one store has dropped a stream's events, another may still have them.
            left = [stream_id for stream_id in left if stream_id not in found or found[stream_id].state.gone]
            if not left:
                break
        return found

    async def streams(self, principal: str, most: int) -> list[StreamState]:
        """The latest streams of this principal, newest first, including those that run here.

        Raises:
            StoreUnavailable: see ``find``.
        """
        found: dict[str, StreamState] = {}
        for store in self._stores():
            try:
                states = await store.streams(principal, most)
            except StoreDown:
                raise unavailable() from None
            for state in states:
                found.setdefault(state.meta.id, state)
        return sorted(found.values(), key=lambda state: state.meta.created, reverse=True)[:most]

    async def stop(self, principal: str, stream_id: str, within_s: float) -> StreamState | None:
        """Stop a stream that runs in another process; its state then, or after ``within_s``; None if there is none.

        Raises:
            StoreUnavailable: see ``find``.
        """
        found = await self.find(principal, stream_id)
        if found is None or found.state.ending is not None:
            return None if found is None else found.state
        try:
            return await _stop(found, within_s)
        except StoreDown:
            raise unavailable() from None

    async def close(self) -> None:
        """Write what is still unwritten, then close the stores."""
        await self._late.close()
        await self.stores.close()  # what they cannot write any more stays in memory
        await self.memory.close()

    def _stores(self) -> list[StreamStore]:
        durable = self.stores.streams()
        return [self.memory] if durable is None else [self.memory, durable]


async def _stop(found: StoredStream, within_s: float) -> StreamState | None:
    store, state, stream_id = found.store, found.state, found.state.meta.id
    await store.stop(stream_id)
    until = time.monotonic() + within_s
    now: StreamState | None = state
    while now is not None and now.ending is None and (left := until - time.monotonic()) > 0:
        await store.changed(stream_id, now.last, left)
        now = await store.find(stream_id)
    return now


def unavailable() -> EdgeError:
    """The error when the store cannot be reached."""
    return StoreUnavailable("stored streams cannot be read at the moment, since the store is down; try again shortly")


def _unneeded(stored: bool) -> None:  # noqa: FBT001 - the port's signature
    """Ignore that a store has written everything: nothing waits for it."""
