"""Listening: sockets with small send buffers, a bound on connections, and aiohttp's server behind them.

In: an application, listen addresses, and a certificate if there is one. Out: accepted connections. Must not: look at a
request.
"""

import asyncio
import errno
import functools
import grp
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from edge.api.client_connection import ClientConnection, Refuse
from edge.api.tls import Certificate, HandshakeLimit
from edge.config import Listen
from edge.settings import Server as ServerSettings
from edge.stream.writer import SEND_BUFFER

_BACKLOG = 1024
_MOST_CONNECTIONS = 4096
_READ_BUFFER = 64 * 1024  # of a body: twice this and one read at the most; aiohttp's default is four times that
_OWN_FILES = 64  # descriptors for listening, logs, probes and the like
_SYSTEMD_FIRST_FD = 3  # sd_listen_fds(3)
_NONE: Mapping[str, Sequence[int]] = {}
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_FULL_BODY = (
    b'{"error":{"message":"too many connections (server.max_connections)","type":"server_error",'
    b'"param":null,"code":"server_is_overloaded"}}'
)


def connection_limit(settings: ServerSettings) -> int:
    """``max_connections``, or what the open-file limit allows: each connection may need one to an upstream."""
    if settings.max_connections:
        return settings.max_connections
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return _MOST_CONNECTIONS
    return max(1, min(_MOST_CONNECTIONS, (soft - _OWN_FILES) // 2))


def somebody_listens(path: Path) -> bool:
    """Whether this Unix socket is alive, not left behind by a process that was killed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        return sock.connect_ex(str(path)) != errno.ECONNREFUSED


class ConnectionLimit:
    """The protocol factory: a client's connection while there is room, else one that refuses.

    Args:
        server: aiohttp's, which knows the connections.
        limit: How many there may be.
        connect: Makes one.
    """

    def __init__(self, server: web.Server, limit: int, connect: Callable[[web.Server], asyncio.Protocol]) -> None:
        self._server = server
        self._limit = limit
        self._connect = connect

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one more connection."""
        return self._connect(self._server) if self.room() > 0 else _Refuse()

    def room(self) -> int:
        """How many more connections it would let in."""
        return max(0, self._limit - len(self._server.connections))


class _Refuse(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer at once; nothing is read."""
        peer = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        peer.write(_FULL % (len(_FULL_BODY), _FULL_BODY))
        peer.close()


_http_logger = logging.getLogger("edge.http")


class Listener:
    """Everything that listens for one application.

    Attributes:
        owns_paths: The paths of Unix sockets go when it stops; not while another process listens there as well.

    Args:
        app: Whom the requests are for.
        settings: Where and how.
        limit: Connections at once.
        refuse: Answers what is no request.
    """

    def __init__(self, app: web.Application, settings: ServerSettings, limit: int, refuse: Refuse) -> None:
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=0.5,  # waited for up to twice; what is left by now has had its time
        )
        self._connect = functools.partial(
            ClientConnection,
            refuse=refuse,
            max_header_bytes=settings.max_header_bytes,
            access_log=None,
            logger=_http_logger,
            keepalive_timeout=settings.keepalive_s,
            read_bufsize=_READ_BUFFER,
        )
        self._limit = limit
        self._unix_mode = int(settings.unix_mode, 8)
        self._unix_group = settings.unix_group
        self._certificate: Certificate | None = None
        self._shaking: HandshakeLimit | None = None
        self._servers: list[asyncio.Server] = []
        self._listening: dict[str, list[socket.socket]] = {}
        self.owns_paths = True
        self._paths: list[Path] = []
        self.addresses: list[str] = []

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return 0 if self._runner.server is None else len(self._runner.server.connections)

    @property
    def sockets(self) -> dict[str, list[int]]:
        """The descriptors of what is listened on, by address."""
        return {address: [sock.fileno() for sock in socks] for address, socks in self._listening.items()}

    async def start(
        self,
        listens: list[Listen],
        certificate: Certificate | None = None,
        adopted: Mapping[str, Sequence[int]] = _NONE,
    ) -> None:
        """Listen on all of them.

        Args:
            listens: The addresses.
            certificate: With one, every TCP socket speaks TLS; Unix sockets never do.
            adopted: The ``sockets`` of the process that this one replaces. Those that are not listened on any more are
                closed; a Unix socket's path is left behind then.

        Raises:
            OSError: an address cannot be listened on; the message names it.
        """
        await self._runner.setup()
        server = self._runner.server
        if server is None:
            raise RuntimeError("aiohttp's runner made no server")
        gate = ConnectionLimit(server, self._limit, self._connect)
        self._certificate = certificate
        self._shaking = HandshakeLimit(certificate, gate, gate.room) if certificate else None
        for listen in listens:
            known = adopted.get(str(listen), ())
            self._listening[str(listen)] = self._adopt(listen, known) if known else self._sockets(listen)
        for sock in chain.from_iterable(self._listening.values()):  # all of them could be had, so nobody is let down
            await self._serve(gate, sock)
        for descriptor in chain.from_iterable(adopted[address] for address in adopted.keys() - self._listening.keys()):
            os.close(descriptor)

    def reload_tls(self) -> None:
        """Show the certificate that is in the files now to new connections; nothing to do without TLS.

        Raises:
            OSError: It cannot be used; the one in use stays.
        """
        if self._certificate is not None:
            self._certificate.reload()

    async def stop_accepting(self) -> None:
        """Close the listening sockets; connections stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        for sock in chain.from_iterable(self._listening.values()):
            sock.close()  # one that was never served; the others are closed already
        self._listening.clear()
        for path in self._paths if self.owns_paths else ():
            path.unlink(missing_ok=True)
        self._paths.clear()

    async def close(self) -> None:
        """Close everything."""
        await self.stop_accepting()
        if self._shaking is not None:
            self._shaking.close()
        await self._runner.cleanup()

    async def _serve(self, gate: Callable[[], asyncio.Protocol], sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        sock.setblocking(False)
        # Inherited by every connection: what the kernel takes for a reader that does not read.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        if sock.family == socket.AF_UNIX:
            self._servers.append(await loop.create_unix_server(gate, sock=sock, backlog=_BACKLOG, **_keeps_path(loop)))
            self.addresses.append(f"unix:{sock.getsockname()}")
        else:
            self._servers.append(await loop.create_server(self._shaking or gate, sock=sock, backlog=_BACKLOG))
            host, port = sock.getsockname()[:2]
            scheme = "http" if self._shaking is None else "https"
            self.addresses.append(f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}")

    def _adopt(self, listen: Listen, descriptors: Sequence[int]) -> list[socket.socket]:
        if listen.kind == "unix":
            self._paths.append(Path(listen.path))
        return [socket.socket(fileno=descriptor) for descriptor in descriptors]

    def _sockets(self, listen: Listen) -> list[socket.socket]:
        try:
            if listen.kind == "systemd":
                return _from_systemd()
            if listen.kind == "unix":
                return [self._unix(Path(listen.path))]
            return [_tcp(*entry) for entry in _resolve(listen)]
        except OSError as error:
            why = f"cannot listen on {listen}: {error.strerror or error}"
            if error.errno in {errno.EACCES, errno.EPERM}:
                why += f"; {_remedy(listen)}"
            raise OSError(error.errno, why) from None

    def _unix(self, path: Path) -> socket.socket:
        if path.is_socket():
            if somebody_listens(path):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            path.unlink()  # left behind by a process that was killed
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._bind_unix(sock, path)
        except OSError:
            sock.close()
            raise
        return sock

    def _bind_unix(self, sock: socket.socket, path: Path) -> None:
        """Make the file with its permissions and group. Nobody is let in before the socket listens, later."""
        before = os.umask(0o777 & ~self._unix_mode)
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        self._paths.append(path)
        if self._unix_group:
            os.chown(path, -1, _group_id(self._unix_group), follow_symlinks=False)


def _remedy(listen: Listen) -> str:
    """What helps who may not listen there."""
    if listen.kind == "unix":
        return f"let user {os.geteuid()} write in {Path(listen.path).absolute().parent}, or choose another directory"
    return "ports below 1024 need CAP_NET_BIND_SERVICE or a socket of systemd's; or choose another port"


def _group_id(group: str) -> int:
    if group.isdecimal():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise OSError(errno.EINVAL, "there is no such group as server.unix_group") from None


def _keeps_path(loop: asyncio.AbstractEventLoop) -> dict[str, Any]:
    """From Python 3.13 on, asyncio's own loop removes the path of a socket that it closes."""
    own = isinstance(loop, asyncio.BaseEventLoop) and sys.version_info >= (3, 13)
    return {"cleanup_socket": False} if own else {}


Resolved = tuple[socket.AddressFamily, tuple[str, int]]


def _resolve(listen: Listen) -> list[Resolved]:
    infos = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, (str(address[0]), int(address[1]))) for family, _, _, _, address in infos))


def _tcp(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _from_systemd() -> list[socket.socket]:
    count = int(os.environ.get("LISTEN_FDS", "0")) if os.environ.get("LISTEN_PID") == str(os.getpid()) else 0
    if count == 0:
        raise OSError(0, "systemd passed no socket (LISTEN_FDS); is this started by a .socket unit?")
    return [socket.socket(fileno=_SYSTEMD_FIRST_FD + number) for number in range(count)]
