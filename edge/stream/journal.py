"""The ring of a stream's events that not every reader has taken yet, or that are kept for those who come back.

In: the data of batches, whole events each. Out: the same bytes from any position that is still held, and the position
after any event. Must not: know readers or pause anything; it only counts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TIDY = 256  # batches let go of, before the lists are cut: once in a while, and not for each


class Expired(LookupError):
    """The position asked for is no longer held."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """A snapshot, in bytes."""

    held: int
    peak: int
    end: int


class _Held:
    """Batches, and of each the position and the sequence of its end; the first ``gone`` of them have been let go of."""

    __slots__ = ("batches", "ends", "gone", "lasts")

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.ends: list[int] = []
        self.lasts: list[int] = []
        self.gone = 0

    def let_go(self, count: int) -> None:
        """Let go of the first ``count`` of all that are in the lists."""
        for at in range(self.gone, count):
            self.batches[at] = b""
        self.gone = count
        if count > _TIDY and count * 2 > len(self.batches):
            del self.batches[:count], self.ends[:count], self.lasts[:count]
            self.gone = 0


class Journal:
    """Bytes by absolute position, from ``start`` to ``end``; events by sequence, ``last`` being that of the latest.

    Args:
        keep_bytes: The latest so many bytes stay, whoever has taken them; 0 where nobody comes back.
    """

    __slots__ = ("_held", "_peak", "before", "end", "keep_bytes", "last", "start")

    def __init__(self, keep_bytes: int = 0) -> None:
        self._held: _Held | None = None  # empty lists take 300 bytes, and mostly there is nothing to keep
        self.keep_bytes = keep_bytes
        self.start = 0
        self.end = 0
        self.before = 0  # sequence of the event before the first that is held
        self.last = 0
        self._peak = 0

    def __repr__(self) -> str:
        return f"<Journal {self.start}..{self.end}>"

    def append(self, data: bytes, count: int) -> None:
        """Hold the data of one batch, ``count`` events."""
        held = self._held
        if held is None:
            held = self._held = _Held()
        self.end += len(data)
        self.last += count
        held.batches.append(data)
        held.ends.append(self.end)
        held.lasts.append(self.last)
        self._peak = max(self._peak, self.end - self.start)

    def read(self, position: int, most: int) -> bytes:
        """The bytes from ``position`` to the end of a batch, about ``most`` (one batch at least); empty at the end.

        Raises:
            Expired: ``position`` is before what is held.
        """
        if position == self.end:
            return b""
        held = self._held
        if position < self.start or held is None:
            raise Expired(f"position {position} is gone; the journal begins at {self.start}")
        at = bisect_right(held.ends, position, held.gone)
        data = held.batches[at]
        skipped = position - (held.ends[at] - len(data))
        if skipped:
            data = data[skipped:]
        if len(data) >= most or at + 1 == len(held.batches):
            return data
        taken = [data]
        size = len(data)
        while size < most and (at := at + 1) < len(held.batches):
            taken.append(held.batches[at])
            size += len(taken[-1])
        return b"".join(taken)

    def after(self, sequence: int, cut: Callable[[bytes, int], int]) -> int:
        """The position after the event of that sequence.

        Args:
            sequence: 0 for the beginning.
            cut: Where in whole events the first so many of them end.

        Raises:
            Expired: what follows it is no longer held.
            IndexError: there is no such event yet.
        """
        if sequence > self.last:
            raise IndexError(f"event {sequence} has not come; the last is {self.last}")
        held = self._held
        if sequence == self.last:
            return self.end
        if sequence < self.before or held is None:
            raise Expired(f"event {sequence + 1} is gone; the journal begins with {self.before + 1}")
        at = bisect_left(held.lasts, sequence + 1, held.gone)
        begins = held.ends[at] - len(held.batches[at])
        before = held.lasts[at - 1] if at > held.gone else self.before
        return begins + cut(held.batches[at], sequence - before)

    def held(self) -> Iterator[tuple[bytes, int]]:
        """All that is held: batches, and the number of events in each."""
        held, before = self._held, self.before
        if held is not None:
            for data, last in zip(held.batches[held.gone :], held.lasts[held.gone :], strict=True):
                yield data, last - before
                before = last

    def trim(self, position: int) -> None:
        """Let go of the batches that end at or before ``position``."""
        held = self._held
        if held is None or position < self.start:
            return
        count = bisect_right(held.ends, position, held.gone)
        if count > held.gone:
            self.start, self.before = held.ends[count - 1], held.lasts[count - 1]
            held.let_go(count)
        if count == len(held.batches):
            self._held = None

    def bound(self, most: int) -> None:
        """Let go of the oldest batches over so many bytes; the latest stays."""
        held = self._held
        if self.end - self.start > most and held is not None:
            at = min(bisect_left(held.ends, self.end - most, held.gone), len(held.ends) - 2)
            if at >= held.gone:
                self.trim(held.ends[at])

    def statistics(self) -> JournalStatistics:
        """What is held now and was at the most."""
        return JournalStatistics(held=self.end - self.start, peak=self._peak, end=self.end)
