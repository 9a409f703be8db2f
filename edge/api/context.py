"""What the face knows of a request before any surface has looked at it.

In: the raw request. Out: ids, principal, error shape. Must not: read the body.
"""

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from edge.errors import InternalError
from edge.policy.auth.principal import Principal
from edge.protocol.dialect import Dialect
from edge.protocol.dialects import DIALECTS
from edge.protocol.surface import SESSION_PATHS, UPSTREAM_PATHS, Surface
from edge.upstream.fleet import Fleet

_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SURFACES = {path: surface for surface, path in UPSTREAM_PATHS.items()}
_SURFACES |= dict.fromkeys(SESSION_PATHS, Surface.SESSION)
_MESSAGES = UPSTREAM_PATHS[Surface.MESSAGES]


@dataclass(slots=True)
class Context:
    """One request, as far as the face knows it.

    Attributes:
        client: The address of who is calling, as far as it can be believed; None if it has gone already.
        principal: Set once it is known who calls.
        exchanged: It became an exchange, which has a record of its own.
        passed: The Edges that it has passed before this one.
    """

    request_id: str
    stream_id: str
    dialect: Dialect
    accepted_at: float
    client: str | None = None
    principal: Principal | None = None
    exchanged: bool = False
    passed: tuple[str, ...] = ()


_REQUEST_LINE = re.compile(rb"\b[A-Z]{3,20} (/[A-Za-z0-9_./-]*)")

CONTEXT = web.RequestKey("context", Context)


def caller(request: web.BaseRequest) -> Principal:
    """Who is calling.

    Raises:
        InternalError: nobody has found out, which is what the face is for.
    """
    principal = request[CONTEXT].principal
    if principal is None:
        raise InternalError("a request got past the face without a principal")
    return principal


def hops_of(request: web.BaseRequest, fleet: Fleet) -> Mapping[str, str]:
    """The headers to add to each request that Edge sends an upstream because of this one; see ``policy.hops``."""
    return fleet.hop.onward(request[CONTEXT].passed)


def make_context(request: web.BaseRequest, accepted_at: float, client: str | None) -> Context:
    """Ids for a request: its own if it is well-formed, else a new one; and the shape its errors will have."""
    given = request.headers.get("x-request-id", "")
    request_id = given if _WELL_FORMED.fullmatch(given) else f"req_{secrets.token_hex(16)}"
    surface = _SURFACES.get(request.path)
    if surface is None and request.path.startswith("/api/"):
        surface = Surface.OLLAMA_CHAT
    if surface is None:
        anthropic = "anthropic-version" in request.headers or request.path.startswith(f"{_MESSAGES}/")
        surface = Surface.MESSAGES if anthropic else Surface.CHAT
    return Context(request_id, f"st_{secrets.token_hex(16)}", DIALECTS[surface], accepted_at, client)


def surface_path(head: bytes) -> str:
    """A path with the error shape of the surface that a request was for which could not be read, or ``/``.

    It is never the client's own text, which may hold a key.
    """
    lines = _REQUEST_LINE.findall(head)  # of several, the last: those before it have been read
    path = lines[-1].decode() if lines else "/"
    if path in _SURFACES:
        return path
    if path.startswith("/api/"):
        return "/api/"
    return _MESSAGES if path.startswith(f"{_MESSAGES}/") or b"\nanthropic-version:" in head.lower() else "/"
