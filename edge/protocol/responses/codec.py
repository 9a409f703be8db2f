"""OpenAI Responses: typed events with sequence numbers, ended by exactly one of completed, incomplete or failed.

In: the upstream's bytes. Out: batches; heartbeats and errors in the surface's shape. Must not: change an event's bytes.
Format: https://platform.openai.com/docs/api-reference/responses-streaming. Codex ignores comments for its idle timer,
so that the heartbeat is an event as soon as ``response.created`` is out; before it only a comment is safe. An error is
followed by ``response.failed``, since Codex reads only that.
"""

import re
import time
from typing import Any

from edge.errors import EdgeError
from edge.protocol.codec import Seen, SeenError, SseCodec
from edge.protocol.dialect import BaseDialect, Collector, Opened
from edge.protocol.json_text import dumps, loads
from edge.protocol.openai_usage import read_usage
from edge.protocol.request import Prepared
from edge.protocol.responses.collect import ResponsesCollector
from edge.protocol.shapes import is_responses_error, openai_body, responses_error, upstream_said
from edge.protocol.sse import COMMENT_HEARTBEAT, SSE_TYPE, Event, encode, events
from edge.protocol.surface import Surface

_TEXT = re.compile(rb"(?!)")  # none: each delta has a number of its own, so that no mould would fit the next
_HEAD = b"event: response.output_text.delta\ndata: {"
_START = b"\n\n" + _HEAD
_JOINT = b"}" + _START
_SEQUENCE = b'"sequence_number":'
_EMPTY = (b'"delta":""', b'"delta": ""')
_NUMBER_BYTES = 24  # spaces and 64 bits
_CREATED = "response.created"
# Of a failed response: those of the surface that Edge's errors have, and those that Codex acts on. Typed clients know
# few others; the error event before it has whatever code there is.
_FAILED_CODES = (
    "rate_limit_exceeded", "invalid_prompt", "context_length_exceeded", "insufficient_quota", "server_is_overloaded",
    "slow_down", "usage_not_included",
)  # fmt: skip
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesCodec(SseCodec):
    """Reads a Responses stream."""

    def __init__(self, max_event_bytes: int) -> None:
        super().__init__(max_event_bytes, _TEXT)
        self._count = self._deltas
        self._done = False
        self._sequence = b""  # bytes that begin with the last number: read only when a heartbeat needs it
        self._opened: Opened | None = None  # by the event that the client has
        self._merges = False  # that was not this upstream's
        self._shift: int | None = None  # from the upstream's numbers to the client's, where they are merged

    def finished(self, *, clean_eof: bool) -> bool:  # noqa: ARG002 - the final event is finish and terminator in one
        """One of the three final events has come."""
        return self._done

    def begun(self, opened: Opened) -> None:
        """See ``dialect.Codec.begun``."""
        self._opened, self._merges = opened, True
        self._sequence = b"%d" % opened.number

    def heartbeat(self, *, lively: bool) -> bytes:  # noqa: ARG002 - it is an event like any other
        """A ``keepalive`` event."""
        return keepalive(self._last())

    def error_event(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - the event has no place for it
        """See ``dialect.Codec.error_event``."""
        number = self._last() + 1
        self._sequence = b"%d" % number
        return error_event(error, number)

    def after_error(self, error: EdgeError, request_id: str) -> bytes:
        """See ``dialect.Codec.after_error``."""
        return failed_event(error, self._last() + 1, self._opened or _unknown(request_id))

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
        if self._merges:
            self._instead = b""  # of an event before, which was dropped
            if kind == _CREATED:
                self._renumber(payload, first=True)
                return Seen.DROP
            self._merge(event, payload)
        number = payload.get("sequence_number")
        broken = kind == "error" or (payload.get("error") and not kind.startswith("response."))
        relay = event.event == "error" and is_responses_error(payload)
        if isinstance(number, int) and (relay or not broken):
            self._sequence = b"%d" % number
        if broken:
            raise SeenError(upstream_said(payload, 502), relay=relay)
        if kind == _CREATED:
            self._opened = _opened(payload)
        return self._event(kind, payload)

    def _merge(self, event: Event, payload: dict[str, Any]) -> None:
        """Have an event agree with the ``response.created`` that the client has."""
        changed = self._renumber(payload, first=False)
        response, opened = payload.get("response"), self._opened
        if isinstance(response, dict) and opened is not None:
            payload["response"] = {**response, "id": opened.id, "created_at": opened.created_at}
            changed = True
        if changed:
            self._instead = encode(payload, event.event or None)

    def _renumber(self, payload: dict[str, Any], *, first: bool) -> bool:
        """Put the client's number in place of the upstream's; whether that is another one.

        All servers that are known begin with 0, as Edge does, so that none is. Where one does not, each event has to be
        decoded and written anew.
        """
        number = payload.get("sequence_number")
        if not isinstance(number, int) or self._opened is None:
            return False
        if self._shift is None:
            self._shift = self._opened.number + (not first) - number
            if self._shift:
                self._count = _none
        payload["sequence_number"] = number + self._shift
        return self._shift != 0

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


def found_created(held: bytes) -> tuple[bytes, Opened] | None:
    """See ``openings.Opening.found``."""
    first = next(events(held), None)
    if first is None:
        return None
    try:
        payload = loads(first.data)
    except ValueError:
        return None
    if not isinstance(payload, dict) or _CREATED not in (first.event, payload.get("type")):
        return None
    return held[: first.end], _opened(payload)


def _opened(payload: dict[str, Any]) -> Opened:
    response, number = payload.get("response"), payload.get("sequence_number")
    told = response if isinstance(response, dict) else {}
    at = told.get("created_at")
    return Opened(
        str(told.get("id")), int(at) if isinstance(at, int | float) else 0, str(told.get("model")),
        number if isinstance(number, int) else 0,
    )  # fmt: skip


def _unknown(request_id: str) -> Opened:
    """Of an answer whose beginning nobody here has seen."""
    return Opened(f"resp_{request_id}", int(time.time()), "")


def created_event(opened: Opened) -> bytes:
    """A response of which nothing is known yet."""
    return encode(
        {"type": _CREATED, "sequence_number": opened.number, "response": _empty(opened, "in_progress")}, _CREATED
    )


def failed_event(error: EdgeError, number: int, opened: Opened, response: dict[str, Any] | None = None) -> bytes:
    """The surface's end of an answer that failed; ``response``: as far as it got."""
    code = openai_body(error)["error"].get("code")
    told = {"code": code if code in _FAILED_CODES else "server_error", "message": error.message}
    failed = {**(response or _empty(opened, "failed")), "status": "failed", "error": told}
    kind = "response.failed"
    return encode({"type": kind, "sequence_number": number, "response": failed}, kind)


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


def _none(run: bytes) -> int:  # noqa: ARG001
    return 0


def keepalive(number: int) -> bytes:
    """A heartbeat; it takes the last event's number, since it is none of the answer's."""
    return encode({"type": "keepalive", "sequence_number": number}, "keepalive")


def error_event(error: EdgeError, number: int) -> bytes:
    """The surface's error is flat."""
    return encode({"type": "error", **responses_error(error), "sequence_number": number}, "error")


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


def _last_number(before: bytes) -> int:
    """The number of the last of these events; -1 if none has any."""
    _, found, digits = before.rpartition(_SEQUENCE)
    return _number(digits) if found else -1


class ResponsesDialect(BaseDialect):
    """``/v1/responses``."""

    surface = Surface.RESPONSES
    stream_type = SSE_TYPE

    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> ResponsesCodec:  # noqa: ARG002
        """See ``dialect.Dialect``; neither the request nor a repair changes how Responses streams are read."""
        return ResponsesCodec(max_event_bytes)

    def collector(self, prepared: Prepared) -> Collector:  # noqa: ARG002 - the stream tells all
        """See ``dialect.Dialect``."""
        return ResponsesCollector()

    def heartbeat(self, model: str, before: bytes, *, lively: bool) -> bytes:  # noqa: ARG002 - see the codec
        """See ``dialect.Dialect``; before ``response.created`` only a comment is safe."""
        return keepalive(_last_number(before)) if before else COMMENT_HEARTBEAT

    def error_event(self, error: EdgeError, request_id: str, before: bytes) -> bytes:  # noqa: ARG002 - no place for it
        """See ``dialect.Dialect``; it has the number after the last one."""
        return error_event(error, _last_number(before) + 1)

    def after_error(self, error: EdgeError, request_id: str, before: bytes) -> bytes:
        """See ``dialect.Dialect``."""
        found = found_created(before)
        return failed_event(error, _last_number(before) + 1, found[1] if found else _unknown(request_id))

    def error_body(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - it is in the header
        """OpenAI's envelope."""
        return dumps(openai_body(error))
