"""Where the time of one exchange went: its phases, and the gaps between its tokens.

In: changes of phase, with the time; the gap before each network read. Out: seconds per phase; percentiles of the gaps.
Must not: grow with the stream, or read a clock.

Each moment belongs to exactly one phase, so that the phases add up to the total. Phases change rarely, never per token.
"""

from array import array
from enum import IntEnum
from math import ceil, frexp

FLOOR_S = 2.0**-17  # 8 µs: shorter gaps, and tokens that came in the same read, count as none
_OCTAVES = 28  # up to 34 minutes; longer ones share the last bucket
_PARTS = 8
_LAST = _OCTAVES * _PARTS + 1
_FACTOR = 2 * _PARTS
_NONE = bytes(array("I").itemsize * (_LAST + 1))
_SHIFT = 16 * _PARTS - _PARTS + 1  # frexp(FLOOR_S) is (0.5, -16), and belongs in bucket 1

RELATIVE_ERROR = 1 / (2 * _PARTS)


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


class Gaps:
    """The gaps between generated tokens of one stream: a log-scale histogram of seconds, of fixed size.

    One call for each network read (hot path). Buckets are an octave wide in eight equal parts, so that a percentile is
    off by at most a sixteenth of itself.

    Attributes:
        count: Gaps added.
    """

    __slots__ = ("_buckets", "_longest", "count")

    def __init__(self) -> None:
        self._buckets = array("I", _NONE)
        self.count = 0
        self._longest = 0.0

    def add(self, gap_s: float, tokens: int = 1) -> None:
        """Add the gap before a read that brought ``tokens``: one gap, and none between the others."""
        self.count += tokens
        buckets = self._buckets
        if tokens > 1:
            buckets[0] += tokens - 1
        if gap_s < FLOOR_S:
            buckets[0] += 1
            return
        self._longest = max(self._longest, gap_s)
        fraction, octave = frexp(gap_s)
        index = octave * _PARTS + int(fraction * _FACTOR) + _SHIFT
        buckets[min(_LAST, index)] += 1

    @property
    def max(self) -> float | None:
        """The longest gap, exactly; None if there are none."""
        return self._longest if self.count else None

    def percentile(self, share: float) -> float | None:
        """The gap that ``share`` (0 to 1) of all gaps do not exceed; None if there are none."""
        if not self.count:
            return None
        rank = max(1, ceil(self.count * share))
        for index, held in enumerate(self._buckets):
            rank -= held
            if rank <= 0:
                return self._middle(index)
        return None

    def _middle(self, index: int) -> float:
        if index == 0:
            return 0.0
        if index == _LAST:
            return self._longest
        octave, part = divmod(index - 1, _PARTS)
        return min(self._longest, FLOOR_S * 2.0**octave * (1 + (part + 0.5) / _PARTS))
