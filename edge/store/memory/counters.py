"""Counts in the memory of this process, gone with it.

In: demands, and what they cost. Out: whether they fit. Must not: wait.
"""

import time
from collections.abc import Callable

from typing_extensions import override

from edge.policy.limits.counters import Account, Counters, Used
from edge.policy.limits.rules import Demand, Spent, Taken
from edge.store.ports import CounterStore


class MemoryCounters(CounterStore):
    """A ``ports.CounterStore``."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._counters = Counters()
        self._clock = clock

    def __repr__(self) -> str:
        return f"<MemoryCounters {self._counters!r}>"

    @override
    async def open(self) -> None:
        pass

    @override
    async def reserve(self, demand: Demand) -> Taken:
        return self._counters.reserve(demand, self._clock())

    @override
    def end(self, taken: Taken, spent: Spent | None) -> None:
        self._counters.end(taken, spent, self._clock())

    @override
    async def usage(self, first: str) -> dict[Account, Used]:
        """Not more than ``counters.KEPT_DAYS``."""
        return {account: used for account, used in self._counters.usage.items() if account.day >= first}

    @override
    async def close(self) -> None:
        pass
