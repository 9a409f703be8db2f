"""Streams of transcripts: OpenAI's ``transcript.text.*`` events, and the chat-like chunks that vLLM sends instead.

In: the upstream's bytes. Out: batches. Must not: change an event's bytes.
Format: https://platform.openai.com/docs/api-reference/audio/transcript-text-delta-event
"""

from typing import Any

from typing_extensions import override

from edge.protocol.chat.codec import ChatCodec, ChatDialect
from edge.protocol.codec import Seen
from edge.protocol.openai_usage import read_usage
from edge.protocol.request import Prepared

_EVENTS = "transcript.text."
_LAST = "transcript.text.done"


class TranscriptCodec(ChatCodec):
    """Reads either kind of stream: OpenAI's ends with its last event, the other as a chat does."""

    __slots__ = ()

    def _chunk(self, chunk: dict[str, Any]) -> Seen:
        kind = chunk.get("type")
        if not isinstance(kind, str) or not kind.startswith(_EVENTS):
            return super()._chunk(chunk)
        if kind != _LAST:
            return Seen.TOKEN
        usage = chunk.get("usage")
        if isinstance(usage, dict):
            self.usage = read_usage(usage)
        self._closed |= {0}
        return Seen.END


class TranscriptDialect(ChatDialect):
    """``/v1/audio/transcriptions`` and ``/v1/audio/translations``."""

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> TranscriptCodec:
        return TranscriptCodec(prepared, max_event_bytes, repairs)
