"""What Edge itself says in one surface: heartbeats, errors, the early opening and the terminator.

In: errors, silences, and how far the answer has got (``Progress``). Out: events and error bodies of the surface.
Must not: end a stream, or read from an upstream.

Each surface has one such class, in ``protocol/<dialect>/format.py``. Generations use it before and after a codec
exists, replays use it for streams out of a store, and errors before the stream take their body from it.
"""

import math
import time
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from edge.errors import EdgeError
from edge.protocol.batch import Usage
from edge.protocol.json_text import dumps
from edge.protocol.shapes import openai_body
from edge.protocol.sse import COMMENT_HEARTBEAT, encode


class Opened(NamedTuple):
    """What the client has got of the event that begins an answer; all that follows has to agree with it.

    Attributes:
        id: Of the answer.
        created_at: Unix time, where the surface has it.
        model: As it went out.
        number: The event's own, on surfaces that number their events.
    """

    id: str
    created_at: int
    model: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an answer has got, as far as Edge's own events depend on it; a codec or an encoder hands it over.

    Attributes:
        sequence: Of the last event, on surfaces that number their events; -1 = none had a number.
        opened: What the event that began the answer said.
        block: Index and type of the content block that is open.
        usage: Reported so far.
        model: As the upstream spells it; None = as the client does.
        partial: Some of the answer has gone out.
        response: The response object so far, where the surface ends a failed answer with it.
        ended: A finished answer has its end among its events, so no terminator has to follow.
    """

    sequence: int = -1
    opened: Opened | None = None
    block: tuple[int, str] | None = None
    usage: Usage | None = None
    model: str | None = None
    partial: bool = False
    response: dict[str, Any] | None = None
    ended: bool = False


class SurfaceFormat:
    """What Edge says in one surface, for one request; this base is OpenAI's shape with comments as heartbeats.

    Where a method takes ``progress``, None means that no codec speaks: the events in ``before`` say how far it is.

    Attributes:
        terminator: Ends a finished stream whose upstream forgot to; empty where the finish event is itself the end.
        id_prefix: Of the answer that an early opening begins; empty where answers begin with no event of their own.
        opens_at_commit: An early opening goes out with the status, else when the first lively heartbeat is due.
        request_id: Goes into errors where the surface has a place for it.
        before: Whole events that came last, and before them the one that began the answer, if it went out early.
        opened: What that one has said.
    """

    __slots__ = ("_errors", "_model", "before", "opened", "request_id")

    terminator: ClassVar[bytes] = b""
    id_prefix: ClassVar[str] = ""
    opens_at_commit: ClassVar[bool] = False

    def __init__(self, model: str | None, request_id: str) -> None:
        self._model = model or ""
        self._errors = 0  # error events that Edge has made: they take numbers too
        self.request_id = request_id
        self.before = b""
        self.opened: Opened | None = None

    # --- what a surface may say otherwise -------------------------------------------------------------------------

    def beat(self, progress: Progress | None, *, lively: bool) -> bytes:  # noqa: ARG002 - a comment fits anywhere
        """A keep-alive that the surface's clients ignore; ``progress``: None before the first event.

        ``lively``: of the kind that clients take for a sign of work, where they count how many of the others follow
        each other. By default a comment: the SDKs would yield an event of any kind as a chunk.
        """
        return COMMENT_HEARTBEAT

    def queued(self, beat: bytes, place: bytes) -> bytes:
        """The heartbeat of a request that waits for a slot: ``beat``, with the comment ``place`` if there is room.

        A comment gives way to it. Other heartbeats stay as they are: a ping of Messages and a line of Ollama have no
        place for it, and clients show what they do not know.
        """
        return place if beat.startswith(b":") else beat

    def error(self, error: EdgeError, progress: Progress) -> bytes:  # noqa: ARG002 - the envelope has no place for it
        """The in-band error: an object under ``error``, since a string would lose its text in the Python SDK."""
        return encode(openai_body(error))

    def failed(self, error: EdgeError, progress: Progress) -> bytes:  # noqa: ARG002 - most surfaces end there
        """What the surface has follow its error event, Edge's or the upstream's; mostly nothing."""
        return b""

    def error_body(self, error: EdgeError) -> bytes:
        """The HTTP error body, one JSON object: OpenAI's envelope."""
        return dumps(openai_body(error))

    def fails_in_stream(self, error: EdgeError) -> bool:  # noqa: ARG002 - most clients act on the status
        """Whether a stream that fails before it begins is begun all the same, since its client acts on that alone."""
        return False

    def found(self, held: bytes) -> tuple[bytes, Opened] | None:  # noqa: ARG002 - most surfaces have no such event
        """The upstream's own event that begins an answer, if these whole events begin with it."""
        return None

    def opening(self, opened: Opened) -> bytes:  # noqa: ARG002 - likewise
        """The event that begins an answer, made by Edge."""
        return b""

    def read(self, before: bytes) -> Progress:  # noqa: ARG002 - what came before changes nothing for most
        """How far an answer is whose last events are these."""
        return Progress()

    # --- what generations and replays call ------------------------------------------------------------------------

    def heartbeat(self, progress: Progress | None = None, *, lively: bool) -> bytes:
        """A keep-alive."""
        if progress is None and self.before:
            progress = self.read(self.before)
        return self.beat(progress, lively=lively)

    def queued_heartbeat(self, position: int, estimate_s: float | None, *, lively: bool) -> bytes:
        """A keep-alive that says where in the queue the request is, in a form that no client takes for the answer.

        Args:
            position: From 1 on.
            estimate_s: About how long the request will wait; None = not known.
            lively: See ``beat``.
        """
        about = "" if estimate_s is None else f", about {max(1, math.ceil(estimate_s))} s"
        return self.queued(self.heartbeat(lively=lively), f": queued {position}{about}\n\n".encode())

    def error_event(self, error: EdgeError, progress: Progress | None = None) -> bytes:
        """The in-band error."""
        event = self.error(error, progress or self.read(self.before))
        self._errors += 1
        return event

    def after_error(self, error: EdgeError, progress: Progress | None = None) -> bytes:
        """What follows it."""
        return self.failed(error, progress or self.read(self.before))

    def next_sequence(self, progress: Progress) -> int:
        """The number of Edge's next event, on surfaces that number them."""
        return progress.sequence + self._errors + 1

    def opens(self, *, committing: bool) -> bool:
        """Whether the event that begins an answer goes out early: as the status does, or else in a long silence."""
        return bool(self.id_prefix) and (self.opens_at_commit or not committing)

    def begin(self, held: bytes, stream_id: str) -> tuple[bytes, bool]:
        """The event that begins the answer, and whether it is the upstream's own.

        Args:
            held: What has come of the upstream's events.
            stream_id: To make an id of.
        """
        found = self.found(held)
        if found is not None:
            event, self.opened = found
        else:
            identity = self.id_prefix + stream_id.removeprefix("st_")
            self.opened = Opened(identity, int(time.time()), self._model)
            event = self.opening(self.opened)
        # The upstream's own may repeat the whole request, which nobody needs again.
        self.before = self.opening(self.opened)
        return event, found is not None

    def heard(self, data: bytes) -> None:
        """These whole events went out."""
        self.learn(data)
        self.before = data

    def learn(self, data: bytes) -> None:
        """These whole events may be the first of the answer."""
        if self.opened is None and (found := self.found(data)) is not None:
            self.opened = found[1]
