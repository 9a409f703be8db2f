"""What Edge says in Anthropic Messages: pings, events that change nothing, and ``error``.

In, out, must not: see ``protocol.surface_format``. Claude Code gives up on a stream with nothing but pings after 30 of
them, and allows no event that it would count before ``message_start``.
"""

from collections import deque
from typing import Any

from edge.errors import EdgeError
from edge.protocol.batch import Usage
from edge.protocol.json_text import dumps, loads
from edge.protocol.shapes import anthropic_body
from edge.protocol.sse import encode, events
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat

PING = encode({"type": "ping"}, "ping")
# A delta that adds nothing, by the type of the block it is for.
_CALL_DELTA = {"type": "input_json_delta", "partial_json": ""}
_NO_CHANGE: dict[str, dict[str, str]] = {
    "text": {"type": "text_delta", "text": ""},
    "thinking": {"type": "thinking_delta", "thinking": ""},
    "tool_use": _CALL_DELTA,
    "server_tool_use": _CALL_DELTA,
    "mcp_tool_use": _CALL_DELTA,
}
# The type of the block that a delta is for.
_BLOCK_OF = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}


class MessagesFormat(SurfaceFormat):
    """A ``SurfaceFormat`` of Messages events."""

    __slots__ = ()

    terminator = encode({"type": "message_stop"}, "message_stop")
    id_prefix = "msg_"

    def beat(self, progress: Progress | None, *, lively: bool) -> bytes:
        """The surface's own ``ping``, or an event that changes nothing: never that before ``message_start``."""
        return no_change(progress.block, progress.usage) if lively and progress is not None else PING

    def error(self, error: EdgeError, progress: Progress) -> bytes:  # noqa: ARG002 - it needs none
        """The surface's own ``error`` event."""
        return encode(anthropic_body(error, self.request_id), "error")

    def error_body(self, error: EdgeError) -> bytes:
        """Anthropic's envelope."""
        return dumps(anthropic_body(error, self.request_id))

    def found(self, held: bytes) -> tuple[bytes, Opened] | None:
        """The upstream's ``message_start``."""
        return found_start(held)

    def opening(self, opened: Opened) -> bytes:
        """A ``message_start``."""
        return start_event(opened)

    def read(self, before: bytes) -> Progress:
        """The last event says which block is open."""
        last = deque(events(before), maxlen=1)
        try:
            payload = loads(last[0].data) if last else None
        except ValueError:
            payload = None
        return Progress(block=opened_block(payload) if isinstance(payload, dict) else None)


def no_change(block: tuple[int, str] | None, usage: Usage | None) -> bytes:
    """An event that clients take for a sign of work, and that changes nothing.

    Args:
        block: Index and type of the one that is open.
        usage: So far.
    """
    delta = None if block is None else _NO_CHANGE.get(block[1])
    if block is None or delta is None:
        return unstopped({"output_tokens": 0 if usage is None else usage.completion or 0})
    return encode({"type": "content_block_delta", "index": block[0], "delta": delta}, "content_block_delta")


def unstopped(usage: dict[str, Any]) -> bytes:
    """A ``message_delta`` that stops nothing and says the usage so far."""
    delta = {"stop_reason": None, "stop_sequence": None}
    return encode({"type": "message_delta", "delta": delta, "usage": usage}, "message_delta")


def opened_block(payload: dict[str, Any]) -> tuple[int, str] | None:
    """The block that this event begins, or adds to; None if it does neither."""
    block, delta, index = payload.get("content_block"), payload.get("delta"), payload.get("index")
    if not isinstance(index, int):
        return None
    if isinstance(block, dict):
        return index, str(block.get("type"))
    kind = _BLOCK_OF.get(str(delta.get("type"))) if isinstance(delta, dict) else None
    return None if kind is None else (index, kind)


def found_start(held: bytes) -> tuple[bytes, Opened] | None:
    """The stream's own ``message_start``, if these whole events begin with it; and what it says."""
    first = next(events(held), None)
    if first is None:
        return None
    try:
        payload = loads(first.data)
    except ValueError:
        return None
    message = payload.get("message") if isinstance(payload, dict) else None
    if not isinstance(message, dict) or "message_start" not in (first.event, payload.get("type")):
        return None
    return held[: first.end], Opened(str(message.get("id")), 0, str(message.get("model")))


def start_event(opened: Opened) -> bytes:
    """A message of which nothing is known yet."""
    return encode({"type": "message_start", "message": empty_message(opened.id, opened.model)}, "message_start")


def empty_message(identity: str, model: str) -> dict[str, object]:
    """A message that begins."""
    return {
        "id": identity,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 0, "output_tokens": 0},
    }
