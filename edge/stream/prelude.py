"""What an upstream sends before anything has been generated: held, since another attempt may still follow.

In: whole events. Out: all of them at once. Must not: hold more than its bounds, or end anything.
"""

from edge.bounds import PRELUDE_BYTES
from edge.errors import AnswerTooLarge, UpstreamBroken

# Far above any real one. A server that shows that it is alive by empty deltas may send five a second for half an hour.
MOST_EVENTS = 10_000


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
        self._most_bytes = largest + PRELUDE_BYTES
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

    def add(self, data: bytes, events: int) -> None:
        """Hold more."""
        self._data += data
        self.events += events

    def excess(self) -> UpstreamBroken | None:
        """What there is to tell if it is over its bounds."""
        if len(self._data) > self._most_bytes:
            return AnswerTooLarge(
                f"the upstream sent over {self._most_bytes} bytes of events without any content; "
                "raise stream.max_event_bytes if they are meant to be so many"
            )
        if self.events > MOST_EVENTS:
            return UpstreamBroken(f"the upstream sent {self.events} events without any content")
        return None
