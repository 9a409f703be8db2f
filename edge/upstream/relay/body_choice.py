"""Which body an answer has: by its head as far as that goes, and by its first bytes, which know better.

In: the head, then the first bytes. Out: a ``Body`` that takes all of it, those bytes too. Must not: be in the way of
what follows them.

Proxies of vLLM send each stream as ``application/json``, frameworks a generator as ``text/html``, and some servers an
error as the only JSON object of a ``text/event-stream``. No official SDK looks at the type of a stream.
"""

from dataclasses import replace

import orjson
from typing_extensions import override

from edge.bounds import EVENT_BYTES
from edge.errors import EdgeError, UpstreamBroken, UpstreamSaid
from edge.policy.lifecycle import LifecycleEvent
from edge.policy.routing import printable
from edge.protocol.dialects import DIALECTS
from edge.protocol.surface import RELAYED, Surface
from edge.protocol.transcode import Transcoder
from edge.upstream.ports import JSON_TYPE, Call
from edge.upstream.relay.bodies import Answer, Body, Events, Receiver, Refusal, Text, Turned, broke_off, passed_on
from edge.upstream.relay.connection import Head
from edge.upstream.relay.content_encoding import READABLE, Inflating

_BINARY = "application/octet-stream"
# The formats of a transcript that are not JSON.
_TEXTS = frozenset({"text/plain", "text/vtt", "text/srt", "application/x-subrip"})

_SMALL_BYTES = 16 * 1024
_BLANK = b"\xef\xbb\xbf \t\r\n"  # a byte order mark among them
_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")  # how server-sent events begin
_FIELD_BYTES = max(map(len, _FIELDS))
_NDJSON = "application/x-ndjson"


def body_for(head: Head, to: Receiver) -> Body | None:
    """What takes the body of an answer with that head; None if it is of no use, and the call has been ended."""
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return _plain(head, to)
    if encoding not in READABLE:
        what = f"upstream {to.name} compressed its answer ({printable(encoding)})"
        why = f"{what}, which Edge cannot read and did not ask for"
        refused = 400 <= head.status < 600
        to.end(LifecycleEvent.ERROR, UpstreamSaid(why, status=head.status) if refused else UpstreamBroken(why))
        return None
    inflating = Inflating(to.name, to.call.max_answer_bytes, to.end)
    inflating.body = _plain(head, replace(to, end=inflating.ended, use=inflating.use))
    return None if inflating.body is None else inflating


def _plain(head: Head, to: Receiver) -> Body | None:
    if 400 <= head.status < 600:
        return Refusal(head, to.name, to.end, to.call.context)
    if head.status != 200:
        redirect = "a redirect; Edge follows none, so set the final url"
        what = redirect if 300 <= head.status < 400 else f"status {head.status}"  # 600 and more: HTTP has none
        to.end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {to.name} answered with {what}"))
        return None
    to.sink.answered(passed_on(head.headers))
    kind, call = head.content_type, to.call
    if call.codec is None and kind == JSON_TYPE:
        return Answer(to.name, to.sink, to.end, call, to.work)
    if _passes_unread(call, kind):
        return Text(to.name, to.sink, to.end, call, head.headers.get("content-type", _BINARY))
    if len(call.body) > _SMALL_BYTES:  # it may be an image of 30 MB, and the first bytes may take minutes
        to = replace(to, call=replace(call, body=b""))
    return FirstBytes(kind, to)


def _passes_unread(call: Call, kind: str) -> bool:
    """Whether an answer of this type, which is not JSON, is passed on as it is."""
    if call.upload is not None:
        return kind in _TEXTS
    vectors = call.surface is Surface.EMBEDDINGS and kind == _BINARY
    return call.codec is None and (vectors or call.surface in RELAYED)


class FirstBytes(Body):
    """Holds the first bytes of a body until they show what it is; then another one takes them and all that follows."""

    __slots__ = ("_held", "_kind", "_over", "_to")

    def __init__(self, kind: str, to: Receiver) -> None:
        self._kind = kind
        self._to = to
        self._held = b""
        self._over = False

    @override
    def on_bytes(self, data: bytes) -> None:
        self._held += data
        body = self._chosen(ended=False)
        if body is not None:
            held, self._held = self._held, b""
            self._to.use(body)
            body.on_bytes(held)

    @override
    def whole(self) -> None:
        body = self._chosen(ended=True)
        if body is None:
            return
        if self._held:
            body.on_bytes(self._held)
        if not self._over:
            body.whole()

    @override
    def broke(self, why: str) -> None:
        self._to.end(LifecycleEvent.CUT, broke_off(self._to.name, why))

    def _chosen(self, *, ended: bool) -> Body | None:
        """What takes the body; None if that is not known yet, or the call has been ended."""
        call, name, sink = self._to.call, self._to.name, self._to.sink
        text = self._held.lstrip(_BLANK)
        if not (text or ended) and len(self._held) <= _SMALL_BYTES:
            return None
        stream_type = DIALECTS[call.surface].stream_type
        if call.codec is not None:
            typed = stream_type.startswith(self._kind or "none")
            by_lines = stream_type.startswith(_NDJSON)
            is_stream = _is_lines(text, ended=ended) if by_lines and not typed else _is_events(text, ended=ended)
            if is_stream is None:
                return None
            is_json = not by_lines and text.startswith((b"{", b"["))
            if is_stream or (typed and not is_json):
                if isinstance(call.codec, Transcoder):
                    return Turned(name, call.codec, sink, self._note_end)
                return Events(name, call.codec, sink, self._note_end)
        if self._kind == JSON_TYPE or text.startswith((b"{", b"[")):
            return Answer(name, sink, self._note_end, call, self._to.work)
        wanted = "a JSON body" if call.codec is None else "an event stream"
        message = f"upstream {name} answered with {self._kind or 'no type'} instead of {wanted}"
        self._note_end(LifecycleEvent.ERROR, UpstreamBroken(message))
        return None

    def _note_end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        self._over = True
        self._to.end(happened, error)


def _is_events(text: bytes, *, ended: bool) -> bool | None:
    """Whether a body that begins so is one of server-sent events; None if more of it must come first."""
    if text.startswith(_FIELDS):
        return True
    begins = 0 < len(text) < _FIELD_BYTES and not ended and any(field.startswith(text) for field in _FIELDS)
    return None if begins else False


def _is_lines(text: bytes, *, ended: bool) -> bool | None:
    """Whether it is one of JSON objects, each in a line; an object over several lines is no such body."""
    if not text.startswith(b"{"):
        return False
    line, end_of_line, _ = text.partition(b"\n")
    if not end_of_line:
        return False if ended or len(text) > EVENT_BYTES else None
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
