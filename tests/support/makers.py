"""A channel whose maker only notes what it is asked, and a reader that keeps up or does not.

In: events that a test publishes. Out: what the reader has got. Must not: decide anything.
"""

from edge.errors import EdgeError
from edge.stream.channel import Channel


class Maker(Channel):
    """Notes what it is asked to do."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.asked: list[str] = []

    def heartbeat(self, *, lively: bool) -> bytes:
        return b": lively\n" if lively else b": \n"

    def fail(self, bug: BaseException) -> None:
        raise bug

    def break_off(self, error: EdgeError) -> None:
        self.asked.append(f"break off: {error}")

    def left(self, *, stalled: bool) -> None:
        self.asked.append("left, stalled" if stalled else "left")

    def pause_source(self) -> None:
        self.asked.append("hold on")

    def resume_source(self) -> None:
        self.asked.append("go on")


class At:
    """A reader; ``busy``: it takes nothing past the journal."""

    committed = True
    wants_events = True

    def __init__(self, position: int = 0, *, busy: bool = False) -> None:
        self.position = position
        self.busy = busy
        self.got = b""
        self.pushes = self.ends = 0
        self.was_cut = False

    def write(self, data: bytes) -> bool:
        if self.busy:
            return False
        self.got += data
        self.position += len(data)
        return True

    def push(self) -> None:
        self.pushes += 1

    def ended(self) -> None:
        self.ends += 1

    def cut_off(self) -> None:
        self.was_cut = True

    def catch_up(self, channel: Channel) -> None:
        """Take all that is in the journal."""
        while data := channel.journal.read(self.position, 1 << 20):
            self.got += data
            self.position += len(data)
        channel.advanced()
