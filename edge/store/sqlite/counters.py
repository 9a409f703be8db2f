"""Counts that survive a restart: hot in memory, and written behind into the file of the store.

In: demands, and what they cost. Out: whether they fit, decided in memory; the file follows within ``FLUSH_S``. Must
not: let a request wait for the file, or fail by it; or import SQLite (2 MB) before the file is needed.

What is written are differences, so that two processes on one file (an upgrade, while the old one finishes) add up;
each learns from the file what the other has counted when it writes itself. Requests at once are not kept: they end with
the process. After a kill, what had not been written is lost: a second of what had ended, and what was still running.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from typing_extensions import override

from edge.policy.limits.counters import NOTHING, Account, Counters, Slot, Used
from edge.policy.limits.rules import Demand, Spent, Taken
from edge.policy.limits.windows import counts
from edge.store.ports import CounterStore, StoreDown

if TYPE_CHECKING:  # it brings SQLite
    from edge.store.sqlite.batcher import SqliteFile

FLUSH_S = 1.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the file that still matters."""

    usage: Mapping[Account, Used]
    slots: Mapping[Slot, int]


class SqliteCounters(CounterStore):
    """A ``ports.CounterStore``.

    Args:
        opened: The file, when it is needed; it reports outages.
    """

    def __init__(self, opened: "Callable[[], SqliteFile]", clock: Callable[[], float] = time.time) -> None:
        self._opened = opened
        self._clock = clock
        self._counters = Counters(tracked=True)
        self._file: SqliteFile | None = None
        self._version = -1  # of the counts in the file, as they were left here
        self._learned = False
        self._is_down = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<SqliteCounters {self._counters!r}{' not written' if self._is_down else ''}>"

    async def open(self) -> None:
        """Learn what is in the file; without it, it is counted from nothing until it can be read."""
        await self._end_of(self._start())

    @override
    async def reserve(self, demand: Demand) -> Taken:
        taken = self._counters.reserve(demand, self._clock())
        self._changed()
        return taken

    @override
    def end(self, taken: Taken, spent: Spent | None) -> None:
        self._counters.end(taken, spent, self._clock())
        self._changed()

    @override
    async def usage(self, first: str) -> dict[Account, Used]:
        from edge.store.sqlite.counts import read_usage  # noqa: PLC0415 - see the module

        await self._written()
        if self._is_down or self._writing is not None:
            raise StoreDown("the file of the store cannot be written")
        return await self._used().read(lambda connection: read_usage(connection, first), dict[Account, Used]())

    @override
    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._written()
        if self._file is not None:
            await self._file.leave(self)

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
            await self._end_of(self._writing)
        if self._writing is None and (self._counters.changed or not (self._learned or self._closed)):
            await self._end_of(self._start())

    async def _end_of(self, writing: asyncio.Task[None]) -> None:
        """Wait for it, but not for a disk that hangs."""
        await asyncio.wait([writing], timeout=self._used().hung_s)

    async def _flush(self) -> None:
        from edge.store.sqlite.counts import write_counts  # noqa: PLC0415 - see the module

        changed, now, known = self._counters.drain(), self._clock(), self._version
        try:
            self._version, kept = await self._used().change(
                lambda connection: write_counts(connection, changed, known, now),
                however_long=True,  # what may have been written cannot be written again: it would count twice
            )
        except StoreDown:
            self._counters.restore(changed)
            self._is_down = True
            return
        self._learned, self._is_down = True, False
        if kept is not None:
            self._learn(kept, now)

    def _used(self) -> "SqliteFile":
        if self._file is None:
            self._file = self._opened()
            self._file.use(self)
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
