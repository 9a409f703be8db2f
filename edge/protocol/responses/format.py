"""What Edge says in OpenAI Responses: numbered events, and ``response.failed`` behind an error.

In, out, must not: see ``protocol.surface_format``. Codex ignores comments for its idle timer, so that the heartbeat is
an event as soon as ``response.created`` is out; before it only a comment is safe. Codex gives up on a stream without
events after 300 s, so that ``response.created`` goes out with the status. An error is followed by ``response.failed``,
since Codex reads only that.
"""

import time
from typing import Any

from edge.errors import EdgeError
from edge.protocol.json_text import loads
from edge.protocol.shapes import openai_body, responses_error
from edge.protocol.sse import COMMENT_HEARTBEAT, encode, events
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat

CREATED = "response.created"
_KEEPALIVE = b"event: keepalive\n"
SEQUENCE = b'"sequence_number":'
NUMBER_BYTES = 24  # spaces and 64 bits
# Of a failed response: those of the surface that Edge's errors have, and those that Codex acts on. Typed clients know
# few others; the error event before it has whatever code there is.
_FAILED_CODES = (
    "rate_limit_exceeded", "invalid_prompt", "context_length_exceeded", "insufficient_quota", "server_is_overloaded",
    "slow_down", "usage_not_included",
)  # fmt: skip


class ResponsesFormat(SurfaceFormat):
    """A ``SurfaceFormat`` of numbered events."""

    __slots__ = ()

    id_prefix = "resp_"
    opens_at_commit = True

    def beat(self, progress: Progress | None, *, lively: bool) -> bytes:  # noqa: ARG002 - it is an event like any other
        """A ``keepalive`` event; before ``response.created`` only a comment is safe."""
        return COMMENT_HEARTBEAT if progress is None else keepalive(progress.sequence)

    def queued(self, beat: bytes, place: bytes) -> bytes:
        """A ``keepalive`` has the comment in it."""
        return beat[:-1] + place if beat.startswith(_KEEPALIVE) else super().queued(beat, place)

    def error(self, error: EdgeError, progress: Progress) -> bytes:
        """The surface's error is flat, and has the number after the last one."""
        sequence = self.next_sequence(progress)
        return encode({"type": "error", **responses_error(error), "sequence_number": sequence}, "error")

    def failed(self, error: EdgeError, progress: Progress) -> bytes:
        """The surface's end of an answer that failed, with the items that were whole."""
        opened = progress.opened or self.opened or Opened(f"resp_{self.request_id}", int(time.time()), "")
        code = openai_body(error)["error"].get("code")
        fields = {"code": code if code in _FAILED_CODES else "server_error", "message": error.message}
        response = {**(progress.response or _empty(opened, "failed")), "status": "failed", "error": fields}
        kind = "response.failed"
        return encode({"type": kind, "sequence_number": self.next_sequence(progress), "response": response}, kind)

    def fails_in_stream(self, error: EdgeError) -> bool:
        """Codex shortens its conversation on a ``response.failed`` that says that it is too long, and not on a 400."""
        return error.too_long is not None

    def found(self, held: bytes) -> tuple[bytes, Opened] | None:
        """The upstream's ``response.created``."""
        return found_created(held)

    def opening(self, opened: Opened) -> bytes:
        """A ``response.created``."""
        return created_event(opened)

    def read(self, before: bytes) -> Progress:
        """The last number; what began the answer may be among these events."""
        found = None if self.opened is not None else found_created(before)
        return Progress(sequence=_last_number(before), opened=found and found[1])


def found_created(held: bytes) -> tuple[bytes, Opened] | None:
    """The stream's own ``response.created``, if these whole events begin with it; and what it says."""
    first = next(events(held), None)
    if first is None:
        return None
    try:
        payload = loads(first.data)
    except ValueError:
        return None
    if not isinstance(payload, dict) or CREATED not in (first.event, payload.get("type")):
        return None
    return held[: first.end], read_opened(payload)


def read_opened(payload: dict[str, Any]) -> Opened:
    """What a ``response.created`` says."""
    response, number = payload.get("response"), payload.get("sequence_number")
    fields = response if isinstance(response, dict) else {}
    at = fields.get("created_at")
    return Opened(
        str(fields.get("id")), int(at) if isinstance(at, int | float) else 0, str(fields.get("model")),
        number if isinstance(number, int) else 0,
    )  # fmt: skip


def created_event(opened: Opened) -> bytes:
    """A response of which nothing is known yet."""
    return encode(
        {"type": CREATED, "sequence_number": opened.number, "response": _empty(opened, "in_progress")}, CREATED
    )


def _empty(opened: Opened, status: str) -> dict[str, Any]:
    return {
        "id": opened.id,
        "object": "response",
        "created_at": opened.created_at,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": opened.model,
        "output": [],
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }


def keepalive(number: int) -> bytes:
    """A heartbeat; it takes the last event's number, since it is none of the answer's."""
    return encode({"type": "keepalive", "sequence_number": number}, "keepalive")


def number(digits: bytes) -> int:
    """The number that these bytes begin with; 0 if they begin with none."""
    digits = digits.lstrip()
    end = 0
    while digits[end : end + 1].isdigit():
        end += 1
    return int(digits[:end] or b"0")


def _last_number(before: bytes) -> int:
    """The number of the last of these events; -1 if none has any."""
    _, found, digits = before.rpartition(SEQUENCE)
    return number(digits) if found else -1
