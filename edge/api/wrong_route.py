"""The answer to a request for which there is no route: the one that it meant, and the base URL that leads there.

In: a request, and aiohttp's refusal of it. Out: an ``EdgeError``. Must not: quote more of a request than is printable
and short, or lead anybody anywhere: routes are exact.
"""

import re
from typing import NamedTuple

from aiohttp import web

from edge.errors import EdgeError, MethodNotAllowed, NotFound
from edge.protocol.surface import SESSION_PATHS, UPSTREAM_PATHS

_VERSION = "/v1"
# The paths that clients put behind a base URL.
_KNOWN = frozenset({*UPSTREAM_PATHS.values(), *SESSION_PATHS, "/v1/models", "/v1/streams", "/v1/sessions"}) | {
    f"/api/{name}" for name in ("tags", "show", "ps", "version")
}
_ONE_OF_MANY = ("/v1/models/", "/v1/streams/", "/v1/sessions/")  # an id follows
_MOST_PARTS = 12  # of a path that is looked at
_SHOWN_CHARS = 100
_HOST = re.compile(r"[A-Za-z0-9.:\[\]_-]{1,100}")


def explained(request: web.Request, known: web.HTTPException) -> EdgeError:
    """What aiohttp refused, as an error that says what would be right."""
    if known.status == 404:
        return NotFound(f"no such route: {request.method} {_short(request.path)}{_hint(request)}", code="unknown_route")
    if known.status == 405:
        allow = known.headers.get("Allow", "")
        headers = {"Allow": allow} if allow else {}
        message = f"{request.method} is not allowed here; use {allow}{_hint(request)}"
        return MethodNotAllowed(message, headers=headers)
    error = EdgeError(known.reason or "the request was refused")
    error.status = known.status
    return error


def _hint(request: web.Request) -> str:
    """What the base URL should be, if it is the base URL that is wrong; else nothing."""
    meant = _meant(request)
    if meant is None:
        return ""
    there = f"; there is {_short(meant.path)}"
    base = _base(request)
    if meant.lacks_version:
        return f"{there}: the base URL should be {base}{_VERSION}"
    if not meant.before:
        return there
    if not meant.path.startswith(_VERSION):
        return f"{there}: the base URL should be {base}"
    return (
        f"{there}: the base URL has one {_short(meant.before)} too many; it should be {base} for a client that adds "
        f"{_VERSION} itself (Anthropic's do), {base}{_VERSION} for others"
    )


class _Meant(NamedTuple):
    """A path that there is, in which another one ends.

    Attributes:
        before: What stands before it in the other one.
        lacks_version: ``/v1`` does not, and should.
    """

    path: str
    before: str = ""
    lacks_version: bool = False


def _meant(request: web.Request) -> _Meant | None:
    parts = [part for part in request.path.split("/", _MOST_PARTS) if part]
    for first in range(len(parts)):
        rest = "/" + "/".join(parts[first:])
        if _is_known(rest, request.method):
            before = "".join(f"/{part}" for part in parts[:first])
            return None if rest == request.path else _Meant(rest, before)
        if _is_known(_VERSION + rest, request.method):
            return _Meant(_VERSION + rest, lacks_version=True)
    return None


def _is_known(path: str, method: str) -> bool:
    return path in _KNOWN or (method != "POST" and path.startswith(_ONE_OF_MANY))


def _base(request: web.Request) -> str:
    """Where the client has reached Edge, as far as it says."""
    host = request.headers.get("Host", "")
    forwarded = request.headers.get("X-Forwarded-Proto", "").lower()
    scheme = forwarded if forwarded in ("http", "https") else request.scheme
    return f"{scheme}://{host}" if _HOST.fullmatch(host) else ""


def _short(path: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in path[:_SHOWN_CHARS])
