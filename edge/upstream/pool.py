"""The connections to one upstream: those that wait for a request, and the way to a fresh one.

In: an upstream's settings. Out: connections, and the heads of requests. Must not: limit how many there are (admission
does), repeat or time out anything, follow redirects, or read proxy settings from the environment.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any

from aiohappyeyeballs import start_connection
from typing_extensions import override
from yarl import URL

from edge import __version__
from edge.policy.hops import Hop
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.headers import credential, merged
from edge.upstream.relay.asker import Home
from edge.upstream.relay.connection import Connection

# The kernel doubles it, and it bounds how much one read can bring, so how long a fast stream keeps the others waiting:
# with 64 streams at full speed a new one's first token took 147 ms at twice this, 95 ms at this. A token stream of
# 25 KB/s needs no more of a window on any link.
RECEIVE_BUFFER = 16 * 1024
POOL_KEEPALIVE_S = 4.0  # below uvicorn's 5 s, so that a pooled connection is rarely one the server has just closed
_RESOLVED_S = 10.0  # a host name is looked up again after so long
_NEXT_ADDRESS_S = 0.25  # RFC 8305: how long one address of a name may keep the next from being tried

_CONNECTED = (0, errno.EISCONN)
# Of the API, as Edge speaks it, unless a Messages client names another: from 2026-10-21 on it refuses temperature,
# top_p and top_k, which clients of the other surfaces send.
ANTHROPIC_VERSION = "2023-06-01"
_NONE: Mapping[str, str] = {}

_AddrInfo = tuple[Any, ...]  # as ``getaddrinfo`` gives it


class Pool(Home):
    """See the module. Made with the loop running.

    Args:
        settings: Whose connections they are.
        hop: This Edge, where the upstream may lead back to it.

    Raises:
        OSError: ``ca_file`` cannot be read or holds no certificate.
    """

    def __init__(self, settings: UpstreamSettings, hop: Hop | None = None) -> None:
        url = URL(settings.url)
        self._host, self._port = url.host or "", url.port or 0
        self._tls = ssl.create_default_context(cafile=settings.ca_file or None) if url.scheme == "https" else None
        self._fixed = _fixed_headers(url, settings)
        self.hop = hop
        self._own = settings.headers
        self._names = frozenset(map(str.lower, self._fixed))
        self._lines = [f"{name}: {value}" for name, value in self._fixed.items()]
        self.closed = False
        self._idle: list[Connection] = []  # the one that was used last is the last
        self._all: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._resolved: tuple[float, list[_AddrInfo]] = (0.0, [])
        self._empty: asyncio.Future[None] | None = None  # waited for by ``close``

    def __repr__(self) -> str:
        return f"<Pool {self._host}:{self._port} {len(self._idle)} idle of {len(self._all)}>"

    def head(self, method: str, path: str, headers: Mapping[str, str] = _NONE) -> bytes:
        """The head of a request; the settings' headers win over ``headers``, and these over Edge's own.

        Raises:
            ValueError: a header cannot be sent as it is.
        """
        fixed = self._lines
        if not self._names.isdisjoint(map(str.lower, headers)):
            fixed, headers = [], merged(self._fixed, headers, self._own)
        lines = [f"{method} {path} HTTP/1.1", *fixed, *(f"{name}: {value}" for name, value in headers.items())]
        text = "\r\n".join(lines)
        if text.count("\r") + text.count("\n") != 2 * (len(lines) - 1):
            raise ValueError("a request header has a line end in it")
        return text.encode("utf-8", "surrogateescape") + b"\r\n\r\n"

    @property
    def hop_headers(self) -> Mapping[str, str]:
        """Those of a request that begins here."""
        return _NONE if self.hop is None else self.hop.headers

    def checkout(self) -> Connection | None:
        """A connection that has been used, or None if a fresh one must be made."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return None

    async def connect(self) -> Connection:
        """A fresh connection, TLS included.

        Raises:
            OSError: it cannot be had (TLS errors are some of these).
        """
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(loop)
        sock = await (_connect(loop, addresses[0]) if len(addresses) == 1 else _race(loop, addresses))
        try:
            name = self._host if self._tls is not None else None
            _, connection = await loop.create_connection(
                lambda: Connection(self), sock=sock, ssl=self._tls, server_hostname=name
            )
        except BaseException:
            sock.close()
            raise
        if self.closed:
            connection.abort()
        elif not connection.lost:
            self._all.add(connection)
        return connection

    async def close(self) -> None:
        """Close every connection, and wait until they are."""
        self.closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._all):
            connection.abort()
        self._idle.clear()
        if self._all:
            self._empty = asyncio.get_running_loop().create_future()
            await self._empty

    # --- connection.Home ------------------------------------------------------------------------------------------

    @override
    def idle(self, connection: Connection) -> None:
        connection.idle_since = time.monotonic()
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweep_after(POOL_KEEPALIVE_S)

    @override
    def gone(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._empty is not None and not self._all and not self._empty.done():
            self._empty.set_result(None)

    def _sweep_after(self, delay_s: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Close those that have waited for too long; they are the first ones."""
        self._sweeper = None
        now = time.monotonic()
        while self._idle and now - self._idle[0].idle_since >= POOL_KEEPALIVE_S:
            self._idle.pop(0).abort()
        if self._idle:
            self._sweep_after(max(0.0, self._idle[0].idle_since + POOL_KEEPALIVE_S - now))

    async def _addresses(self, loop: asyncio.AbstractEventLoop) -> list[_AddrInfo]:
        resolved_at, addresses = self._resolved
        now = time.monotonic()
        if not addresses or now - resolved_at > _RESOLVED_S:
            addresses = list(await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
            self._resolved = (now, addresses)
        return addresses


def _socket(info: _AddrInfo) -> socket.socket:
    family, kind, proto = info[:3]
    sock = socket.socket(family, kind, proto)
    # Before it is connected: set afterwards, the window that was promised by then stalls the sender again and again.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setblocking(False)
    return sock


async def _connect(loop: asyncio.AbstractEventLoop, info: _AddrInfo) -> socket.socket:
    """Connect to the one address there is.

    On loopback that is done by the time the kernel answers a second call, which saves 50 µs and two turns of the loop.
    """
    sock, address = _socket(info), info[4]
    try:
        if sock.connect_ex(address) not in _CONNECTED and sock.connect_ex(address) not in _CONNECTED:
            await loop.sock_connect(sock, address)  # waits, or raises why not
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(loop: asyncio.AbstractEventLoop, addresses: list[_AddrInfo]) -> socket.socket:
    try:
        return await start_connection(
            addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, loop=loop, socket_factory=_socket
        )
    except RuntimeError as error:  # uvloop's own, for some addresses
        raise OSError(str(error)) from error


def _fixed_headers(url: URL, settings: UpstreamSettings) -> dict[str, str]:
    """What each request to this upstream carries; the settings' headers replace Edge's own."""
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    headers = {
        "Host": host if url.is_default_port() else f"{host}:{url.port}",
        "User-Agent": f"edge/{__version__}",
        "Accept": "*/*",
        "Accept-Encoding": "identity",
    }
    if settings.kind == "anthropic":
        headers["anthropic-version"] = ANTHROPIC_VERSION
    headers |= credential(settings)
    return merged(headers, settings.headers)
