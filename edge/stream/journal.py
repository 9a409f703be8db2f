"""The journal: the events of a stream that some reader has not taken yet, or that are kept for readers that come back.

In: batches of whole events. Out: the same bytes from any position that is still held, and the position after any event.
Must not: know readers, or pause anything; it only counts.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_TIDY = 256  # dropped batches before the lists are cut: once in a while, not for each


class Expired(LookupError):
    """The journal no longer holds this position."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """How much a journal holds and has held, in bytes."""

    held: int
    peak: int
    end: int


class _Held:
    """Batches, with the position and the sequence of the end of each; the first ``gone`` have been dropped."""

    __slots__ = ("batches", "ends", "gone", "lasts")

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.ends: list[int] = []
        self.lasts: list[int] = []
        self.gone = 0

    def let_go(self, count: int) -> None:
        """Drop the first ``count`` batches of the lists."""
        for at in range(self.gone, count):
            self.batches[at] = b""
        self.gone = count
        if count > _TIDY and count * 2 > len(self.batches):
            del self.batches[:count], self.ends[:count], self.lasts[:count]
            self.gone = 0


class Journal:
    """Bytes by absolute position, from ``start`` to ``end``; events by sequence, of which ``last`` is the latest.

    Args:
        keep_bytes: How many of the latest bytes stay even after all readers have taken them; 0 if nobody comes back.
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
        """Add one batch of ``count`` events."""
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
        """The bytes from ``position`` to the end of a batch: about ``most``, but at least one batch; empty at the end.

        Raises:
            Expired: ``position`` is no longer held.
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
            cut: Finds the end of the first N events in a run of whole events.

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
        """All held batches, with the number of events in each."""
        held, before = self._held, self.before
        if held is not None:
            for data, last in zip(held.batches[held.gone :], held.lasts[held.gone :], strict=True):
                yield data, last - before
                before = last

    def trim(self, position: int) -> None:
        """Drop the batches that end at or before ``position``."""
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
        """Drop the oldest batches until at most ``most`` bytes are held; the latest batch always stays."""
        held = self._held
        if self.end - self.start > most and held is not None:
            at = min(bisect_left(held.ends, self.end - most, held.gone), len(held.ends) - 2)
            if at >= held.gone:
                self.trim(held.ends[at])

    def statistics(self) -> JournalStatistics:
        """How much is held now, and the most that ever was."""
        return JournalStatistics(held=self.end - self.start, peak=self._peak, end=self.end)
