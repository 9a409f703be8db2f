"""Changing the models of an Ollama: pull, push, create, copy, delete and blobs, passed on if the operator allows it.

In: requests. Out: what the one upstream with ``allow_management`` answers, line by line as it comes; a blob goes up as
it comes too. Must not: pass on anything to an upstream whose settings do not allow it, or keep a blob.

These requests are rare, may take hours, and are no generations: see ``exchange.transfer``.
"""

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from typing_extensions import override
from yarl import URL

from edge.api.body import Bodies
from edge.api.context import CONTEXT, caller, hops_of
from edge.api.face import Handler
from edge.api.surfaces import refuse_if_draining
from edge.api.upload import read_piece
from edge.config.listen import is_loopback, parse_listen
from edge.errors import Forbidden, NoUpstream, Unsupported
from edge.exchange.ports import ExchangeServices, TransferRequest
from edge.exchange.transfer import Transfer
from edge.policy.auth.permission import check_admin
from edge.protocol.json_text import dumps
from edge.protocol.request import parse_object
from edge.protocol.surface import OLLAMA
from edge.upstream.discovery.servers import Kind
from edge.upstream.fleet import Member
from edge.upstream.pool import Pool
from edge.upstream.ports import JSON_TYPE, Upload
from edge.upstream.relay.relay import Relay

_BLOB = "/api/blobs/{digest:sha256[:-][0-9a-f]{64}}"
_BLOB_TYPE = "application/octet-stream"
_PASSED_ON = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Via")
_JSON_ROUTES = (
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
)
_NAMES = ("model", "name", "source")  # the fields that say which model, newest spelling first; copy has a source


class _Blob(Upload):
    """See ``upstream.ports.Upload``: as long as its client says, and as it comes."""

    content_type = _BLOB_TYPE

    def __init__(self, request: web.BaseRequest, body_s: float) -> None:
        self.length = request.content_length
        self.touched = False
        self._request = request
        self._body_s = body_s

    @override
    async def read(self) -> bytes:
        self.touched = True
        return await read_piece(self._request, self._body_s)


def routes(services: ExchangeServices, bodies: Bodies) -> list[web.RouteDef]:
    """Ollama's routes that change models."""

    def json(path: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            check_admin(caller(request))
            member, pool = _manageable(services, request)
            refuse_if_draining(services)
            share = bodies.share(request)
            try:
                asked = parse_object(await bodies.read_raw(request, share))
                refuse_if_draining(services)
                sent = {**hops_of(request, services.fleet), "Content-Type": JSON_TYPE}
                passed = _request(request, path, _model(asked), sent, body=dumps(asked))
                return await Transfer(services, passed, member, pool).run(request)
            finally:
                share.give_back()

        return handle

    async def blob(request: web.Request) -> web.StreamResponse:
        check_admin(caller(request))
        member, pool = _manageable(services, request)
        if "Origin" in request.headers:  # a page could send one without asking first, as its type may be anything
            raise Forbidden("blobs are not taken from browsers")
        refuse_if_draining(services)
        path = f"/api/blobs/{request.match_info['digest']}"  # nothing but digits, as the route says
        hops = hops_of(request, services.fleet)
        if request.method == "HEAD":
            passed = _request(request, path, None, hops)
        else:
            upload = _Blob(request, services.settings.server.body_s)
            passed = _request(request, path, None, {**hops, "Content-Type": _BLOB_TYPE}, upload=upload)
        return await Transfer(services, passed, member, pool).run(request)

    return [
        *(web.route(method, path, json(path)) for method, path in _JSON_ROUTES),
        web.head(_BLOB, blob),
        web.post(_BLOB, blob),
    ]


def _request(
    request: web.Request, path: str, model: str | None, headers: Mapping[str, str], **what: Any
) -> TransferRequest:
    """The body to pass on; from here on the transfer records it."""
    context = request[CONTEXT]
    context.exchanged = True
    return TransferRequest(
        request_id=context.request_id,
        stream_id=context.stream_id,
        principal=caller(request),
        client=context.client,
        accepted_at=context.accepted_at,
        method=request.method,
        path=path,
        operation=path.split("/")[2],
        model=model,
        headers=headers,
        **what,
    )


def _model(asked: dict[str, Any]) -> str | None:
    found = (asked.get(name) for name in _NAMES)
    return next((name for name in found if isinstance(name, str)), None)


def _is_next_door(services: ExchangeServices, request: web.Request) -> bool:
    """Whether the caller, who needed no key, can reach an Ollama on this host without Edge as well.

    Edge must listen on this host alone, and nobody may have passed the request on: that proxy may be open to the world.
    """
    passed_on = any(name in request.headers for name in _PASSED_ON)
    server = services.settings.server
    local = all(parse_listen(text).loopback for text in (*server.listen, *server.admin_listen))
    return caller(request).anonymous and local and not server.trusted_proxies and not passed_on


def _is_local(member: Member) -> bool:
    host = URL(member.url).host if member.url else None
    return member.kind is Kind.OLLAMA and host is not None and is_loopback(host)


def _manageable(services: ExchangeServices, request: web.Request) -> tuple[Member, Pool]:
    """The one upstream whose models may be changed, and its connections.

    Raises:
        EdgeError: there is none, or more than one could be meant.
    """
    members = services.fleet.members
    allowed = [member for member in members if member.settings.allow_management]
    if not allowed and _is_next_door(services, request):
        allowed = [member for member in members if member.settings.allow_management is None and _is_local(member)]
    if not allowed:
        raise Forbidden("models cannot be changed through Edge unless an upstream has allow_management = true")
    if len(allowed) > 1:
        names = ", ".join(member.name for member in allowed)
        raise Unsupported(f"which upstream's models are to be changed? only one may have allow_management, not {names}")
    (member,) = allowed
    if not member.up:
        raise NoUpstream(f"upstream {member.name}, which has allow_management, {member.why}")
    if not (member.native & OLLAMA and isinstance(member.upstream, Relay)):
        raise Unsupported(f"upstream {member.name}, which has allow_management, is no Ollama")
    return member, member.upstream.pool
