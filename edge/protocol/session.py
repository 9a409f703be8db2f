"""The session API's streams: named events, each with an id, of which only Edge itself is the source.

In: canonical events. Out: events, errors and heartbeats. Must not: be relayed; no upstream speaks this.

Each event that has data has an id, so a heartbeat is one line without a blank one after it: clients that never reset
the last id would else take it for an event.
"""

import time

import orjson

from edge.errors import EdgeError
from edge.protocol.batch import Usage
from edge.protocol.chat_events import usage_object
from edge.protocol.dialect import Codec
from edge.protocol.events import Event, Finish, Reasoning, Refusal, Text
from edge.protocol.request import Prepared
from edge.protocol.session_request import Wanted, ours, read
from edge.protocol.shapes import openai_body
from edge.protocol.sse import SSE_TYPE
from edge.protocol.surface import Surface
from edge.protocol.transcoding import Answering, Piece

_HEARTBEAT = b": ping\n"
_RETRY = b"retry: 1000\n"


def opening(wanted: Wanted, stream_id: str) -> bytes:
    """The first event, which gives the reader an id before there is anything to say.

    A reader that loses its connection without one would come back as a new request, and be answered anew.
    """
    if wanted.metadata:
        told: dict[str, object] = {"session_id": wanted.session_id, "model": wanted.model, "stream_id": stream_id}
        return _RETRY + _event("metadata", told, stream_id, 1)
    return _RETRY + _event("message", _chunk("", 1), stream_id, 1)


def _chunk(text: str, index: int) -> dict[str, object]:
    return {"delta": text, "done": False, "chunk_index": index}


def _event(name: str, payload: dict[str, object], stream_id: str, number: int) -> bytes:
    return b"event: %b\nid: %b:%d\ndata: %b\n\n" % (name.encode(), stream_id.encode(), number, orjson.dumps(payload))


class SessionEncoder:
    """A ``transcoding.Encoder`` of what follows the opening."""

    terminator = b""

    def __init__(self, answering: Answering) -> None:
        body = orjson.loads(answering.prepared.body)
        self._wanted = read(body)
        self._accepted_at = ours(body).accepted_at
        self._stream_id = f"st_{answering.id}"
        self._number = 1  # of the latest event; the first was the opening
        self._chunks = 0 if self._wanted.metadata else 1
        self._spoken = False
        self._first_at: float | None = None
        self._reason: str | None = None

    def add(self, event: Event) -> list[Piece]:
        """See ``transcoding.Encoder``; what the model thinks is not part of what it says."""
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

    def text_ends(self) -> None:
        """See ``transcoding.Encoder``: each piece has a number."""
        return

    def end(self, usage: Usage | None) -> list[Piece]:
        """See ``transcoding.Encoder``."""
        told = None if usage is None else usage_object(usage)
        session_id, chunks = self._wanted.session_id, self._chunks
        last = {"delta": "", "done": True, "total_chunks": chunks, "usage": told, "session_id": session_id}
        if not self._wanted.metadata:
            return [("message", last)]
        metadata: dict[str, object] = {"usage": told, "finish_reason": self._reason}
        if self._first_at is not None and self._accepted_at is not None:
            metadata["ttft_ms"] = round((self._first_at - self._accepted_at) * 1e3, 1)
        return [("metadata", metadata), ("message", last)]

    def frame(self, piece: Piece) -> bytes:
        """See ``transcoding.Encoder``; once for each piece, in order: here it gets its id."""
        self._number += 1
        return _event(piece[0] or "message", piece[1], self._stream_id, self._number)

    def heartbeat(self, *, handed_over: bool) -> bytes:  # noqa: ARG002 - a comment fits anywhere
        """See ``transcoding.Encoder``."""
        return _HEARTBEAT

    def error_event(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - it is in the header
        """What failed, and whether a part of the answer came before."""
        return self.frame(("error", {"message": error.message, "partial": self._spoken}))

    def _generated(self) -> None:
        if self._first_at is None:
            self._first_at = time.monotonic()


class SessionCollector:
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

    def answer(self) -> dict[str, object]:
        """The text, and whether there was more of it."""
        return {"content": "".join(self._texts), "cut": self._cut}


class SessionDialect:
    """``/v1/chat/stream``."""

    surface = Surface.SESSION
    stream_type = SSE_TYPE

    def codec(self, prepared: Prepared, max_event_bytes: int, repairs: frozenset[str]) -> Codec:
        """See ``dialect.Dialect``."""
        raise NotImplementedError("no upstream speaks the session API")

    def collector(self, prepared: Prepared) -> SessionCollector:
        """See ``dialect.Dialect``."""
        return SessionCollector(ours(orjson.loads(prepared.body)).keep_bytes)

    def error_body(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - it is in the header
        """OpenAI's envelope."""
        return orjson.dumps(openai_body(error))
