"""What a surface is to the rest of Edge: how its streams are read, and how failures and silences look in it.

In: bytes and errors. Out: batches and bytes. One ``Codec`` per attempt (it has state), one ``Dialect`` per surface.
Must not: do I/O, or know which upstream is behind it.
"""

from typing import Literal

from edge.protocol.batch import Batch, Measured, Usage
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat


class Collector:
    """Builds the non-stream answer out of the events of a stream."""

    __slots__ = ()

    def add(self, event: dict[str, object]) -> None:
        """Take one decoded data payload; what is not the surface's shape is ignored."""
        raise NotImplementedError

    def answer(self) -> dict[str, object]:
        """The answer, as the upstream's own non-stream reply would have been."""
        raise NotImplementedError


class TextCollector(Collector):
    """One that takes pieces of text also as they come, from whoever does not decode their events."""

    __slots__ = ()

    def add_text(self, escaped: bytes) -> None:
        """Take a piece of the answer's text, which is the inside of a JSON string."""
        raise NotImplementedError


Said = Literal["", "text", "thought"]  # what a piece of plain text belongs to: the answer, or what the model thinks


class Codec:
    """Reads one upstream stream, and gives it on in the client's surface."""

    __slots__ = ()

    @property
    def usage(self) -> Usage | None:
        """Token counts as far as the upstream has reported them."""
        raise NotImplementedError

    @property
    def measured(self) -> Measured | None:
        """What the upstream has said of its own time."""
        raise NotImplementedError

    @property
    def unknown_finish(self) -> str | None:
        """The finish reason that the upstream gave, if nobody here knows what it means."""
        raise NotImplementedError

    @property
    def note(self) -> str | None:
        """What is odd about how the answer ended, for the record."""
        raise NotImplementedError

    def plain(self, data: bytes) -> int:
        """How many events a network read brought, if it is whole events of generated content and nothing else.

        Otherwise 0, and the read is still to be fed.
        """
        raise NotImplementedError

    def text(self, data: bytes) -> tuple[Said, bytes, int]:
        """What a read that is plain as above adds: of which kind it is, its text, and the number of its events.

        The text is escaped as it was: what is escaped in one JSON string is so in any. That it is a string is still to
        be seen. Otherwise the kind is empty, and the read is still to be fed.
        """
        raise NotImplementedError

    def feed(self, data: bytes) -> Batch:
        """Cut whole events out of a network read and observe them.

        Raises:
            BadStream: malformed, or over the bound; nothing may be fed after it.
        """
        raise NotImplementedError

    def collect(self, collector: Collector) -> None:
        """Also build the non-stream answer, from the payloads that are decoded anyway; before anything is fed."""
        raise NotImplementedError

    def answer(self) -> dict[str, object]:
        """What has been collected."""
        raise NotImplementedError

    def eof(self) -> Batch:
        """What the end of the body completes."""
        raise NotImplementedError

    def finished(self, *, clean_eof: bool) -> bool:
        """Whether the answer is whole, now that the terminator (or, with ``clean_eof``, only the end) has come."""
        raise NotImplementedError

    def begun(self, opened: Opened) -> None:
        """The client already has an event that begins the answer: the upstream's own is merged into that one."""
        raise NotImplementedError

    def progress(self) -> Progress:
        """How far the answer has got, for what Edge itself says."""
        raise NotImplementedError


class Dialect:
    """A surface's codec, collector and error shape."""

    __slots__ = ()

    surface: Surface
    stream_type: str  # the Content-Type of its streams
    format: type[SurfaceFormat]  # what Edge itself says in it

    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> Codec:
        """A fresh codec for one attempt; ``repairs`` are those of the upstream it will read from."""
        raise NotImplementedError

    def collector(self, prepared: Prepared) -> Collector:
        """A fresh collector for one attempt."""
        raise NotImplementedError


class BadStream(ValueError):
    """The upstream's bytes are not the surface: malformed JSON, or an event over the bound.

    Attributes:
        before: What came before it in the same read, and is still to be handed on.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.before = Batch(b"")


class TooLarge(BadStream):
    """An event is over the bound; another upstream would send as much."""
