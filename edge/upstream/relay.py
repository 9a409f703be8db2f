"""The relay: a call to a server that speaks the surface itself, pushed on as bytes.

In: a ``Call``. Out: pushes into the sink, in order, from one task per call. aiohttp's exceptions end here: each await
is translated once. Must not: retry (but for a pooled connection that turns out to be dead), time out, decide an
outcome, follow a redirect, or build a path from anything a client sent.
"""

import asyncio
import contextlib
import errno
import io
import ssl
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import aiohttp
import orjson

from edge.errors import InternalError, UpstreamBroken, UpstreamCut, UpstreamSaid, UpstreamUnreachable
from edge.policy.lifecycle import Happened
from edge.protocol.dialect import BadStream, Codec
from edge.protocol.shapes import upstream_said
from edge.protocol.surface import UPSTREAM_PATHS
from edge.upstream.base import Call, Sink
from edge.upstream.http import Handler
from edge.upstream.listening import Ending, Listening

_ERROR_BODY_BYTES = 64 * 1024
_PIECEWISE_BYTES = 2**20
_POOL_TRIES = 8  # dead pooled connections to go through before a fresh one is reached
_TAIL_S = 1.0  # for the body to end after the terminator: only then can the connection be used again
_TAIL_READS = 4

# Response headers a client gets to see. Prefixes end with a dash.
_PASSED_ON = frozenset({"retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-model"})
_PASSED_ON_PREFIXES = ("x-ratelimit-", "anthropic-ratelimit-")


class Relay:
    """An ``openai-compatible`` upstream."""

    def __init__(self, session: aiohttp.ClientSession, name: str) -> None:
        self.name = name
        self._session = session
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, call: Call, sink: Sink) -> "RelaySource":
        """See ``base.Upstream``."""
        source = RelaySource(self._session, self.name, call, sink)
        self._tasks.add(source.task)
        source.task.add_done_callback(self._tasks.discard)
        return source

    async def close(self) -> None:
        """See ``base.Upstream``; the session is the fleet's to close."""
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class RelaySource:
    """One call in progress."""

    def __init__(self, session: aiohttp.ClientSession, name: str, call: Call, sink: Sink) -> None:
        self._session = session
        self._name = name
        self._call = call
        self._sink = sink
        self._response: aiohttp.ClientResponse | None = None
        self._connected = False
        self._reused = False
        self._aborted = False
        self._listening: Listening | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.task = asyncio.create_task(self._run(), name=f"relay {name}")

    def __repr__(self) -> str:
        return f"<RelaySource {self._name} {'flowing' if self._flowing.is_set() else 'paused'}>"

    def pause(self) -> None:
        """See ``base.Source``: unread, aiohttp's buffer fills, then the kernel's, then the server feels it."""
        self._flowing.clear()
        if self._listening is not None:
            self._listening.paused = True

    def resume(self) -> None:
        """See ``base.Source``."""
        self._flowing.set()
        if self._listening is not None:
            self._listening.resume()

    def abort(self) -> None:
        """See ``base.Source``; it may be called from within a push, that is from this source's own task."""
        self._aborted = True
        if self._response is not None:
            self._response.close()
        self.task.cancel()

    def connection_ready(self, *, reused: bool) -> None:
        """Told by the session's tracing: the connection stands, and whether it came from the pool."""
        self._reused = reused
        if not self._connected and not self._aborted:
            self._connected = True
            self._sink.connected()

    async def _run(self) -> None:
        try:
            happened, error = await self._ending()
            if happened is not Happened.DONE:
                self._release()  # what is still under way is of no use, and its model is to stop
            if not self._aborted:
                self._sink.end(happened, error)
            await self._read_tail()
        finally:
            self._release()

    async def _ending(self) -> Ending:
        try:
            return await self._exchange()
        except Exception as bug:  # noqa: BLE001 - a bug of ours must reach the client as one, not as a hang
            error = InternalError("Edge failed while reading from the upstream")
            error.__cause__ = bug
            return Happened.BUG, error

    def _release(self) -> None:
        """Back to the pool if the body is at its end, else closed."""
        if self._response is not None:
            self._response.release()

    async def _read_tail(self) -> None:
        """The answer is over, its body not yet: wait a little for the end, so that the connection can be used again."""
        response = self._response
        if response is None or response.closed:
            return
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
            async with asyncio.timeout(_TAIL_S):
                for _ in range(_TAIL_READS):
                    if not await response.content.readany():
                        return

    async def _exchange(self) -> Ending:
        try:
            response = self._response = await self._post()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return self._not_answered(error)
        self._call = replace(self._call, body=b"")  # an image may be 30 MB of it, and the answer may take minutes
        if response.status != 200:
            return await self._refused(response)
        self._sink.answered(passed_on(response.headers))
        codec = self._call.codec
        kind = response.content_type
        if kind == "application/json":
            return await self._whole(response)
        if codec is None or kind != "text/event-stream":
            wanted = "a JSON body" if codec is None else "an event stream"
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} answered with {kind} instead of {wanted}")
        return await self._events(response, codec)

    async def _post(self) -> aiohttp.ClientResponse:
        call = self._call
        for tries_left in reversed(range(_POOL_TRIES)):
            try:
                return await self._session.post(
                    UPSTREAM_PATHS[call.surface],
                    data=_sendable(call.body),
                    headers={"Content-Type": "application/json", **call.headers},
                    allow_redirects=False,
                    trace_request_ctx=self,
                )
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                # llama.cpp promises keep-alive and closes: the request never reached anybody, so it may be repeated.
                if not self._reused or not tries_left:
                    raise
                self._reused = False
        raise AssertionError("unreachable: the last try returns or raises")

    async def _events(self, response: aiohttp.ClientResponse, codec: Codec) -> Ending:
        connection = response.connection
        handler = connection.protocol if connection is not None else None
        if not isinstance(handler, Handler):
            # The whole body is here already; or aiohttp no longer lets us choose its protocol, and then only the stall
            # clock notices broken framing.
            return await self._read_events(response, codec)
        listening = self._listening = Listening(response.content, partial(self._take, codec), self._cut)
        listening.paused = not self._flowing.is_set()
        handler.listener = listening.look
        try:
            listening.look()
            return await listening.over
        finally:
            handler.listener = self._listening = None

    async def _read_events(self, response: aiohttp.ClientResponse, codec: Codec) -> Ending:
        content = response.content
        while True:
            if not self._flowing.is_set():
                await self._flowing.wait()
            try:
                data = await content.readany()
            except (aiohttp.ClientError, OSError, ValueError) as error:
                # aiohttp keeps back what had come before the break; the reader is to have it.
                data = b"" if self._aborted else content._read_nowait(-1)  # noqa: SLF001
                ending = self._take(codec, data) if data else None
                return ending or (Happened.CUT, self._cut(error))
            ending = self._take(codec, data)
            if ending is not None:
                return ending

    def _take(self, codec: Codec, data: bytes) -> Ending | None:
        """Push what a read brought, the clean end of the body if it is empty; tell whether that was the end."""
        try:
            batch = codec.feed(data) if data else codec.eof()
        except BadStream as error:
            self._sink.feed(error.before)
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name}: {error}")
        self._sink.feed(batch)
        if batch.error is not None:
            return Happened.ERROR, batch.error
        if data and not batch.terminated:
            return None
        if codec.finished(clean_eof=not batch.terminated):
            return Happened.DONE, None
        return Happened.CUT, UpstreamCut(f"upstream {self._name} ended before the answer was finished")

    async def _whole(self, response: aiohttp.ClientResponse) -> Ending:
        try:
            data = await read_bounded(response, self._call.max_answer_bytes)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Happened.CUT, self._cut(error)
        if data is None:
            limit = self._call.max_answer_bytes
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} sent an answer of over {limit} bytes")
        try:
            decoded = orjson.loads(data)
        except orjson.JSONDecodeError:
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} sent a malformed JSON answer")
        if isinstance(decoded, dict) and decoded.get("error") and "output" not in decoded:
            return Happened.ERROR, upstream_said(decoded, 502)
        if not self._call.takes_body:
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} answered with JSON instead of a stream")
        self._sink.body(data)
        return Happened.DONE, None

    async def _refused(self, response: aiohttp.ClientResponse) -> Ending:
        status, headers = response.status, passed_on(response.headers)
        if status < 400:
            what = "a redirect; Edge follows none, so set the final url" if 300 <= status < 400 else f"status {status}"
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} answered with {what}")
        try:
            data = await read_bounded(response, _ERROR_BODY_BYTES)
        except (aiohttp.ClientError, OSError, ValueError):
            data = b""
        try:
            decoded = orjson.loads(data or b"")
        except orjson.JSONDecodeError:
            decoded = None
        if isinstance(decoded, dict):
            return Happened.ERROR, upstream_said(decoded, status, headers)
        message = f"upstream {self._name} answered with status {status} {response.reason or ''}".rstrip()
        return Happened.ERROR, UpstreamSaid(message, status=status, headers=headers)

    def _not_answered(self, error: Exception) -> Ending:
        """The connection was not made, or gave no response."""
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientConnectorDNSError) or not self._connected:
            return Happened.CUT, UpstreamUnreachable(f"upstream {self._name} cannot be reached: {reason(error)}")
        if isinstance(error, aiohttp.ClientResponseError | ValueError):
            return Happened.ERROR, UpstreamBroken(f"upstream {self._name} did not answer in HTTP")
        return Happened.CUT, UpstreamCut(f"upstream {self._name} closed the connection without an answer")

    def _cut(self, error: Exception) -> UpstreamCut:
        return UpstreamCut(f"upstream {self._name} broke off in the middle of the answer: {reason(error)}")


def _sendable(body: bytes) -> bytes | io.BytesIO:
    """Big bodies go out in pieces: aiohttp would copy one of bytes into the transport in one go, and warns of it."""
    return body if len(body) <= _PIECEWISE_BYTES else io.BytesIO(body)


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes | None:
    """Read a body whole; None when it is over ``limit`` bytes."""
    parts: list[bytes] = []
    size = 0
    while data := await response.content.readany():
        size += len(data)
        if size > limit:
            return None
        parts.append(data)
    return b"".join(parts)


def passed_on(headers: Mapping[str, str]) -> dict[str, str]:
    """The response headers that a client gets to see."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if name.lower() in _PASSED_ON or name.lower().startswith(_PASSED_ON_PREFIXES)
    }


def reason(error: BaseException) -> str:
    """A short cause for a person, without addresses or library names."""
    for kinds, cause in _REASONS:
        if isinstance(error, kinds):
            return cause
    return _ERRNO_REASONS.get(getattr(error, "errno", None) or 0, type(error).__name__)


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((aiohttp.ClientConnectorDNSError,), "its name cannot be resolved"),
    ((aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError), "its TLS certificate is not trusted"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "TLS failed"),
    ((ConnectionResetError,), "connection reset"),
    ((aiohttp.ClientPayloadError,), "the body ended too early"),
)
_ERRNO_REASONS = {errno.ECONNREFUSED: "connection refused", errno.ECONNRESET: "connection reset"}
