"""Chat completions and legacy completions: the two OpenAI surfaces whose streams are ``data:`` lines and ``[DONE]``.

In: the upstream's bytes. Out: batches; heartbeats and errors in the surface's shape. Must not: change the bytes of an
event that no repair has to mend.
Format: https://platform.openai.com/docs/api-reference/chat/streaming, and what llama.cpp and vLLM make of it.
"""

import re
from typing import Any

from typing_extensions import override

from edge.errors import UpstreamSaid
from edge.protocol.batch import Batch
from edge.protocol.chat.collect import ChatCollector, CompletionsCollector
from edge.protocol.chat.format import ChatFormat
from edge.protocol.chat.repairs import LONG_LINE, MENDED, SPLIT_LONG, Mended, Mender, long_line
from edge.protocol.codec import Kept, Seen, SeenError, SseCodec
from edge.protocol.dialect import BadStream, Collector, Dialect
from edge.protocol.finish_reasons import broke, broke_message, known
from edge.protocol.json_text import dumps
from edge.protocol.openai_usage import read_usage
from edge.protocol.request import Prepared
from edge.protocol.shapes import is_error, is_openai, upstream_said
from edge.protocol.sse import SSE_TYPE, Event
from edge.protocol.surface import Surface
from edge.protocol.surface_format import SurfaceFormat

DROP_NULL_EVENTS = "drop-null-events"

_TEXT = re.compile(rb'"(?:content|reasoning_content|reasoning|text|arguments)": ?"')
# What an event may hold beside text that has to be looked at: with a name a call begins.
_MORE = re.compile(rb'"finish_reason": ?"|"usage": ?\{|"error": ?[^n]|"name": ?"')

_SHOWN_CHARS = 40
_SOMETHING = bytearray(1)  # instead of what the splitter holds: no read is plain while an event is held
# Delta fields that are not generated content, whatever they hold.
_NOT_CONTENT = frozenset({"role"})
_OF_A_CALL = frozenset({"index", "id", "type", "function"})


class ChatCodec(SseCodec):
    """Reads a chat completions or a completions stream."""

    __slots__ = (
        "_choices",
        "_closed",
        "_drop_null",
        "_final",
        "_final_fields",
        "_mended",
        "_mender",
        "_open",
        "_split_long",
        "_strip_usage",
    )

    def __init__(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> None:
        super().__init__(max_event_bytes, _TEXT)
        self._strip_usage = prepared.strip_usage
        self._choices = prepared.choices
        self._drop_null = DROP_NULL_EVENTS in repairs
        self._mender = Mender(repairs) if repairs & MENDED else None
        self._mended: Mended | None = None  # what goes out instead of the event that was observed last
        self._final: tuple[bytes, int, int] | None = None  # held: its bytes, events and tokens
        self._final_fields: frozenset[str] = frozenset()
        self._split_long = SPLIT_LONG in repairs
        if self._split_long:
            self._most = min(self._most, LONG_LINE)
        # Choices that have begun, and that have ended. Empty ones are all the same object; a set takes 216 bytes.
        self._open: frozenset[int] = frozenset()
        self._closed: frozenset[int] = frozenset()

    def finished(self, *, clean_eof: bool) -> bool:
        """All choices that began have finished; without a terminator, also all that were asked for."""
        if not self._closed or self._open - self._closed:
            return False
        return not clean_eof or len(self._closed) >= self._choices

    def _is_text(self, token: bytes) -> bool:
        """Several choices are always walked: it takes the index of each event to know when all have finished.

        Nor is an event learnt from that had to be mended: its twins have the same fault.
        """
        return self._mended is None and self._choices == 1 and _MORE.search(token) is None

    def _keep(self, event: Event, kept: Kept, tokens: int = 0) -> None:
        if self._mended is None:
            super()._keep(event, kept, tokens)
            return
        kept.add(self._mended.data, len(self._mended.chunks), tokens)
        if self._collector is not None:
            for chunk in self._mended.chunks:
                self._collector.add(chunk)

    def _alike(self, whole: bytes, at: int) -> int:
        return long_line(whole, at) if self._split_long else len(whole)

    def _observe(self, event: Event) -> Seen:
        self._mended = None
        if event.data.strip() == b"[DONE]":
            return Seen.END
        chunk = self._decoded(event)
        if not isinstance(chunk, dict):
            if is_error(chunk):
                raise SeenError(upstream_said(chunk, 502), relay=False)
            return Seen.DROP if chunk is None and self._drop_null else Seen.PRELUDE
        if chunk.get("error") or event.event == "error":
            raise SeenError(upstream_said(chunk, 502), relay=is_openai(chunk))
        seen = self._chunk(chunk)
        if self._mender is not None and seen is not Seen.DROP:
            self._mended = self._mender.mend(chunk, event)
        if self._strip_usage and self._collector is None and seen is not Seen.DROP and _ends_choice(chunk):
            self._hold(event, chunk, tokens=int(seen is Seen.TOKEN))
            return Seen.HOLD
        return seen

    def _hold(self, event: Event, chunk: dict[str, Any], tokens: int) -> None:
        mended = self._mended
        self._final = (event.raw, 1, tokens) if mended is None else (mended.data, len(mended.chunks), tokens)
        self._final_fields = frozenset(chunk)
        self._holding, self._held = True, _SOMETHING

    def _let_go(self, following: Event | None, kept: Kept) -> None:
        """Where usage is asked for, vLLM's fingerprint and llama.cpp's timings are in its event, not in the last one.

        The client did not ask for that event, and does not get it; what else is in it goes into the one before.
        """
        self._holding, self._held = False, self._splitter.held
        if self._final is None:
            return
        data, events, tokens = self._final
        self._final = None
        kept.add(_with(data, self._beside_usage(following)), events, tokens)

    def _beside_usage(self, event: Event | None) -> dict[str, Any]:
        if event is None or b'"usage"' not in event.data:
            return {}
        try:
            chunk = self._loads(event.data)
        except BadStream:
            return {}
        if not isinstance(chunk, dict) or chunk.get("choices") != [] or not isinstance(chunk.get("usage"), dict):
            return {}
        known = self._final_fields | {"usage"}
        return {name: value for name, value in chunk.items() if name not in known and value is not None}

    @override
    def eof(self) -> Batch:
        """Nothing is held any more."""
        batch = super().eof()
        if not self._holding:
            return batch
        kept = Kept()
        if batch.data:
            kept.add(batch.data, batch.events, batch.tokens)
        self._let_go(None, kept)
        return kept.batch()

    def _chunk(self, chunk: dict[str, Any]) -> Seen:
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = read_usage(usage)
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return Seen.PRELUDE
        if not choices and self._strip_usage and isinstance(usage, dict):
            return Seen.DROP
        content = False
        for choice in choices:
            if isinstance(choice, dict):
                content = self._choice(choice) or content
        return Seen.TOKEN if content else Seen.PRELUDE

    def _choice(self, choice: dict[str, Any]) -> bool:
        index = choice.get("index")
        number = index if isinstance(index, int) else 0
        if number not in self._open:
            self._open |= {number}
        finish = choice.get("finish_reason")
        if finish:
            self._finish(finish)
            self._closed |= {number}
        if choice.get("text"):
            return True
        delta = choice.get("delta")
        return isinstance(delta, dict) and any(_adds(key, value) for key, value in delta.items())

    def _finish(self, finish: object) -> None:
        if broke(finish):
            raise SeenError(UpstreamSaid(broke_message(finish), status=502), relay=False)
        if not known(finish):
            self.unknown_finish = str(finish)[:_SHOWN_CHARS]


def _with(data: bytes, more: dict[str, Any]) -> bytes:
    """An event, or the last of several, with further fields at the end of its object."""
    head = data.rstrip()
    if not more or not head.endswith(b"}"):
        return data
    return head[:-1] + b"," + dumps(more)[1:] + data[len(head) :]


def _ends_choice(chunk: dict[str, Any]) -> bool:
    """Whether a choice ends with it, so that usage may follow. llama.cpp sends it after each choice."""
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )


def _adds(key: str, value: Any) -> bool:
    """Whether a delta's field adds to the answer; servers also send empty ones, to show that they are alive."""
    if not value or key in _NOT_CONTENT:
        return False
    if key == "tool_calls" and isinstance(value, list):
        return any(map(_adds_to_call, value))
    return key != "function_call" or _adds_to_call({"function": value})


def _adds_to_call(call: object) -> bool:
    """Whether a part of a tool call says more than which call it is a part of."""
    if not isinstance(call, dict):
        return True
    said = call.get("function")
    if not isinstance(said, dict):
        return bool(call.get("id") or said or call.keys() - _OF_A_CALL)
    return bool(call.get("id") or said.get("name") or said.get("arguments"))


class ChatDialect(Dialect):
    """``/v1/chat/completions`` and ``/v1/completions``."""

    stream_type = SSE_TYPE
    format: type[SurfaceFormat] = ChatFormat

    def __init__(self, surface: Surface) -> None:
        self.surface = surface

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> ChatCodec:
        """Only chat completions are mended, text completions have none of those faults."""
        known = repairs if self.surface is Surface.CHAT else repairs - MENDED
        return ChatCodec(prepared, max_event_bytes, known)

    @override
    def collector(self, prepared: Prepared) -> Collector:
        return ChatCollector() if self.surface is Surface.CHAT else CompletionsCollector()
