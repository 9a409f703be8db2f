"""OpenAI Responses: typed events with sequence numbers, ended by exactly one of completed, incomplete or failed.

In: the upstream's bytes. Out: batches; heartbeats and errors in the surface's shape. Must not: change an event's bytes.
Format: https://platform.openai.com/docs/api-reference/responses-streaming. Codex ignores comments for its idle timer,
so that the heartbeat is an event as soon as ``response.created`` is out; before it only a comment is safe. An error is
followed by ``response.failed``, since Codex reads only that.
"""

import re
from typing import Any

from typing_extensions import override

from edge.protocol.codec import Seen, SeenError, SseCodec
from edge.protocol.dialect import Collector, Dialect
from edge.protocol.openai_usage import read_usage
from edge.protocol.request import Prepared
from edge.protocol.responses.collect import ResponsesCollector
from edge.protocol.responses.format import CREATED, NUMBER_BYTES, SEQUENCE, ResponsesFormat, number, read_opened
from edge.protocol.shapes import is_responses_error, upstream_said
from edge.protocol.sse import SSE_TYPE, Event, encode
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat

_TEXT = re.compile(rb"(?!)")  # none: each delta has a number of its own, so that no mould would fit the next
_HEAD = b"event: response.output_text.delta\ndata: {"
_START = b"\n\n" + _HEAD
_JOINT = b"}" + _START
_EMPTY = (b'"delta":""', b'"delta": ""')
_FINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


class ResponsesCodec(SseCodec):
    """Reads a Responses stream."""

    __slots__ = ("_done", "_merges", "_opened", "_sequence", "_shift")

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

    @override
    def begun(self, opened: Opened) -> None:
        self._opened, self._merges = opened, True
        self._sequence = b"%d" % opened.number

    @override
    def progress(self) -> Progress:
        return Progress(sequence=number(self._sequence), opened=self._opened)

    def _deltas(self, whole: bytes) -> int:
        """How many text deltas there are if there is nothing else; in place of a mould."""
        count = _deltas(whole)
        at = whole.rfind(SEQUENCE) if count else -1
        if at >= 0:
            at += len(SEQUENCE)
            self._sequence = whole[at : at + NUMBER_BYTES]
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
            if kind == CREATED:
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
        if kind == CREATED:
            self._opened = read_opened(payload)
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


def _none(run: bytes) -> int:  # noqa: ARG001
    return 0


def _deltas(whole: bytes) -> int:
    # Inside JSON a line end is always escaped, so model text cannot forge a joint.
    if not (whole.startswith(_HEAD) and whole.endswith(b"}\n\n")):
        return 0
    joints = whole.count(_JOINT)
    alike = whole.count(_START) == joints and whole.count(b"\ndata") == joints + 1 and b"\r" not in whole
    return joints + 1 if alike and not any(empty in whole for empty in _EMPTY) else 0


class ResponsesDialect(Dialect):
    """``/v1/responses``."""

    surface = Surface.RESPONSES
    stream_type = SSE_TYPE
    format: type[SurfaceFormat] = ResponsesFormat

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> ResponsesCodec:
        """Neither the request nor a repair changes how Responses streams are read."""
        return ResponsesCodec(max_event_bytes)

    @override
    def collector(self, prepared: Prepared) -> Collector:
        return ResponsesCollector()
