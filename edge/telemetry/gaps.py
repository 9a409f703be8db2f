"""The gaps between generated tokens of one stream, in a histogram of fixed size.

In: one call for each network read (hot path). Out: percentiles, the longest gap, how many.
Must not: grow with the stream, or read a clock.

Buckets are an octave wide in eight equal parts, so that a percentile is off by at most a sixteenth of itself.
"""

from array import array
from math import ceil, frexp

FLOOR_S = 2.0**-17  # 8 µs: shorter gaps, and tokens that came in the same read, count as none
_OCTAVES = 28  # up to 34 minutes; longer ones share the last bucket
_PARTS = 8
_LAST = _OCTAVES * _PARTS + 1
_FACTOR = 2 * _PARTS
_NONE = bytes(array("I").itemsize * (_LAST + 1))
_SHIFT = 16 * _PARTS - _PARTS + 1  # frexp(FLOOR_S) is (0.5, -16), and belongs in bucket 1

RELATIVE_ERROR = 1 / (2 * _PARTS)


class Gaps:
    """A log-scale histogram of seconds.

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
