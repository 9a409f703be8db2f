"""What Edge itself says in a stream where there is no codec: before the first attempt, and when a stream is replayed.

In: errors, silences. Out: events in the surface's shape. Must not: end a stream.
"""

from edge.errors import EdgeError
from edge.protocol.dialect import Codec, Dialect, Opened
from edge.protocol.openings import OPENINGS
from edge.protocol.surface import Surface
from edge.stream.prelude import Prelude


class Voice:
    """Speaks one surface, for one request.

    Attributes:
        request_id: Goes into in-band errors where the surface has a place for it.
        before: Whole events that came last, and before them the one that began the answer, if it went out early.
        opened: What that one has told.
    """

    __slots__ = ("_dialect", "_model", "_opening", "before", "opened", "request_id")

    terminator = b""

    def __init__(self, dialect: Dialect, model: str | None, request_id: str) -> None:
        self._dialect = dialect
        self._model = model or ""
        self.request_id = request_id
        self.before = b""
        self.opened: Opened | None = None
        self._opening = OPENINGS.get(dialect.surface)

    def opens(self, *, committing: bool) -> bool:
        """Whether the event that begins an answer goes out early: as the status does, or else in a long silence."""
        return self._opening is not None and (self._opening.at_commit or not committing)

    def begin(self, held: Prelude | None, codec: Codec | None, stream_id: str) -> tuple[bytes, bool]:
        """The event that begins the answer, and whether it is the upstream's own.

        Args:
            held: What has come of the upstream's events; its own is taken out.
            codec: That of the present attempt, which has to agree with an event of Edge's.
            stream_id: To make an id of.
        """
        if self._opening is None:
            return b"", False
        found = None if held is None else self._opening.found(held.data)
        if held is not None and found is not None:
            event, self.opened = found
            held.drop_first(len(event))
        else:
            self.opened = self._opening.new(stream_id.removeprefix("st_"), self._model)
            event = self._opening.event(self.opened)
            self.prepare(codec)
        # The upstream's own may tell the whole request back, which nobody needs again.
        self.before = self._opening.event(self.opened)
        return event, found is not None

    def prepare(self, codec: Codec | None) -> None:
        """Tell the codec of an attempt what the client has already."""
        if codec is not None and self.opened is not None:
            codec.begun(self.opened)

    def heard(self, data: bytes) -> None:
        """These whole events went out."""
        self.learn(data)
        self.before = data

    def learn(self, data: bytes) -> None:
        """These whole events may be the first of the answer."""
        if self._opening is not None and self.opened is None:
            found = self._opening.found(data)
            self.opened = None if found is None else found[1]

    def heartbeat(self, *, lively: bool) -> bytes:
        """A keep-alive."""
        return self._dialect.heartbeat(self._model, self.before, lively=lively)

    def fails_in_stream(self, error: EdgeError) -> bool:
        """Whether a stream that fails before it begins is begun all the same, since its client acts on that alone.

        Codex shortens its conversation on a ``response.failed`` that says that it is too long, and not on a 400.
        """
        return self._dialect.surface is Surface.RESPONSES and error.too_long is not None

    def error_event(self, error: EdgeError, request_id: str) -> bytes:
        """The in-band error."""
        event = self._dialect.error_event(error, request_id, self.before)
        self.before += event
        return event

    def after_error(self, error: EdgeError, request_id: str) -> bytes:
        """What the surface has follow it."""
        known = b"" if self._opening is None or self.opened is None else self._opening.event(self.opened)
        return self._dialect.after_error(error, request_id, known + self.before)
