"""One aiohttp client session per upstream, with the defaults that suit token streams.

In: an upstream's settings. Out: a session. Must not: follow redirects, read proxy settings from the environment, keep
cookies, retry, time out by itself (one ticker owns all clocks) or limit concurrency silently.
"""

import asyncio
import functools
import socket
import ssl
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractCookieJar
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from edge.settings import Upstream as UpstreamSettings

# What a stream may hold besides its journal is measured: with 32 and 64 KiB, 20 stopped readers cost 610 KiB each at
# a buffer of 256; with these 470.
READ_BUFSIZE = 16 * 1024  # aiohttp pauses at twice this; its default lets an unread response hold 524 KB
# The kernel doubles it, and it bounds how much one read can bring, so how long a fast stream keeps the others waiting:
# with 64 streams at full speed a new one's first token took 147 ms at twice this, 95 ms at this. A token stream of
# 25 KB/s needs no more of a window on any link.
RECEIVE_BUFFER = 16 * 1024
POOL_KEEPALIVE_S = 4.0  # below uvicorn's 5 s, so that a pooled connection is rarely one the server has just closed


def _socket(info: tuple[int, int, int, str, tuple[str, int]]) -> socket.socket:
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


class BrokenHead(aiohttp.ClientPayloadError):
    """The connection ended in the middle of the response's head: somebody had begun to answer."""


class Handler(ResponseHandler):
    """aiohttp's, with what it does not tell: that a read has come, whether any has, and that a body cannot go on.

    Attributes:
        heard: A byte has come in answer to the present request.
        listener: Called after each read has been parsed, and when the connection is lost. A listener that takes the
            body from there saves the task switch that each read of a stream costs otherwise.
    """

    heard = False
    listener: Callable[[], None] | None = None

    def set_response_params(self, **params: Any) -> None:
        """Called by aiohttp before each request."""
        self.heard = False
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        self.heard = True
        super().data_received(data)
        if self.listener is not None:
            self.listener()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_lost(exc)
        if self.listener is not None:
            self.listener()

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        """Called by aiohttp when nothing more can be read; of broken framing it does not tell who reads the body."""
        if exc_cause is None:
            super().set_exception(exc)
        else:
            super().set_exception(exc, exc_cause)
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the framing of the body is broken"))


def _make_handler(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    return Handler(loop)


class _Response(aiohttp.ClientResponse):
    async def start(self, connection: Connection) -> aiohttp.ClientResponse:
        """Wait for the head."""
        protocol = connection.protocol
        try:
            return await super().start(connection)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            if isinstance(protocol, Handler) and protocol.heard:
                raise BrokenHead("the head of the response is not complete") from None
            raise


def make_session(settings: UpstreamSettings) -> aiohttp.ClientSession:
    """A session for one upstream; must be called with the loop running.

    Raises:
        OSError, ssl.SSLError: ``ca_file`` cannot be read or holds no certificate.
    """
    context: ssl.SSLContext | bool = True
    if settings.ca_file:
        context = ssl.create_default_context(cafile=settings.ca_file)
    connector = aiohttp.TCPConnector(
        limit=0,
        ssl=context,
        keepalive_timeout=POOL_KEEPALIVE_S,
        socket_factory=_socket,
    )
    loop = asyncio.get_running_loop()
    connector._factory = functools.partial(_make_handler, loop=loop)  # noqa: SLF001 - there is no public way
    jar: AbstractCookieJar = aiohttp.DummyCookieJar()
    headers = {"Accept-Encoding": "identity", **settings.headers}
    if settings.api_key:
        headers["Authorization"] = f"Bearer {settings.api_key}"
    return aiohttp.ClientSession(
        settings.url.rstrip("/"),
        connector=connector,
        cookie_jar=jar,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None),
        trust_env=False,
        auto_decompress=False,
        read_bufsize=READ_BUFSIZE,
        response_class=_Response,
        trace_configs=[tracing()],
    )


class Traced(Protocol):
    """What may be given as ``trace_request_ctx`` with a request."""

    def connection_ready(self, *, reused: bool) -> None:
        """The connection stands (TLS included); ``reused`` if it came from the pool."""


def tracing() -> aiohttp.TraceConfig:
    """Tell connecting from waiting: aiohttp returns from a request only with the response headers."""

    async def made(_session: object, context: SimpleNamespace, _params: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.connection_ready(reused=False)

    async def reused(_session: object, context: SimpleNamespace, _params: object) -> None:
        if context.trace_request_ctx is not None:
            context.trace_request_ctx.connection_ready(reused=True)

    config = aiohttp.TraceConfig()
    config.on_connection_create_end.append(made)
    config.on_connection_reuseconn.append(reused)
    return config
