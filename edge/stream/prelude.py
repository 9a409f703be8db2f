"""What an upstream sends before anything has been generated: held, since another attempt may still follow.

In: whole events. Out: all of them at once. Must not: bound itself; whoever holds it does.
"""


class Prelude:
    """See the module.

    Attributes:
        events: How many there are.
    """

    __slots__ = ("_pieces", "_size", "events")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self.events = 0

    def __repr__(self) -> str:
        return f"<Prelude {self.events} events, {self._size} B>"

    @property
    def data(self) -> bytes:
        """The events."""
        return b"".join(self._pieces)

    def add(self, data: bytes, events: int) -> int:
        """Hold more; how many bytes there are now."""
        self._pieces.append(data)
        self._size += len(data)
        self.events += events
        return self._size
