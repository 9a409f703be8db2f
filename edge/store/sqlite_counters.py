"""Counts that survive a restart: hot in memory, and written behind into the file of the store.

In: demands, and what they cost. Out: whether they fit, decided in memory; the file follows within ``FLUSH_S``. Must
not: let a request wait for the file, or fail by it.

What is written are differences, so that two processes on one file (an upgrade, while the old one finishes) add up;
each learns from the file what the other has counted when it writes itself. Requests at once are not kept: they end with
the process. After a kill, what had not been written is lost: a second of what had ended, and what was still running.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge.policy.counters import NOTHING, Account, Changed, Counters, Slot, Used
from edge.policy.limits import Demand, Spent, Taken
from edge.policy.windows import counts
from edge.store.base import Hear, StoreDown

FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the file that still matters."""

    usage: Mapping[Account, Used]
    slots: Mapping[Slot, int]


class File(Protocol):
    """``sqlite_count_file.CountFile``; called in any thread. All but ``close`` raise ``StoreDown``."""

    def write(self, changed: Changed, now: float) -> Kept | None:
        """Add what has changed; what is in the file then, if others have written there."""

    def usage(self, first: str) -> dict[Account, Used]:
        """What was used from this day on."""

    def close(self) -> None:
        """Let go of it."""


class SqliteCounters:
    """A ``base.CounterStore``.

    Args:
        make: Makes the file's object, in any thread: only when it is needed, as SQLite takes 2 MB.
        hear: Told when the counts cannot be written, and when they are again; once each per outage.
    """

    def __init__(
        self,
        make: Callable[[], File],
        hear: Hear,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._make = make
        self._hear = hear
        self._clock = clock
        self._counters = Counters(tracked=True)
        self._file: File | None = None
        self._learned = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._failed_at: float | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<SqliteCounters {self._counters!r}{'' if self._failed_at is None else ' not written'}>"

    async def open(self) -> None:
        """Learn what is in the file; without it, it is counted from nothing until it can be read."""
        await asyncio.wait([self._start()])

    async def take(self, demand: Demand) -> Taken:
        """See ``base.CounterStore``."""
        taken = self._counters.take(demand, self._clock())
        self._changed()
        return taken

    def end(self, taken: Taken, spent: Spent | None) -> None:
        """See ``base.CounterStore``."""
        self._counters.end(taken, spent, self._clock())
        self._changed()

    async def usage(self, first: str) -> dict[Account, Used]:
        """See ``base.CounterStore``."""
        await self._written()
        if self._failed_at is not None:
            raise StoreDown("the file of the store cannot be written")
        return await asyncio.to_thread(self._made().usage, first)

    async def close(self) -> None:
        """See ``base.CounterStore``."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._written()
        if self._file is not None:
            await asyncio.to_thread(self._file.close)

    # --- on the loop ----------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self._timer is None and self._writing is None and not self._closed and self._counters.changed:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._due)

    def _due(self) -> None:
        self._timer = None
        self._start()

    def _start(self) -> asyncio.Task[None]:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._flush())
            self._writing.add_done_callback(self._wrote)
        return self._writing

    def _wrote(self, _task: asyncio.Task[None]) -> None:
        self._writing = None
        self._changed()

    async def _written(self) -> None:
        """Write now what is to be written; goes on by itself for whoever does not wait for it."""
        if self._writing is not None:
            await asyncio.wait([self._writing])
        if self._counters.changed or not (self._learned or self._closed):
            await asyncio.wait([self._start()])

    async def _flush(self) -> None:
        changed, now = self._counters.drain(), self._clock()
        try:
            kept = await asyncio.to_thread(self._write, changed, now)
        except StoreDown as error:
            self._counters.undrain(changed)
            if self._failed_at is None:
                self._failed_at = time.monotonic()
                self._hear.store_failed(f"usage and limits are counted in memory only: {error}")
            return
        self._learned = True
        if kept is not None:
            self._learn(kept, now)
        if self._failed_at is not None:
            self._hear.store_recovered(time.monotonic() - self._failed_at)
            self._failed_at = None

    def _write(self, changed: Changed, now: float) -> Kept | None:
        """In a thread."""
        return self._made().write(changed, now)

    def _made(self) -> File:
        if self._file is None:
            self._file = self._make()
        return self._file

    def _learn(self, kept: Kept, now: float) -> None:
        """Count what others have, or this one's predecessor: the file, and what has been counted since it was read."""
        counters, changed = self._counters, self._counters.changed
        for account, used in kept.usage.items():
            news = used + changed.usage.get(account, NOTHING) - counters.usage.get(account, NOTHING)
            if news.requests > 0:  # less would be another file in this one's place
                counters.learn(account, news)
        for slot, amount in kept.slots.items():
            if counts(slot[2], now):
                here = counters.windows[slot[0], slot[1]].slots.get(slot[2], 0)
                counters.learn_slot(slot, amount + changed.slots[slot] - here)
