"""What every request passes through, before its surface and after it.

In: raw requests. Out: a context with a principal; every failure in the error shape of the surface that was called; the
headers that all answers carry. Must not: read bodies, or touch an upstream before it is known who calls.
"""

import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http import HttpVersion11
from multidict import CIMultiDict

from edge import __version__
from edge.api.callers import WhoCalls
from edge.api.context import CONTEXT, Context, make_context, surface_path
from edge.api.wrong_route import explained
from edge.errors import Busy, EdgeError, Forbidden, InternalError, ShuttingDown, UpgradeRequired
from edge.policy.auth.client_address import UNIX, Proxies
from edge.policy.auth.hosts import Hosts, Origins
from edge.policy.hops import HEADER, Hop
from edge.settings import Settings
from edge.stream.writer import deliver

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Answered without a key: whoever asks is a load balancer or a probe, and learns nothing secret.
_OPEN = frozenset({"/health", "/ready"})
_BODY_UNWANTED = frozenset({408, 413})  # error before the request's body is there; its rest is not read
_SERVER = f"edge/{__version__}"
_RETRY_AFTER_S = "1"  # what is not there now may be soon; clients that back off by themselves start at half of it


class Refused:
    """Hears of each request that ended before it became an exchange."""

    __slots__ = ()

    def refused(self, request: web.BaseRequest, context: Context, error: EdgeError) -> None:
        """It was answered with this error."""
        raise NotImplementedError


class RequestMiddleware:
    """The middleware and the response hook of the application.

    Attributes:
        leaving: Each answer closes its connection: whoever sends more is to connect again, to whoever listens then.
    """

    def __init__(
        self, settings: Settings, clock: Callable[[], float], observer: Refused, callers: WhoCalls, hop: Hop
    ) -> None:
        self._clock = clock
        self._callers = callers
        self._hop = hop
        self._observer = observer
        self.leaving = False
        self.apply_settings(settings)

    def asks_for_keys(self) -> bool:
        """Whether a caller needs a credential."""
        return self._callers.required

    def apply_settings(self, settings: Settings) -> None:
        """These settings are in force."""
        allowed = settings.server.allowed_hosts
        self._hosts = {have_keys: Hosts(allowed, have_keys=have_keys) for have_keys in (False, True)}
        self._origins = Origins(settings.server.cors_origins)
        self._proxies = Proxies(settings.server.trusted_proxies)
        self._stall_s = settings.stream.client_stall_s  # a client that takes nothing of an answer for so long is cut

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The signature is aiohttp's."""
        over_unix = _over_unix(request)
        context = request[CONTEXT] = make_context(request, self._clock(), self._client(request, over_unix=over_unix))
        try:
            response = await self._handle(request, context, handler, over_unix=over_unix)
            if isinstance(response, web.Response) and not response.prepared:
                await deliver(request, response, self._stall_s)
        except ConnectionError:
            # The client left; nobody reads an answer. Raised on, aiohttp would log it as a failure of ours; a response
            # it finds undeliverable by itself.
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=499)
        return response

    async def _handle(
        self, request: web.Request, context: Context, handler: Handler, *, over_unix: bool
    ) -> web.StreamResponse:
        try:
            preflight = await self._admit(request, context, over_unix=over_unix)
            _refuse_websocket(request)
            return preflight or await handler(request)
        except EdgeError as refusal:
            return self._answer(request, context, refusal)
        except web.HTTPException as known:
            return self._answer(request, context, explained(request, known))
        except ConnectionError:
            raise
        except MemoryError:  # it passes, or it does not: either way no bug
            return self._answer(request, context, Busy("Edge has no memory for this request now; try again"))
        except Exception as bug:  # noqa: BLE001 - a bug of ours is answered in the surface's shape too
            error = InternalError("Edge failed while handling the request")
            error.__cause__ = bug
            context.exchanged = False  # an exchange records its own failures; this one is news to it
            return self._answer(request, context, error)

    async def on_response_prepare(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """The signal before each response: whatever goes out carries these."""
        headers = response.headers
        headers["Server"] = _SERVER
        if self.leaving or _is_the_last(request, response):
            headers["Connection"] = "close"
            response.force_close()
        context = request.get(CONTEXT)
        if context is not None:
            headers.setdefault("x-request-id", context.request_id)
            headers.setdefault("request-id", context.request_id)
        origin = request.headers.get("Origin")
        if origin is not None:
            headers.update(self._origins.headers(origin))

    def refuse(self, request: web.BaseRequest, error: EdgeError, head: bytes = b"") -> web.Response:
        """See ``api.client_connection.Refuse``."""
        if head:
            request = request.clone(rel_url=surface_path(head), headers={})
        context = request.get(CONTEXT)
        if context is None:
            peer = UNIX if _over_unix(request) else request.remote
            context = request[CONTEXT] = make_context(request, self._clock(), self._proxies.client(peer, [], []))
        context.exchanged = False  # this is news to any exchange
        response = self._answer(request, context, error)
        response.headers.update(
            {"Server": _SERVER, "x-request-id": context.request_id, "request-id": context.request_id}
        )
        response.force_close()
        return response

    def _client(self, request: web.Request, *, over_unix: bool) -> str | None:
        peer = UNIX if over_unix else request.remote
        headers = request.headers
        return self._proxies.client(peer, headers.getall("X-Forwarded-For", []), headers.getall("Forwarded", []))

    async def _admit(self, request: web.Request, context: Context, *, over_unix: bool) -> web.StreamResponse | None:
        asks_for_keys = self._callers.required
        self._hosts[asks_for_keys].check(request.headers.get("Host"), trusted=over_unix)
        origin = request.headers.get("Origin")
        if request.method == "OPTIONS" and origin is not None:
            headers = self._origins.preflight(origin, request.headers.get("Access-Control-Request-Headers"))
            if not headers:
                raise Forbidden("this origin may not call; see server.cors_origins")
            return web.Response(status=204, headers=headers)
        context.passed = self._hop.passed(request.headers.getall(HEADER, ()))
        if request.path not in _OPEN:
            context.principal = await self._callers.identify(request, context.client)
            if asks_for_keys and context.principal.anonymous:  # it was not known yet that no key is needed
                self._hosts[False].check(request.headers.get("Host"), trusted=over_unix)
        return None

    def _answer(self, request: web.BaseRequest, context: Context, error: EdgeError) -> web.Response:
        context_headers = CIMultiDict({"x-stream-id": context.stream_id, **error.headers})
        if not context.exchanged:
            self._observer.refused(request, context, error)
        body = context.dialect.format(None, context.request_id).error_body(error)
        if not error.retryable and error.status >= 500:
            # The SDKs repeat every 5xx twice unless they are error not to.
            context_headers.setdefault("x-should-retry", "false")
        elif error.status == 503:
            context_headers.setdefault("Retry-After", _RETRY_AFTER_S)
        response = web.Response(
            status=error.status, body=body, content_type="application/json", headers=context_headers
        )
        if isinstance(error, ShuttingDown):
            response.force_close()
        return response


def _is_the_last(request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Whether the connection has to end with this answer, whatever the client asked for."""
    if response.status in _BODY_UNWANTED and not request.content.is_eof():
        return True
    # To HTTP/1.0 there are no chunks: where there is no length, the end of the connection is the end of the body.
    return request.version < HttpVersion11 and response.content_length is None


def _over_unix(request: web.BaseRequest) -> bool:
    # By the socket's family: the peer's name is also missing once a TCP peer has gone.
    sock = None if request.transport is None else request.transport.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


def _refuse_websocket(request: web.BaseRequest) -> None:
    """Refuse the handshake of a WebSocket: Codex then uses HTTP at once. After a 404 or 405 it tries seven times.

    Raises:
        UpgradeRequired: it is one.
    """
    if request.method != "GET" or "Upgrade" not in request.headers:
        return
    if "websocket" in _tokens(request, "Upgrade") and "upgrade" in _tokens(request, "Connection"):
        message = "there are no WebSockets here; send the request over HTTP, as a POST"
        raise UpgradeRequired(message, headers={"Upgrade": "websocket", "Connection": "Upgrade"})


def _tokens(request: web.BaseRequest, header: str) -> list[str]:
    return [token.strip().lower() for value in request.headers.getall(header, ()) for token in value.split(",")]
