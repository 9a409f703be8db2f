"""One aiohttp client session per upstream, with the defaults that suit token streams.

In: an upstream's settings. Out: a session. Must not: follow redirects, read proxy settings from the environment, keep
cookies, retry, time out by itself (one ticker owns all clocks) or limit concurrency silently.
"""

import socket
import ssl
from types import SimpleNamespace
from typing import Protocol

import aiohttp
from aiohttp.abc import AbstractCookieJar

from edge.settings import Upstream as UpstreamSettings

READ_BUFSIZE = 32 * 1024  # aiohttp pauses at twice this; its default lets an unread response hold 524 KB
RECEIVE_BUFFER = 64 * 1024  # also bounds how much one read can bring: the kernel doubles it
POOL_KEEPALIVE_S = 4.0  # below uvicorn's 5 s, so that a pooled connection is rarely one the server has just closed


def _socket(info: tuple[int, int, int, str, tuple[str, int]]) -> socket.socket:
    family, kind, proto, _, _ = info
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


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
        trace_configs=[_tracing()],
    )


class Traced(Protocol):
    """What may be given as ``trace_request_ctx`` with a request."""

    def connection_ready(self, *, reused: bool) -> None:
        """The connection stands (TLS included); ``reused`` if it came from the pool."""


def _tracing() -> aiohttp.TraceConfig:
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
