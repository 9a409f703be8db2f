"""The session API's streams: named events, of which only Edge itself is the source.

In: canonical events. Out: events, errors and heartbeats. Must not: be relayed; no upstream speaks this; or number its
events, as every stream of this surface can be resumed, and its readers do that.
"""

import orjson
from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.dialect import Codec, Dialect, Said, TextCollector
from edge.protocol.events import Event, Finish, Reasoning, Refusal, Text
from edge.protocol.json_text import loads
from edge.protocol.openai_usage import usage_object
from edge.protocol.request import Prepared
from edge.protocol.session.format import SessionFormat
from edge.protocol.session.parse import Wanted, ours, read
from edge.protocol.sse import SSE_TYPE, encode
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.protocol.transcode_ports import Answering, BaseEncoder, Piece

_RETRY = b"retry: 1000\n"


def opening(wanted: Wanted, stream_id: str) -> bytes:
    """The first event, which gives the reader an id before there is anything to say.

    A reader that loses its connection without one would come back as a new request, and be answered anew.
    """
    if wanted.metadata:
        fields: dict[str, object] = {"session_id": wanted.session_id, "model": wanted.model, "stream_id": stream_id}
        return _RETRY + encode(fields, "metadata")
    return _RETRY + encode(_chunk("", 1), "message")


def _chunk(text: str, index: int) -> dict[str, object]:
    return {"delta": text, "done": False, "chunk_index": index}


class SessionEncoder(BaseEncoder):
    """A ``transcode_ports.Encoder`` of what follows the opening."""

    format: type[SurfaceFormat] = SessionFormat

    def __init__(self, answering: Answering) -> None:
        body = loads(answering.prepared.body)
        self._wanted = read(body)
        self._accepted_at = ours(body).accepted_at
        self._clock = answering.clock
        self._chunks = 0 if self._wanted.metadata else 1
        self._spoken = False
        self._first_at: float | None = None
        self._reason: str | None = None

    @override
    def add(self, event: Event) -> list[Piece]:
        """What the model thinks is not part of what it says."""
        match event:
            case Text(text=text) | Refusal(text=text):
                self._generated()
                self._spoken = True
                self._chunks += 1
                return [("message", _chunk(text, self._chunks))]
            case Reasoning():
                self._generated()
            case Finish(reason=reason):
                self._reason = reason
        return []

    @override
    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        if self._first_at is None:
            return None
        if said == "thought":
            return b""
        self._spoken = True
        self._chunks += 1
        return b'event: message\ndata: {"delta":"%b","done":false,"chunk_index":%d}\n\n' % (escaped, self._chunks)

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        fields = None if usage is None else usage_object(usage)
        session_id, chunks = self._wanted.session_id, self._chunks
        last = {"delta": "", "done": True, "total_chunks": chunks, "usage": fields, "session_id": session_id}
        if not self._wanted.metadata:
            return [("message", last)]
        metadata: dict[str, object] = {"usage": fields, "finish_reason": self._reason}
        if self._first_at is not None and self._accepted_at is not None:
            metadata["ttft_ms"] = round((self._first_at - self._accepted_at) * 1e3, 1)
        return [("metadata", metadata), ("message", last)]

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode(piece[1], piece[0] or "message")

    @override
    def progress(self) -> Progress:
        return Progress(partial=self._spoken)

    def _generated(self) -> None:
        if self._first_at is None:
            self._first_at = self._clock()


class SessionCollector(TextCollector):
    """Keeps the text of an answer, up to a bound."""

    def __init__(self, most_bytes: int) -> None:
        self._texts: list[str] = []
        self._room = most_bytes
        self._cut = False

    def add(self, event: dict[str, object]) -> None:
        """Take one payload."""
        text = event.get("delta")
        if not isinstance(text, str) or self._cut:
            return
        data = text.encode()
        if len(data) > self._room:
            self._cut = True
            text = data[: self._room].decode("utf-8", "ignore")
        self._room -= len(data)
        self._texts.append(text)

    @override
    def add_text(self, escaped: bytes) -> None:
        self.add({"delta": orjson.loads(b'"%b"' % escaped)})

    def answer(self) -> dict[str, object]:
        """The text, and whether there was more of it."""
        return {"content": "".join(self._texts), "cut": self._cut}


class SessionDialect(Dialect):
    """``/v1/chat/stream``."""

    surface = Surface.SESSION
    stream_type = SSE_TYPE
    format: type[SurfaceFormat] = SessionFormat

    @override
    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> Codec:
        raise NotImplementedError("no upstream speaks the session API")

    @override
    def collector(self, prepared: Prepared) -> SessionCollector:
        return SessionCollector(ours(loads(prepared.body)).keep_bytes)
