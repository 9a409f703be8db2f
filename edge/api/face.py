"""What every request passes through, before its surface and after it.

In: raw requests. Out: a context with a principal; every failure in the error shape of the surface that was called; the
headers that all answers carry. Must not: read bodies, or touch an upstream before it is known who calls.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from edge import __version__
from edge.api.context import CONTEXT, Context, make_context
from edge.errors import EdgeError, Forbidden, InternalError, MethodNotAllowed, NotFound
from edge.policy.auth import Keys
from edge.policy.hosts import Hosts, Origins

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Answered without a key: whoever asks is a load balancer or a probe, and learns nothing secret.
_OPEN = frozenset({"/health", "/ready"})
_SERVER = f"edge/{__version__}"


class Refused(Protocol):
    """Told of each request that ended before it became an exchange."""

    def refused(self, request: web.BaseRequest, context: Context, error: EdgeError) -> None:
        """It was answered with this error."""


class Face:
    """The middleware and the response hook of the application."""

    def __init__(self, keys: Keys, hosts: Hosts, origins: Origins, clock: Callable[[], float], tell: Refused) -> None:
        self._keys = keys
        self._hosts = hosts
        self._origins = origins
        self._clock = clock
        self._tell = tell

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The signature is aiohttp's."""
        context = request[CONTEXT] = make_context(request, self._clock())
        try:
            preflight = self._admit(request, context)
            return preflight or await handler(request)
        except EdgeError as told:
            return self._answer(request, context, told)
        except web.HTTPException as known:
            return self._answer(request, context, _translate(request, known))
        except ConnectionError:
            raise  # the client left; there is nobody to tell
        except Exception as bug:  # noqa: BLE001 - a bug of ours is answered in the surface's shape too
            error = InternalError("Edge failed while handling the request")
            error.__cause__ = bug
            return self._answer(request, context, error)

    async def on_response_prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """The signal before each response: whatever goes out carries these."""
        headers = response.headers
        headers["Server"] = _SERVER
        context = request.get(CONTEXT)
        if context is not None:
            headers.setdefault("x-request-id", context.request_id)
            headers.setdefault("request-id", context.request_id)
        origin = request.headers.get("Origin")
        if origin is not None:
            headers.update(self._origins.headers(origin))

    def _admit(self, request: web.Request, context: Context) -> web.StreamResponse | None:
        transport = request.transport
        unix = transport is not None and not isinstance(transport.get_extra_info("peername"), tuple)
        self._hosts.check(request.headers.get("Host"), trusted=unix)
        origin = request.headers.get("Origin")
        if request.method == "OPTIONS" and origin is not None:
            headers = self._origins.preflight(origin, request.headers.get("Access-Control-Request-Headers"))
            if not headers:
                raise Forbidden("this origin may not call; see server.cors_origins")
            return web.Response(status=204, headers=headers)
        if request.path not in _OPEN:
            context.principal = self._keys.check(request.headers)
        return None

    def _answer(self, request: web.BaseRequest, context: Context, error: EdgeError) -> web.Response:
        context_headers = {"x-stream-id": context.stream_id, **error.headers}
        if not context.exchanged:
            self._tell.refused(request, context, error)
        body = context.dialect.error_body(error, context.request_id)
        if not error.retryable and error.status >= 500:
            # The SDKs repeat every 5xx twice unless they are told not to.
            context_headers.setdefault("x-should-retry", "false")
        return web.Response(status=error.status, body=body, content_type="application/json", headers=context_headers)


def _translate(request: web.BaseRequest, known: web.HTTPException) -> EdgeError:
    if known.status == 404:
        return NotFound(f"no such route: {request.method} {_short(request.path)}", code="unknown_route")
    if known.status == 405:
        allow = known.headers.get("Allow", "")
        headers = {"Allow": allow} if allow else {}
        return MethodNotAllowed(f"{request.method} is not allowed here; use {allow}", headers=headers)
    error = EdgeError(known.reason or "the request was refused")
    error.status = known.status
    return error


def _short(path: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in path[:100])
