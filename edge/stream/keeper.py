"""Streams that can be come back to: where each is written to while it runs, and where it is found afterwards.

In: streams that begin here and end; questions after a stream by its id. Out: the store that has it. Must not: serve a
reader, or let a stream wait for a store, or fail with one: what a store has not taken is kept in memory, as far as that
goes.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from edge.errors import EdgeError, StoreUnavailable
from edge.policy.lifecycle import Outcome
from edge.settings import Settings
from edge.store.base import Ending, StoreDown, StreamLog, StreamMeta, StreamState, StreamStore
from edge.store.memory_streams import MemoryStreams
from edge.store.opening import Stores
from edge.stream.audience import Audience, Kept

_LATE_S = 0.25  # by which every process has written that it began a stream
_LOOKS = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A stream in a store. ``keeper`` finds it again: what was in one store may be in another by now."""

    store: StreamStore
    state: StreamState
    keeper: "Keeper"


class Keeping:
    """One stream that is being kept."""

    def __init__(self, keeper: "Keeper", meta: StreamMeta, log: StreamLog, *, durable: bool) -> None:
        self._durable = durable
        self._keeper = keeper
        self._meta = meta
        self._log = log
        self.kept = Kept(meta.keep_bytes, log.append)

    def end(self, stream: Audience, upstream: str | None, reconnections: int) -> None:
        """It has ended, with all its events in its journal; it stays in memory until the other store has all of it."""
        keeper, meta, journal = self._keeper, self._meta, stream.journal
        ending = self._ending(stream)
        if not self._durable:
            self._log.end(ending, upstream, reconnections, _unneeded)
            return
        copy = keeper.memory.begin(meta, journal.before)
        for data, count in journal.held():
            copy.append(data, count)
        copy.end(ending, upstream, reconnections, _unneeded)

        def settled(stored: bool) -> None:  # noqa: FBT001 - the port's signature
            if stored:
                keeper.memory.discard(meta.id)

        self._log.end(ending, upstream, reconnections, settled)

    def _ending(self, stream: Audience) -> Ending:
        error, outcome = stream.error, stream.outcome or Outcome.INTERNAL_ERROR
        return Ending(
            outcome=str(outcome),
            clean=stream.clean,
            at=self._keeper.clock(),
            status=200 if error is None else error.status,
            error=None if error is None else (error.message, error.code, error.type),
        )


class Keeper:
    """All kept streams.

    Args:
        memory: Has what the other store has not, or all if there is none.
        stores: Where the other one is, if there is one: a file, or a server.
        clock: Unix time.
    """

    def __init__(self, memory: MemoryStreams, stores: Stores, clock: Callable[[], float] = time.time) -> None:
        self.memory = memory
        self.stores = stores
        self.clock = clock

    def follow(self, settings: Settings) -> None:
        """Other settings are in force."""
        self.memory.follow(settings)

    def begin(self, meta: StreamMeta) -> Keeping:
        """Keep a stream that begins now."""
        durable = self.stores.streams()
        return Keeping(self, meta, (durable or self.memory).begin(meta), durable=durable is not None)

    async def find(self, principal: str, stream_id: str) -> Found | None:
        """A stream of this principal, other than those that run here.

        Raises:
            StoreUnavailable: it may be in a store that cannot be asked now.
        """
        found = await self._find(stream_id)
        if found is None and self.stores.shared:
            # Another process may have begun it a moment ago; it writes in batches.
            for _ in range(_LOOKS):  # all of them, found or not: how long it takes tells nothing of others' streams
                await asyncio.sleep(_LATE_S / _LOOKS)
                found = found or await self._find(stream_id)
        return None if found is None or found.state.meta.principal != principal else found

    async def _find(self, stream_id: str) -> Found | None:
        found: Found | None = None
        for store in self._stores():
            try:
                state = await store.find(stream_id)
            except StoreDown:
                raise unavailable() from None
            if state is not None:
                found = Found(store, state, self)
                if not state.gone:
                    break  # else another store may still have its events
        return found

    async def streams(self, principal: str, most: int) -> list[StreamState]:
        """The latest streams of this principal, those that run here among them; the latest first.

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
        """Have a stream stopped that does not run here; how it is then, or after ``within_s``. None: there is none.

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
        """Write what is to be written, and let go."""
        await self.stores.close()  # what cannot be written any more ends in memory
        await self.memory.close()

    def _stores(self) -> list[StreamStore]:
        durable = self.stores.streams()
        return [self.memory] if durable is None else [self.memory, durable]


async def _stop(found: Found, within_s: float) -> StreamState | None:
    store, state, stream_id = found.store, found.state, found.state.meta.id
    await store.stop(stream_id)
    until = time.monotonic() + within_s
    now: StreamState | None = state
    while now is not None and now.ending is None and (left := until - time.monotonic()) > 0:
        await store.changed(stream_id, now.last, left)
        now = await store.find(stream_id)
    return now


def unavailable() -> EdgeError:
    """What a reader is told where the store cannot be asked."""
    return StoreUnavailable("what is kept of streams cannot be read at the moment; try again shortly")


def _unneeded(stored: bool) -> None:  # noqa: FBT001 - the port's signature
    """For a store that has nothing to write behind."""
