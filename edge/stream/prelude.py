"""What an upstream sends before anything has been generated: held, since another attempt may still follow.

In: whole events. Out: all of them at once. Must not: hold more than its bounds, or end anything.
"""

# Far above any real one. A server that shows that it is alive by empty deltas may send five a second for half an hour.
MOST_EVENTS = 10_000
# As many of the largest events: Responses tells the whole request back, with all its tools, in each of the first two.
MOST_LARGEST = 4


class Prelude:
    """See the module.

    Args:
        largest: The largest event, in bytes.

    Attributes:
        events: How many there are.
    """

    __slots__ = ("_data", "_most_bytes", "events")

    def __init__(self, largest: int) -> None:
        self._data = bytearray()  # in one piece: an object for each small event would take as much again
        self._most_bytes = MOST_LARGEST * largest
        self.events = 0

    def __repr__(self) -> str:
        return f"<Prelude {self.events} events, {len(self._data)} B>"

    @property
    def data(self) -> bytes:
        """The events."""
        return bytes(self._data)

    def drop_first(self, size: int) -> None:
        """Let go of the first event, of so many bytes."""
        del self._data[:size]
        self.events -= 1

    def add(self, data: bytes, events: int) -> bool:
        """Hold more; whether that is within the bounds."""
        self._data += data
        self.events += events
        return self.events <= MOST_EVENTS and len(self._data) <= self._most_bytes
