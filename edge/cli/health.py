"""``edge health``: does the Edge on this host answer? For a container's health check, and for scripts.

In: a URL, or else the environment that ``edge serve`` was given. Out: exit status 0 or 1, the latter with the reason.
Must not: import what serving needs: it runs every few seconds for as long as Edge does.
"""

import http.client
import os
import socket
import ssl
import sys
from urllib.parse import urlsplit

import click
from typing_extensions import override

from edge.config import Listen, is_loopback, parse_listen
from edge.settings import Server

_WITHIN_S = 4.0
_PATH = "/health"
# Where a socket that listens everywhere is reached from here.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_WITHIN_S)
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_WITHIN_S)
        self.sock.connect(self._path)


@click.command()
@click.option("--url", help="Edge's base URL; without one, the first address of EDGE_SERVER_LISTEN or of the defaults.")
def health(url: str | None) -> None:
    """Exit with 0 if Edge answers, and with 1 and the reason if it does not."""
    try:
        status = _own() if url is None else _status(_given(url))
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    else:
        why = None if status == http.client.OK else f"it answers {_PATH} with {status}"
    if why:
        click.echo(f"edge: not healthy: {why}", err=True)
        sys.exit(1)


def edge_at(listen: Listen) -> str | None:
    """Which Edge answers at an address of this host, such as ``edge/1.2.3``; None if it is none, or silent."""
    try:
        _, server = _answer_at(listen)
    except (OSError, http.client.HTTPException):
        return None
    return server if server.startswith("edge/") else None


def _status(connection: http.client.HTTPConnection) -> int:
    return _answer(connection)[0]


def _answer(connection: http.client.HTTPConnection, **headers: str) -> tuple[int, str]:
    """The status, and what answers."""
    try:
        connection.request("GET", _PATH, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Server", "")
    finally:
        connection.close()


def _given(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("--url must be http://HOST:PORT or https://HOST:PORT")
    if parts.scheme == "http":
        return http.client.HTTPConnection(parts.hostname, parts.port, timeout=_WITHIN_S)
    if is_loopback(parts.hostname):
        return _over_tls(parts.hostname, parts.port)
    return http.client.HTTPSConnection(parts.hostname, parts.port, timeout=_WITHIN_S)


def _own() -> int:
    """What the first address answers."""
    return _answer_at(_listening())[0]


def _answer_at(listen: Listen) -> tuple[int, str]:
    """What an address answers, under a Host that is answered whatever the names of this host are."""
    if listen.kind == "unix":
        return _answer(_UnixConnection(listen.path))
    host = _HERE.get(listen.host, listen.host)
    if not os.environ.get("EDGE_SERVER_TLS_CERT"):
        status, server = _answer(http.client.HTTPConnection(host, listen.port, timeout=_WITHIN_S), Host="localhost")
        if status != http.client.BAD_REQUEST:
            return status, server
        # So says a TLS address, too: the certificate may be set in a file that is not known here.
    return _answer(_over_tls(host, listen.port), Host="localhost")


def _over_tls(host: str, port: int | None) -> http.client.HTTPSConnection:
    """To this host, for which no certificate has to speak: it names those that clients use, and may be our own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=_WITHIN_S, context=context)


def _listening() -> Listen:
    """The first address that can be asked: sockets of systemd and port 0 cannot."""
    text = os.environ.get("EDGE_SERVER_LISTEN")
    addresses = [item.strip() for item in text.split(",")] if text else Server().listen
    for listen in map(parse_listen, addresses):
        if listen.kind == "unix" or listen.port:
            return listen
    raise ValueError("EDGE_SERVER_LISTEN does not say where Edge is: give --url")
