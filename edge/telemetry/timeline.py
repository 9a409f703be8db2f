"""Where the time of one exchange went: each moment belongs to exactly one phase, so the phases add up to the total.

In: changes of phase, with the time. Out: seconds per phase. Must not: be called per token; phases change rarely.
"""

from enum import IntEnum


class Phase(IntEnum):
    """What an exchange is waiting for."""

    QUEUED = 0
    CONNECTING = 1
    UPSTREAM = 2  # nothing is pending for the reader: the model is being waited for
    CLIENT_BLOCKED = 3  # bytes are pending that the reader does not take
    EDGE = 4  # the rest


class Timeline:
    """Accumulates seconds per phase, from ``started`` on."""

    __slots__ = ("_phase", "_seconds", "_since", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self._since = started
        self._phase = Phase.EDGE
        self._seconds = [0.0] * len(Phase)

    def enter(self, phase: Phase, now: float) -> None:
        """The present phase ends and ``phase`` begins; a clock that has stepped back has not moved."""
        now = max(now, self._since)
        self._seconds[self._phase] += now - self._since
        self._since = now
        self._phase = phase

    def seconds(self, phase: Phase) -> float:
        """Seconds spent in a phase up to the last change."""
        return self._seconds[phase]

    @property
    def total(self) -> float:
        """Seconds from the start to the last change; the sum of the phases."""
        return self._since - self.started

    def server_timing(self) -> str:
        """The phases that are known when the status goes out, as a ``Server-Timing`` header (milliseconds)."""
        return ", ".join(f"{name};dur={self.seconds(phase) * 1e3:.1f}" for name, phase in _SERVER_TIMING)


_SERVER_TIMING = (
    ("queued", Phase.QUEUED),
    ("connect", Phase.CONNECTING),
    ("upstream", Phase.UPSTREAM),
    ("edge", Phase.EDGE),
)
