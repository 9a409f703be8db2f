"""Counts in the memory of this process, gone with it.

In: demands, and what they cost. Out: whether they fit. Must not: wait.
"""

import time
from collections.abc import Callable

from edge.policy.limits.counters import Account, Counters, Used
from edge.policy.limits.rules import Demand, Spent, Taken


class MemoryCounters:
    """A ``ports.CounterStore``."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._counters = Counters()
        self._clock = clock

    def __repr__(self) -> str:
        return f"<MemoryCounters {self._counters!r}>"

    async def open(self) -> None:
        """See ``ports.CounterStore``."""

    async def take(self, demand: Demand) -> Taken:
        """See ``ports.CounterStore``."""
        return self._counters.take(demand, self._clock())

    def end(self, taken: Taken, spent: Spent | None) -> None:
        """See ``ports.CounterStore``."""
        self._counters.end(taken, spent, self._clock())

    async def usage(self, first: str) -> dict[Account, Used]:
        """See ``ports.CounterStore``; not more than ``counters.KEPT_DAYS``."""
        return {account: used for account, used in self._counters.usage.items() if account.day >= first}

    async def close(self) -> None:
        """See ``ports.CounterStore``."""
