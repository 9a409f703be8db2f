"""The ticker: the one timer of the process, which checks all clocks of all exchanges in one sweep.

In: objects with a ``tick``. Out: ``tick(now)`` on each, a few times a second while there are any. Must not: do anything
per token; an exchange costs a handful of comparisons per sweep.
"""

import asyncio
from collections.abc import Callable

from edge.settings import Settings
from edge.settings import Stream as StreamSettings

_SLOWEST_S = 0.25  # the most by which a deadline is noticed late
_FASTEST_S = 0.02


class Ticked:
    """Something with clocks."""

    __slots__ = ()

    def tick(self, now: float) -> None:
        """Compare every clock with ``now`` and act on those that ran out; never raises."""
        raise NotImplementedError


def interval_for(settings: StreamSettings) -> float:
    """The pause between two sweeps: a fifth of the shortest clock, within bounds."""
    clocks = (
        settings.connect_s,
        settings.first_token_s,
        settings.inter_token_s,
        settings.heartbeat_s,
        settings.commit_after_s,
        settings.client_stall_s,
        settings.client_lag_s,
        settings.grace_s,
        settings.total_s or settings.first_token_s,
    )
    return max(_FASTEST_S, min(_SLOWEST_S, min(clocks) / 5))


class Ticker:
    """Ticks what is registered; sleeps while nothing is."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self._interval = interval_s
        self._clock = clock
        self._things: set[Ticked] = set()
        self._handle: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._things)

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._interval = interval_for(settings.stream)

    def add(self, thing: Ticked) -> None:
        """Begin to tick ``thing``."""
        self._things.add(thing)
        if self._handle is None:
            self._schedule()

    def discard(self, thing: Ticked) -> None:
        """Stop ticking ``thing``; harmless if it is not ticked."""
        self._things.discard(thing)

    def close(self) -> None:
        """Stop for good. What is still registered stays, so that tests can find leaks."""
        self._closed = True
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _schedule(self) -> None:
        if not self._closed:
            self._handle = asyncio.get_running_loop().call_later(self._interval, self._sweep)

    def _sweep(self) -> None:
        now = self._clock()
        for thing in tuple(self._things):
            try:
                thing.tick(now)
            except Exception as bug:  # noqa: BLE001 - one faulty object must not stop all clocks
                context = {"message": f"{thing!r} raised in tick", "exception": bug}
                asyncio.get_running_loop().call_exception_handler(context)
        self._handle = None
        if self._things:
            self._schedule()
