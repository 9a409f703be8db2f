"""Bodies of servers' answers: an event stream, one JSON object, a text, or the reasons of a refusal.

In: the body by network reads, then how it ended. Out: pushes into the sink, and one call of ``end``.
Must not: know connections, or go on after ``end``: whoever made it sees to that.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from typing_extensions import override

from edge.bounds import ERROR_BYTES
from edge.errors import AnswerTooLarge, EdgeError, InternalError, TooLong, UpstreamBroken, UpstreamCut, UpstreamSaid
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol import embeddings
from edge.protocol.batch import Batch
from edge.protocol.dialect import BadStream, Codec, TooLarge
from edge.protocol.json_text import dumps, loads
from edge.protocol.ollama.truncation import Context
from edge.protocol.shapes import is_error, upstream_said
from edge.protocol.surface import EMBEDS
from edge.protocol.transcode import Transcoder
from edge.protocol.whole_answer import flaw
from edge.upstream.ports import Apart, Call, Sink
from edge.upstream.relay.connection import Head

# Response headers a client gets to see. Prefixes end with a dash.
_PASSED_ON = frozenset(
    {"retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-model", "metadata"}
)  # the last one says where in the bytes of vLLM's embeddings which vector is
_PASSED_ON_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")

# From so much on, an answer of embeddings is passed on unread, or translated in another process: 2,048 vectors as
# numbers stop every stream for a second.
_LARGE_BYTES = 2**20
_ENDS_BYTES = 4096

End = Callable[[LifecycleEvent, EdgeError | None], None]


class Body:
    """Takes one body. ``whole`` and ``broke`` exclude each other."""

    __slots__ = ()

    def on_bytes(self, data: bytes) -> None:
        """What one network read brought; never raises."""
        raise NotImplementedError

    def whole(self) -> None:
        """It ended as its framing says."""
        raise NotImplementedError

    def broke(self, why: str) -> None:
        """It ended otherwise."""
        raise NotImplementedError


class Work:
    """What is still to be done with a body that has come: one task at most."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; it must not raise."""
        self._task = asyncio.get_running_loop().create_task(work)

    def drop(self) -> None:
        """Nobody wants it any more, or it is done; it may itself say so."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def done(self) -> None:
        """Wait for it, if there is any."""
        if self._task is not None:
            await self._task


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom an answer is for.

    Attributes:
        name: Of the upstream that gives it.
        call: What was asked.
        sink: What is pushed into.
        end: Ends the call.
        use: Told of another body that takes what comes from the next read on, at most once.
        work: Dropped when the call ends.
    """

    name: str
    call: Call
    sink: Sink
    end: End
    use: Callable[[Body], None]
    work: Work


class Events(Body):
    """An event stream of the call's surface."""

    __slots__ = ("_codec", "_end", "_name", "_plain", "_sink", "_tokens", "_walk")

    def __init__(self, name: str, codec: Codec, sink: Sink, end: End) -> None:
        self._name = name
        self._codec = codec
        self._walk = codec.feed
        self._plain = codec.plain
        self._sink = sink
        self._tokens = sink.tokens
        self._end = end

    @override
    def on_bytes(self, data: bytes) -> None:
        """The hot path: most reads are plain tokens, handed on by two calls without an object between them."""
        try:
            count = self._plain(data)
            if count:
                self._tokens(data, count)
            else:
                self._push(data)
        except Exception as bug:  # noqa: BLE001 - a bug of ours must reach the client as one, not as a cut
            self._end(LifecycleEvent.BUG, broken_by(bug))

    @override
    def whole(self) -> None:
        self._push(b"")

    @override
    def broke(self, why: str) -> None:
        self._end(LifecycleEvent.CUT, broke_off(self._name, why))

    def _push(self, data: bytes) -> None:
        """Push what a read brought, the clean end of the body if it is empty, and see whether that was the end."""
        codec = self._codec
        try:
            batch = self._walk(data) if data else codec.eof()
        except BadStream as error:
            self._sink.feed(error.before)
            kind = AnswerTooLarge if isinstance(error, TooLarge) else UpstreamBroken
            self._end(LifecycleEvent.ERROR, kind(f"upstream {self._name}: {error}"))
            return
        self._sink.feed(batch)
        if batch.error is not None:
            self._end(LifecycleEvent.ERROR, batch.error)
        elif batch.terminated or not data:
            if codec.finished(clean_eof=not batch.terminated):
                self._end(LifecycleEvent.DONE, None)
            else:
                message = f"upstream {self._name} ended before the answer was finished"
                self._end(LifecycleEvent.CUT, UpstreamCut(message))


class Turned(Events):
    """An event stream that is turned into another surface's."""

    __slots__ = ("_turned",)

    def __init__(self, name: str, codec: Transcoder, sink: Sink, end: End) -> None:
        super().__init__(name, codec, sink, end)
        self._turned = codec.turned
        self._walk = codec.walk

    def on_bytes(self, data: bytes) -> None:
        """See ``Events.on_bytes``: a token that is plain text goes the same way, as the client's event."""
        try:
            fields, count = self._turned(data)
            if count == 1 and fields:
                self._tokens(fields, 1)
            elif count:
                self._sink.feed(Batch(fields, 1 if fields else 0, count))
            else:
                self._push(data)
        except Exception as bug:  # noqa: BLE001 - as in Events
            self._end(LifecycleEvent.BUG, broken_by(bug))


class Answer(Body):
    """One JSON object: expected, or the server's own choice."""

    __slots__ = (
        "_apart", "_end", "_most", "_name", "_parts", "_reshape", "_sink", "_size", "_surface", "_wanted", "_work",
    )  # fmt: skip

    def __init__(self, name: str, sink: Sink, end: End, call: Call, work: Work) -> None:
        self._name = name
        self._apart = call.apart
        self._work = work
        self._most = call.max_answer_bytes
        self._surface = call.surface
        self._wanted = call.takes_body
        self._reshape = call.reshape
        self._sink = sink
        self._end = end
        self._parts: list[bytes] = []
        self._size = 0

    @override
    def on_bytes(self, data: bytes) -> None:
        self._size += len(data)
        self._parts.append(data)
        if self._size > self._most:
            message = f"upstream {self._name} sent an answer of over {self._most} bytes (stream.max_answer_bytes)"
            self._end(LifecycleEvent.ERROR, AnswerTooLarge(message))

    @override
    def whole(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        if self._need_not_be_read(data):
            self._sink.body(data)
            self._end(LifecycleEvent.DONE, None)
        elif self._apart is not None and self._reshape is not None and len(data) >= _LARGE_BYTES:
            self._work.begin(self._reshape_apart(data, self._apart, self._reshape))
        else:
            self._read(data)

    async def _reshape_apart(self, data: bytes, apart: Apart, reshape: embeddings.Reshape) -> None:
        """In another process: each vector is thousands of numbers, and 10 MB of them would stop the loop for 0.3 s."""
        try:
            made = await apart(embeddings.reshaped, data, reshape)
            if made is None:
                self._read(data)
            elif isinstance(made, UpstreamBroken):
                self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {self._name}: {made}"))
            else:
                self._sink.body(made)
                self._end(LifecycleEvent.DONE, None)
        except EdgeError as error:
            self._end(LifecycleEvent.ERROR, error)
        except Exception as bug:  # noqa: BLE001 - as in Events
            self._end(LifecycleEvent.BUG, broken_by(bug))

    def _read(self, data: bytes) -> None:
        try:
            decoded = loads(data)
        except orjson.JSONDecodeError:
            self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {self._name} sent a malformed JSON answer"))
            return
        if is_error(decoded):
            self._end(LifecycleEvent.ERROR, upstream_said(decoded, 502))
        elif not self._wanted:
            message = f"upstream {self._name} answered with JSON instead of a stream"
            self._end(LifecycleEvent.ERROR, UpstreamBroken(message))
        elif why := flaw(self._surface, decoded):
            self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {self._name}: {why}"))
        else:
            self._give(data, decoded)

    def _need_not_be_read(self, data: bytes) -> bool:
        """Many vectors, to be passed on as they are; its framing says whether the body is whole."""
        if self._surface not in EMBEDS or self._reshape is not None or len(data) < _LARGE_BYTES:
            return False
        first, last = data[:_ENDS_BYTES].lstrip(), data[-_ENDS_BYTES:].rstrip()
        return first.startswith(b"{") and last.endswith(b"}") and b'"embedding' in first and b'"error"' not in first

    def _give(self, data: bytes, decoded: object) -> None:
        if self._reshape is not None:
            try:
                data = dumps(self._reshape(decoded if isinstance(decoded, dict) else {}))
            except (UpstreamBroken, orjson.JSONEncodeError) as error:
                self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {self._name}: {error}"))
                return
        self._sink.body(data)
        self._end(LifecycleEvent.DONE, None)

    @override
    def broke(self, why: str) -> None:
        self._end(LifecycleEvent.CUT, broke_off(self._name, why))


class Text(Answer):
    """A text, or bytes, for those that may answer with one; whole, since a cut one would look like that."""

    __slots__ = ("_type",)

    def __init__(self, name: str, sink: Sink, end: End, call: Call, content_type: str) -> None:
        super().__init__(name, sink, end, call, Work())
        self._type = content_type

    @override
    def whole(self) -> None:
        self._sink.body(b"".join(self._parts), self._type)
        self._end(LifecycleEvent.DONE, None)


class Refusal(Body):
    """A 4xx or 5xx, whose body says why, as far as it comes."""

    __slots__ = ("_context", "_data", "_end", "_head", "_name")

    def __init__(self, head: Head, name: str, end: End, context: Context | None = None) -> None:
        self._context = context
        self._head = head
        self._name = name
        self._end = end
        self._data = bytearray()

    @override
    def on_bytes(self, data: bytes) -> None:
        """What is too long for an error is not waited for."""
        self._data += data
        if len(self._data) > ERROR_BYTES:
            self._data.clear()
            self.whole()

    @override
    def whole(self) -> None:
        head, headers = self._head, passed_on(self._head.headers)
        try:
            decoded = loads(bytes(self._data))
        except orjson.JSONDecodeError:
            decoded = None
        if decoded and isinstance(decoded, dict | list | str):
            said, context = upstream_said(decoded, head.status, headers), self._context
            if said.too_long == (None, None) and context is not None and context.too_long:
                said.too_long = TooLong(context.estimate, context.limit)
            self._end(LifecycleEvent.ERROR, said)
            return
        message = f"upstream {self._name} answered with status {head.status} {head.reason}".rstrip()
        self._end(LifecycleEvent.ERROR, UpstreamSaid(message, status=head.status, headers=headers))

    @override
    def broke(self, why: str) -> None:
        """What came may be all there was, if a reset took the place of the end."""
        self.whole()


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """The response headers that a client gets to see; ``headers`` by lower-case name."""
    return {
        name: value for name, value in headers.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }


def broken_by(bug: Exception) -> InternalError:
    """A bug of ours, as the error that clients get."""
    error = InternalError("Edge failed while reading from the upstream")
    error.__cause__ = bug
    return error


def broke_off(name: str, why: str) -> UpstreamCut:
    """The body of an answer ended before it was whole."""
    return UpstreamCut(f"upstream {name} broke off in the middle of the answer: {why}")
