"""OpenAI Responses: typed events with sequence numbers, ended by exactly one of completed, incomplete or failed.

In: the upstream's bytes. Out: batches; heartbeats and errors in the surface's shape. Must not: change an event's bytes.
Format: https://platform.openai.com/docs/api-reference/responses-streaming. Codex ignores comments for its idle timer,
so that the heartbeat is an event as soon as ``response.created`` is out; before it only a comment is safe.
"""

import re
import time
from typing import Any

from edge.errors import EdgeError
from edge.protocol.chat import read_usage
from edge.protocol.codec import Seen, SeenError, SseCodec
from edge.protocol.collect_responses import ResponsesCollector
from edge.protocol.dialect import Collector
from edge.protocol.json_text import dumps
from edge.protocol.request import Prepared
from edge.protocol.shapes import is_responses_error, openai_body, responses_error, upstream_said
from edge.protocol.sse import COMMENT_HEARTBEAT, SSE_TYPE, Event, encode
from edge.protocol.surface import Surface

_TEXT = re.compile(rb"(?!)")  # none: each delta has a number of its own, so that no mould would fit the next
_HEAD = b"event: response.output_text.delta\ndata: {"
_START = b"\n\n" + _HEAD
_JOINT = b"}" + _START
_SEQUENCE = b'"sequence_number":'
_EMPTY = (b'"delta":""', b'"delta": ""')
_NUMBER_BYTES = 24  # spaces and 64 bits
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesCodec(SseCodec):
    """Reads a Responses stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes, _TEXT)
        self._count = self._deltas
        self._done = False
        self._sequence = b""  # bytes that begin with the last number: read only when a heartbeat needs it

    def finished(self, *, clean_eof: bool) -> bool:  # noqa: ARG002 - the final event is finish and terminator in one
        """One of the three final events has come."""
        return self._done

    def heartbeat(self, *, handed_over: bool) -> bytes:
        """A ``keepalive`` event once ``response.created`` is out, a comment before."""
        if not handed_over:
            return COMMENT_HEARTBEAT
        return keepalive(self._last())

    def error_event(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - the event has no place for it
        """See ``dialect.Codec.error_event``."""
        return error_event(error, self._last() + 1)

    def _last(self) -> int:
        return _number(self._sequence)

    def _deltas(self, whole: bytes) -> int:
        """How many text deltas there are if there is nothing else; in place of a mould."""
        count = _deltas(whole)
        at = whole.rfind(_SEQUENCE) if count else -1
        if at >= 0:
            at += len(_SEQUENCE)
            self._sequence = whole[at : at + _NUMBER_BYTES]
        return count

    def _collect_run(self, run: bytes) -> None:
        """Nothing: the final event holds the whole answer."""

    def _observe(self, event: Event) -> Seen:
        if event.data.strip() == b"[DONE]":
            return Seen.DROP  # the surface has none; vLLM sends it
        payload = self._decoded(event)
        if not isinstance(payload, dict):
            return Seen.PRELUDE
        kind = str(event.event or payload.get("type"))
        if kind == "error" or (payload.get("error") and not kind.startswith("response.")):
            relay = event.event == "error" and is_responses_error(payload)
            raise SeenError(upstream_said(payload, 502), relay=relay)
        number = payload.get("sequence_number")
        if isinstance(number, int):
            self._sequence = b"%d" % number
        return self._event(kind, payload)

    def _event(self, kind: str, payload: dict[str, Any]) -> Seen:
        if kind == "keepalive":
            return Seen.DROP
        if kind in _FINAL:
            self._done = True
            response = payload.get("response")
            response = response if isinstance(response, dict) else {}
            usage = response.get("usage")
            if isinstance(usage, dict):
                self.usage = read_usage(usage)
            if kind == "response.failed":
                raise SeenError(upstream_said({"error": response.get("error")}, 502), relay=True, final=True)
            return Seen.END
        return Seen.TOKEN if kind.endswith(".delta") and payload.get("delta") != "" else Seen.PRELUDE


def keepalive(number: int) -> bytes:
    """A heartbeat; it takes the last event's number, since it is none of the answer's."""
    return encode({"type": "keepalive", "sequence_number": number}, "keepalive")


def error_event(error: EdgeError, number: int) -> bytes:
    """The surface's error is flat."""
    return encode({"type": "error", **responses_error(error), "sequence_number": number}, "error")


def failed_at_once(error: EdgeError, model: str, request_id: str) -> bytes:
    """A stream that is nothing but a failure: the events ``error`` and ``response.failed``, its regular end."""
    inner = openai_body(error)["error"]
    response = {
        "id": f"resp_{request_id}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "failed",
        "model": model,
        "output": [],
        "error": {"code": inner.get("code"), "message": inner.get("message")},
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": None,
        "tool_choice": "auto",
        "tools": [],
        "top_p": None,
        "usage": None,
    }
    failed = encode({"type": "response.failed", "sequence_number": 1, "response": response}, "response.failed")
    return error_event(error, 0) + failed


def _deltas(whole: bytes) -> int:
    # Inside JSON a line end is always escaped, so model text cannot forge a joint.
    if not (whole.startswith(_HEAD) and whole.endswith(b"}\n\n")):
        return 0
    joints = whole.count(_JOINT)
    alike = whole.count(_START) == joints and whole.count(b"\ndata") == joints + 1 and b"\r" not in whole
    return joints + 1 if alike and not any(empty in whole for empty in _EMPTY) else 0


def _number(digits: bytes) -> int:
    digits = digits.lstrip()
    end = 0
    while digits[end : end + 1].isdigit():
        end += 1
    return int(digits[:end] or b"0")


class ResponsesDialect:
    """``/v1/responses``."""

    surface = Surface.RESPONSES
    stream_type = SSE_TYPE

    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> ResponsesCodec:  # noqa: ARG002
        """See ``dialect.Dialect``; neither the request nor a repair changes how Responses streams are read."""
        return ResponsesCodec(max_event_bytes)

    def collector(self, prepared: Prepared) -> Collector:  # noqa: ARG002 - the stream tells all
        """See ``dialect.Dialect``."""
        return ResponsesCollector()

    def heartbeat(self, model: str) -> bytes:  # noqa: ARG002 - it names none
        """See ``dialect.Dialect``."""
        return COMMENT_HEARTBEAT

    def error_event(self, error: EdgeError, request_id: str, before: bytes) -> bytes:  # noqa: ARG002 - no place for it
        """See ``dialect.Dialect``; it has the number after the last one."""
        _, found, digits = before.rpartition(_SEQUENCE)
        return error_event(error, _number(digits) + 1 if found else 0)

    def error_body(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - it is in the header
        """OpenAI's envelope."""
        return dumps(openai_body(error))
