"""``edge health``: does the Edge on this host answer? For a container's health check, and for scripts.

In: a URL, or else the environment that ``edge serve`` was given. Out: exit status 0 or 1, the latter with the reason.
Must not: import what serving needs: it runs every few seconds for as long as Edge does.
"""

import http.client
import os
import socket
import sys
from urllib.parse import urlsplit

import click

from edge.config import Listen, parse_listen
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

    def connect(self) -> None:
        """See ``HTTPConnection``."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_WITHIN_S)
        self.sock.connect(self._path)


@click.command()
@click.option("--url", help="Edge's base URL; without one, the first address of EDGE_SERVER_LISTEN or of the defaults.")
def health(url: str | None) -> None:
    """Exit with 0 if Edge answers, and with 1 and the reason if it does not."""
    try:
        status = _status(_given(url) if url is not None else _listening())
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    else:
        why = None if status == http.client.OK else f"it answers {_PATH} with {status}"
    if why:
        click.echo(f"edge: not healthy: {why}", err=True)
        sys.exit(1)


def _status(connection: http.client.HTTPConnection) -> int:
    try:
        connection.request("GET", _PATH)
        return connection.getresponse().status
    finally:
        connection.close()


def _given(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("--url must be http://HOST:PORT or https://HOST:PORT")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    return kind(parts.hostname, parts.port, timeout=_WITHIN_S)


def _listening() -> http.client.HTTPConnection:
    """To the first address that tells where it is: the sockets of systemd and port 0 do not."""
    text = os.environ.get("EDGE_SERVER_LISTEN")
    addresses = [item.strip() for item in text.split(",")] if text else Server().listen
    for listen in map(parse_listen, addresses):
        if listen.kind == "unix":
            return _UnixConnection(listen.path)
        if listen.port:
            return _tcp(listen)
    raise ValueError("EDGE_SERVER_LISTEN does not tell where Edge is: give --url")


def _tcp(listen: Listen) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(_HERE.get(listen.host, listen.host), listen.port, timeout=_WITHIN_S)
