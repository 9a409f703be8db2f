"""The ring of a generation's bytes that not every reader has taken yet.

In: the data of batches, whole events each. Out: the same bytes from any position that is still held. Must not: know
readers or pause anything; it only counts.
"""

from collections import deque
from dataclasses import dataclass


class Expired(LookupError):
    """The position asked for is no longer held."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """A snapshot, in bytes."""

    held: int
    peak: int
    end: int


class Journal:
    """Bytes by absolute position, from ``start`` to ``end``."""

    __slots__ = ("_batches", "_peak", "end", "start")

    def __init__(self) -> None:
        self._batches: deque[bytes] | None = None  # an empty one takes 700 bytes, and mostly there is none to keep
        self.start = 0
        self.end = 0
        self._peak = 0

    def __repr__(self) -> str:
        return f"<Journal {self.start}..{self.end}>"

    def append(self, data: bytes) -> None:
        """Keep the data of one batch."""
        if self._batches is None:
            self._batches = deque()
        self._batches.append(data)
        self.end += len(data)
        self._peak = max(self._peak, self.end - self.start)

    def skip(self, size: int) -> None:
        """Count ``size`` bytes that every reader took as they came; only while nothing is held."""
        self.start = self.end = self.end + size

    def read(self, position: int, most: int) -> bytes:
        """The bytes from ``position`` to the end of a batch, about ``most`` (one batch at least); empty at the end.

        Raises:
            Expired: ``position`` is before what is held.
        """
        if position == self.end:
            return b""
        if position < self.start:
            raise Expired(f"position {position} is gone; the journal begins at {self.start}")
        taken: list[bytes] = []
        size = 0
        at = self.start
        for data in self._batches or ():
            skipped = max(0, position - at)
            at += len(data)
            if at > position:
                taken.append(data[skipped:])
                size += len(taken[-1])
                if size >= most:
                    break
        return taken[0] if len(taken) == 1 else b"".join(taken)

    def trim(self, position: int) -> None:
        """Let go of the batches that end at or before ``position``."""
        batches = self._batches
        while batches and self.start + len(batches[0]) <= position:
            self.start += len(batches.popleft())
        if not batches:
            self._batches = None

    def statistics(self) -> JournalStatistics:
        """What is held now and was at the most."""
        return JournalStatistics(held=self.end - self.start, peak=self._peak, end=self.end)
