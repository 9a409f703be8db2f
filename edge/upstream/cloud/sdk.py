"""A cloud over its official SDK: the answer's raw bytes, pulled from the SDK's response and pushed on.

In: a ``Call``, and a way to post over an SDK's client. Out: pushes into the sink, in order. What an SDK raised is
translated here, once. Must not: retry, time out (but for what follows an answer), decode what is relayed, or leave a
response open: whatever ends a call, the response is closed.

Only the adapters of the SDKs import this module, since it needs what they bring.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx2
from typing_extensions import override

from edge.bounds import ERROR_BYTES
from edge.errors import EdgeError, UpstreamBroken, UpstreamCut, UpstreamUnreachable
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.surface import UPSTREAM_PATHS
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.headers import CREDENTIALS, credential
from edge.upstream.pool import POOL_KEEPALIVE_S
from edge.upstream.ports import Call, Sink, Source, Upstream
from edge.upstream.relay.bodies import Body, Receiver, Work, broken_by
from edge.upstream.relay.body_choice import body_for
from edge.upstream.relay.connection import Head
from edge.upstream.relay.early_answer import TURNS
from edge.upstream.relay.relay import reason

_POOL_TRIES = 8  # dead pooled connections to go through before one that has not been used
_DEAD = (
    aiohttp.ServerDisconnectedError,
    aiohttp.ClientOSError,
    ConnectionError,
)  # how a connection ends that was closed
_PIECE_BYTES = 64 * 1024  # of a request's body, each written when the last one has gone
_TAIL_S = 1.0  # for the body to end after its answer has: only then can the connection be used again
_BROKEN = (httpx2.HTTPError, aiohttp.ClientError, OSError)  # what an HTTP client raises for what the other side does


class Client:
    """An SDK's client, as far as it is needed here.

    Args:
        sdk: The SDK's own client; the two have the same way of posting, and no type in common.
        stream_cls: Its class of streams, which an SDK wants to be named.
        refused: What it raises for an answer that is an error.
        failed: What it raises for any failure.
    """

    def __init__(self, sdk: Any, stream_cls: Any, refused: type[Exception], failed: type[Exception]) -> None:
        self._sdk = sdk
        self._stream_cls = stream_cls
        self._refused = refused
        self.failures = (failed,)

    async def post(self, path: str, body: "Upload", headers: Mapping[str, str]) -> httpx2.Response:
        """Post a JSON body; returns the response of any status, its body unread or read."""
        try:
            answer: httpx2.Response = await self._sdk.post(
                path,
                cast_to=httpx2.Response,
                content=body,
                options={"headers": headers},
                stream=True,
                stream_cls=self._stream_cls,
            )
        except self._refused as error:
            refused: httpx2.Response = error.response  # type: ignore[attr-defined]  # both SDKs' status errors have it
            return refused
        return answer  # what ``cast_to`` asked for, streamed or not

    async def close(self) -> None:
        """Close every connection."""
        await self._sdk.close()


def http_options(settings: UpstreamSettings) -> dict[str, Any]:
    """What an SDK's ``DefaultAioHttpClient`` is made with.

    Raises:
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """
    return {
        "verify": ssl.create_default_context(cafile=settings.ca_file or None),
        "trust_env": False,  # no proxy that the settings do not name
        "follow_redirects": False,
        "timeout": None,  # the clocks are Edge's
        "event_hooks": {
            "request": [_headers_once({**credential(settings), **settings.headers})],
            "response": [_bound_refusal],
        },
    }


def settled(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """An SDK's ``DefaultAioHttpClient``, which serves everybody: it keeps no cookies, and knows used connections."""
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    transport: Any = client._transport  # noqa: SLF001 - it takes a maker of sessions, and its client has no way to it

    def session() -> aiohttp.ClientSession:
        traced = aiohttp.TraceConfig()
        traced.on_connection_reuseconn.append(_note_reuse)
        # 0 is no limit: admission decides how many there are.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=POOL_KEEPALIVE_S, ssl=transport.ssl_context)
        jar = aiohttp.DummyCookieJar()
        return aiohttp.ClientSession(connector=connector, cookie_jar=jar, trace_configs=[traced])

    transport.client = session
    return client


_reuses: ContextVar[list[bool]] = ContextVar("_reuses")  # by the call that is being made; empty on a fresh connection


async def _note_reuse(*_: object) -> None:
    _reuses.get([]).append(True)


class Cloud(Upstream):
    """An upstream over an SDK's client."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self.client = client
        self._sources: set[CloudSource] = set()

    @override
    def open(self, call: Call, sink: Sink) -> "CloudSource":
        source = CloudSource(self, call, sink)
        self._sources.add(source)
        source.task.add_done_callback(lambda _: self._sources.discard(source))
        return source

    @override
    async def close(self) -> None:
        sources = tuple(self._sources)
        for source in sources:
            source.abort()
            source.task.cancel()  # also one that has ended, and waits for the rest of its body
        try:
            if sources:
                await asyncio.wait([source.task for source in sources])
        finally:
            await self.client.close()


class CloudSource(Source):
    """One call in progress."""

    __slots__ = ("_body", "_cloud", "_connected", "_done", "_flowing", "_over", "_sink", "_work", "task")

    def __init__(self, cloud: Cloud, call: Call, sink: Sink) -> None:
        self._cloud = cloud
        self._sink = sink
        self._body: Body | None = None
        self._work = Work()
        self._connected = False
        self._done = False
        self._over = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.task = asyncio.get_running_loop().create_task(self._run(call))

    def __repr__(self) -> str:
        state = "over" if self._over else "flowing" if self._flowing.is_set() else "paused"
        return f"<CloudSource {self._cloud.name} {state}>"

    @override
    def pause(self) -> None:
        """Unread, aiohttp's buffer fills, then the kernel's, then the server feels it."""
        self._flowing.clear()

    @override
    def resume(self) -> None:
        self._flowing.set()

    @override
    def abort(self) -> None:
        """It may be called from within a push."""
        if not self._over:
            self._over = True
            self.task.cancel()

    # --- the task -------------------------------------------------------------------------------------------------

    async def _posted(self, call: Call) -> httpx2.Response:
        """The answer; asked for again as long as a used connection turns out to be dead, as the relay does it."""
        client, path = self._cloud.client, UPSTREAM_PATHS[call.surface]
        headers = {**call.headers, "Content-Length": str(len(call.body))}
        for _ in range(_POOL_TRIES):
            reuses: list[bool] = []
            _reuses.set(reuses)
            try:
                return await client.post(path, Upload(call.body, self._report_connected), headers)
            except (*client.failures, *_BROKEN) as error:
                if not reuses or self._over or not isinstance(_origin(error), _DEAD):
                    raise
        return await client.post(path, Upload(call.body, self._report_connected), headers)

    async def _run(self, call: Call) -> None:
        client = self._cloud.client
        try:
            response = await self._posted(call)
            call = replace(call, body=b"")  # it may be an image of 30 MB, and the answer may take minutes
        except Exception as error:  # noqa: BLE001 - a bug of ours must reach the client as one, not as a hang
            if isinstance(error, (*client.failures, *_BROKEN)):
                self._unanswered(error)
            else:
                self._end(LifecycleEvent.BUG, broken_by(error))
        else:
            reads = response.aiter_bytes()
            try:
                await self._read(response, reads, call)
            except Exception as bug:  # noqa: BLE001 - as above
                self._end(LifecycleEvent.BUG, broken_by(bug))
            finally:
                await response.aclose()
                await _run_out(reads)
        finally:
            self._over = True

    async def _read(self, response: httpx2.Response, reads: AsyncIterator[bytes], call: Call) -> None:
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}  # undone here
        head = Head(response.status_code, response.reason_phrase, headers)
        self._body = body_for(head, self._receiver(call))
        while (body := self._body) is not None and not self._over:
            await self._flowing.wait()
            try:
                data = await anext(reads, b"")
            except _BROKEN as error:
                await self._flowing.wait()
                body.broke(_why(error))
                return
            await self._flowing.wait()  # it may have been paused while it was waiting for these
            if data:
                body.on_bytes(data)
            else:
                body.whole()
                await self._work.done()
                return
        if self._done:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TAIL_S):
                    await _run_out(reads)

    def _receiver(self, call: Call) -> Receiver:
        return Receiver(self._cloud.name, call, self._sink, self._end, self._use, self._work)

    def _use(self, body: Body) -> None:
        self._body = body

    def _unanswered(self, error: Exception) -> None:
        name = self._cloud.name
        if not self._connected:
            self._end(LifecycleEvent.CUT, UpstreamUnreachable(f"upstream {name} cannot be reached: {_why(error)}"))
        elif any(isinstance(cause, aiohttp.ClientResponseError) for cause in _causes(error)):
            self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {name} did not answer in HTTP"))
        else:
            self._end(LifecycleEvent.CUT, UpstreamCut(f"upstream {name} closed the connection without an answer"))

    # --- pushing --------------------------------------------------------------------------------------------------

    def _report_connected(self) -> None:
        if not (self._over or self._connected):
            self._connected = True
            self._sink.connected()

    def _end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        if not self._over:
            self._over, self._done = True, happened is LifecycleEvent.DONE
            self._sink.end(happened, error)


class Upload:
    """The body of a request, which the HTTP client asks for when a connection stands: so that is known.

    Attributes:
        size: Its length.
    """

    def __init__(self, body: bytes, asked_for: Callable[[], None]) -> None:
        self.size = len(body)
        self._body = body
        self._asked_for = asked_for

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give it, once."""
        self._asked_for()
        body, self._body = memoryview(self._body), b""
        for start in range(0, self.size, _PIECE_BYTES):
            for _ in range(
                TURNS
            ):  # an answer that has come is read before a write can fail: see ``upstream.relay.early_answer``
                await asyncio.sleep(0)
            yield bytes(body[start : start + _PIECE_BYTES])


class _Refusal(httpx2.AsyncByteStream):
    """The body of an error, which an SDK reads whole by itself: as much as is of use, however it ends."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        with suppress(httpx2.HTTPError):
            async for data in self._stream:
                size += len(data)
                yield data
                if size > ERROR_BYTES:
                    break

    async def aclose(self) -> None:
        await self._stream.aclose()


def _headers_once(own: Mapping[str, str]) -> Callable[[httpx2.Request], Awaitable[None]]:
    """A hook for requests: the settings' headers win over a client's and the SDK's, and each goes out once."""

    async def settle(request: httpx2.Request) -> None:
        headers = request.headers
        for name in CREDENTIALS:
            headers.pop(name, None)  # an SDK has a choice of its own
        headers.update(own)
        for name, value in headers.multi_items():
            headers[name] = value  # of one that is there more than once, the last stays

    return settle


async def _bound_refusal(response: httpx2.Response) -> None:
    if not response.is_success and isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Refusal(response.stream)


async def _run_out(reads: AsyncIterator[bytes]) -> None:
    """Take what is left: nothing once the response is closed, but no generator is left to the garbage collector."""
    with suppress(*_BROKEN, httpx2.StreamError):
        async for _ in reads:
            pass


def _causes(error: BaseException | None) -> list[BaseException]:
    """The error and what it came from, the origin last."""
    causes = []
    while error is not None:
        causes.append(error)
        error = error.__cause__
    return causes


def _origin(error: BaseException) -> BaseException:
    """What the HTTP client met."""
    return next((cause for cause in _causes(error) if isinstance(cause, _DEAD)), _causes(error)[-1])


def _why(error: BaseException) -> str:
    origin = _causes(error)[-1]
    return reason(origin) if isinstance(origin, OSError) else "it ended too early, or its framing is broken"
