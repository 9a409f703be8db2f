"""Anthropic Messages, streamed and not, and its token counting.

In: the upstream's bytes. Out: batches; heartbeats and errors in the surface's shape. Must not: change an event's bytes,
or make one up but for those that a stream cannot begin without.
Format: https://docs.anthropic.com/en/api/messages-streaming. The Python SDK dispatches on the ``event:`` line alone.
"""

import re
import secrets
from typing import Any

from typing_extensions import override

from edge.protocol.batch import Usage, count_in
from edge.protocol.codec import Kept, Seen, SeenError, SseCodec
from edge.protocol.dialect import Collector, Dialect
from edge.protocol.messages.collect import MessagesCollector
from edge.protocol.messages.format import MessagesFormat, empty_message, opened_block, unstopped
from edge.protocol.request import Prepared
from edge.protocol.shapes import is_anthropic, upstream_said
from edge.protocol.sse import SSE_TYPE, Event, encode
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat

_TEXT = re.compile(rb'"(?:text|thinking|partial_json)": ?"')
# Blocks that begin empty and are filled by deltas; any other block (a tool call's name, a server tool's result) is
# generated content by itself.
_EMPTY_BLOCKS = frozenset({"text", "thinking"})
MESSAGE_START = "message-start"
# By the type of a delta, the empty block that it can be of.
_BLOCKS: dict[object, dict[str, Any]] = {
    "text_delta": {"type": "text", "text": ""},
    "thinking_delta": {"type": "thinking", "thinking": "", "signature": ""},
}


class MessagesCodec(SseCodec):
    """Reads a Messages stream.

    Args:
        model: As the client wrote it.
        max_event_bytes: See ``SseCodec``.
        repairs: With ``message-start``, what a stream lacks at its beginning is made up.
    """

    __slots__ = ("_beginning", "_begun", "_open", "_stop_reason")

    def __init__(self, model: str | None, max_event_bytes: int, repairs: frozenset[str]) -> None:
        super().__init__(max_event_bytes, _TEXT)
        self._stop_reason = False
        self._beginning = _Beginning(model or "") if MESSAGE_START in repairs else None
        self._open: tuple[int, str] | None = None  # index and type of the block that is
        self._begun = False  # the client already has a message_start

    def finished(self, *, clean_eof: bool) -> bool:  # noqa: ARG002 - one choice: a stop reason is enough
        """A stop reason has come."""
        return self._stop_reason

    @override
    def begun(self, opened: Opened) -> None:
        self._begun = True
        if self._beginning is not None:
            self._beginning.started = True

    @override
    def progress(self) -> Progress:
        return Progress(block=self._open, usage=self.usage)

    def _observe(self, event: Event) -> Seen:
        if event.data.strip() == b"[DONE]":
            return Seen.DROP  # the surface has none; vLLM sends it
        payload = self._decoded(event)
        if not isinstance(payload, dict):
            return Seen.PRELUDE
        kind = event.event or payload.get("type")
        if kind == "error" or (payload.get("error") and "type" not in payload):
            raise SeenError(upstream_said(payload, 502), relay=event.event == "error" and is_anthropic(payload))
        if self._beginning is not None and self._beginning.repeated(str(kind), payload):
            self._event(str(kind), payload)
            return Seen.DROP
        return self._event(str(kind), payload)

    def _keep(self, event: Event, kept: Kept, tokens: int = 0) -> None:
        if self._beginning is not None:
            for payload in self._beginning.taken():
                kept.add(encode(payload, payload["type"]))
                if self._collector is not None:
                    self._collector.add(payload)
        super()._keep(event, kept, tokens)

    def _event(self, kind: str, payload: dict[str, Any]) -> Seen:
        match kind:
            case "ping":
                return Seen.DROP
            case "message_stop":
                return Seen.END
            case "content_block_delta":
                delta = payload.get("delta")
                return Seen.TOKEN if isinstance(delta, dict) and _adds(delta) else Seen.PRELUDE
            case "content_block_start":
                block = payload.get("content_block")
                self._open = opened_block(payload)
                empty = isinstance(block, dict) and str(block.get("type")) in _EMPTY_BLOCKS
                return Seen.PRELUDE if empty else Seen.TOKEN
            case "content_block_stop":
                self._open = None
            case "message_start":
                message = payload.get("message")
                self._use(message.get("usage") if isinstance(message, dict) else None)
                if self._begun:
                    return self._merged(message)
            case "message_delta":
                self._use(payload.get("usage"))
                delta = payload.get("delta")
                if isinstance(delta, dict) and delta.get("stop_reason"):
                    self._stop_reason = True
        return Seen.PRELUDE

    def _merged(self, message: object) -> Seen:
        """A second ``message_start`` is none; what it says of usage goes on as the surface says that in between."""
        usage = message.get("usage") if isinstance(message, dict) else None
        if not isinstance(usage, dict):
            return Seen.DROP
        self._instead = unstopped({"output_tokens": 0, **usage})
        return Seen.PRELUDE

    def _use(self, usage: object) -> None:
        if isinstance(usage, dict):
            read = read_usage(usage)
            self.usage = read if self.usage is None else self.usage.merged(read)


def _adds(delta: dict[str, Any]) -> bool:
    """Whether a delta adds anything to its block: some servers send empty ones to show that they are alive."""
    return any(value for key, value in delta.items() if key != "type")


class _Beginning:
    """What a stream has left out before the event at hand: its ``message_start``, or that of a block.

    llama.cpp holds back a token that is a part of a character, and the ``message_start`` that belongs to it for ever.
    """

    def __init__(self, model: str) -> None:
        self._model = model
        self.started = False
        self._made = False  # the message_start is ours
        self._blocks: frozenset[object] = frozenset()  # that have been started
        self._missing: list[dict[str, Any]] = []

    def repeated(self, kind: str, payload: dict[str, Any]) -> bool:
        """Note an event, and what has to come before it; whether Edge has sent it, so that it must not come again."""
        if kind == "ping":
            return False
        if kind == "message_start":
            self.started = True
            return self._made
        if not self.started:
            self.started = self._made = True
            self._missing.append(
                {"type": "message_start", "message": empty_message(f"msg_{secrets.token_hex(12)}", self._model)}
            )
        number = payload.get("index")
        if kind == "content_block_start":
            self._blocks |= {number}
        elif kind == "content_block_delta" and number not in self._blocks:
            self._blocks |= {number}
            delta = payload.get("delta")
            block = _BLOCKS.get(delta.get("type")) if isinstance(delta, dict) else None
            if block is not None:
                self._missing.append({"type": "content_block_start", "index": number, "content_block": block})
        return False

    def taken(self) -> list[dict[str, Any]]:
        """The events to send before the one at hand; they are not sent again."""
        missing, self._missing = self._missing, []
        return missing


def read_usage(usage: dict[str, Any]) -> Usage:
    """Anthropic's usage: ``input_tokens`` leaves out what was read from or written to the cache."""
    read, cached = count_in(usage, "input_tokens"), count_in(usage, "cache_read_input_tokens")
    written = count_in(usage, "cache_creation_input_tokens")
    return Usage(
        prompt=None if read is None else read + (cached or 0) + (written or 0),
        completion=count_in(usage, "output_tokens"),
        cached=cached,
    )


class MessagesDialect(Dialect):
    """``/v1/messages`` and ``/v1/messages/count_tokens``."""

    stream_type = SSE_TYPE
    format: type[SurfaceFormat] = MessagesFormat

    def __init__(self, surface: Surface) -> None:
        self.surface = surface

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> MessagesCodec:
        return MessagesCodec(prepared.model, max_event_bytes, repairs)

    @override
    def collector(self, prepared: Prepared) -> Collector:
        return MessagesCollector()
