"""What Edge itself says in a stream where there is no codec: before the first attempt, and when a stream is replayed.

In: errors, silences. Out: events in the surface's shape. Must not: end a stream.
"""

from edge.errors import EdgeError
from edge.protocol.dialect import Dialect
from edge.protocol.responses import failed_at_once
from edge.protocol.surface import Surface


class Voice:
    """Speaks one surface, for one request.

    Attributes:
        request_id: Goes into in-band errors where the surface has a place for it.
        before: Whole events that came last.
    """

    __slots__ = ("_dialect", "_model", "before", "request_id")

    terminator = b""

    def __init__(self, dialect: Dialect, model: str | None, request_id: str) -> None:
        self._dialect = dialect
        self._model = model or ""
        self.request_id = request_id
        self.before = b""

    def heartbeat(self, *, handed_over: bool) -> bytes:  # noqa: ARG002 - what it says fits anywhere
        """A keep-alive."""
        return self._dialect.heartbeat(self._model)

    def failure(self, error: EdgeError) -> bytes:
        """The whole stream of an answer that fails before it begins, where its client acts on that alone; or nothing.

        Codex shortens its conversation on a ``response.failed`` that says that it is too long, and not on a 400.
        """
        if self._dialect.surface is Surface.RESPONSES and error.too_long is not None:
            return failed_at_once(error, self._model, self.request_id)
        return b""

    def error_event(self, error: EdgeError, request_id: str) -> bytes:
        """The in-band error."""
        return self._dialect.error_event(error, request_id, self.before)
