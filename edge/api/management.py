"""Changing the models of an Ollama: pull, push, create, copy, delete and blobs, passed on if the operator allows it.

In: requests. Out: what the one upstream with ``allow_management`` answers, line by line as it comes; a blob goes up as
it comes too; one log line for each. Must not: pass on anything to an upstream whose settings do not allow it, or keep a
blob.

These requests are rare, may take hours, and are no generations: neither the relay's pool nor its clocks are for them.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import aiohttp
import orjson
from aiohttp import web
from yarl import URL

from edge.api.body import Bodies
from edge.api.context import CONTEXT, caller
from edge.api.face import Handler
from edge.api.hops import hops_of
from edge.errors import Forbidden, NoUpstream, Unsupported, UpstreamUnreachable
from edge.policy.permission import check_admin
from edge.protocol.ndjson import encode_line
from edge.protocol.request import parse_object
from edge.protocol.surface import OLLAMA
from edge.settings import Stream as StreamSettings
from edge.settings import Upstream as UpstreamSettings
from edge.stream.exchange import House
from edge.telemetry import log
from edge.upstream.fleet import Fleet, Member
from edge.upstream.relay import reason

_BLOB = "/api/blobs/{digest:sha256[:-][0-9a-f]{64}}"
_JSON_ROUTES = (
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
)


class _Passed(NamedTuple):
    """What goes to the upstream."""

    path: str
    headers: dict[str, str]
    body: io.BytesIO | aiohttp.StreamReader | None


def routes(house: House, bodies: Bodies) -> list[web.RouteDef]:
    """Ollama's routes that change models."""
    fleet = house.fleet

    def json(path: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            check_admin(caller(request))
            member = _manageable(fleet)
            share = bodies.share(request)
            try:
                asked = parse_object(await bodies.read_raw(request, share))
                passed = _Passed(path, {"Content-Type": "application/json"}, io.BytesIO(orjson.dumps(asked)))
                return await _pass_on(request, member, passed, house.settings.stream, hops_of(request, fleet))
            finally:
                share.give_back()

        return handle

    async def blob(request: web.Request) -> web.StreamResponse:
        check_admin(caller(request))
        member = _manageable(fleet)
        if "Origin" in request.headers:  # a page could send one without asking first, as its type may be anything
            raise Forbidden("blobs are not taken from browsers")
        path = f"/api/blobs/{request.match_info['digest']}"  # nothing but digits, as the route says
        if request.method == "HEAD":
            return await _pass_on(
                request, member, _Passed(path, {}, None), house.settings.stream, hops_of(request, fleet)
            )
        length = request.headers.get("Content-Length")
        headers = {"Content-Type": "application/octet-stream", **({} if length is None else {"Content-Length": length})}
        return await _pass_on(
            request, member, _Passed(path, headers, request.content), house.settings.stream, hops_of(request, fleet)
        )

    return [
        *(web.route(method, path, json(path)) for method, path in _JSON_ROUTES),
        web.head(_BLOB, blob),
        web.post(_BLOB, blob),
    ]


def _manageable(fleet: Fleet) -> Member:
    """The one upstream whose models may be changed.

    Raises:
        EdgeError: there is none, or more than one could be meant.
    """
    allowed = [member for member in fleet.members if member.settings.allow_management]
    if not allowed:
        raise Forbidden("models cannot be changed through Edge unless an upstream has allow_management = true")
    if len(allowed) > 1:
        names = ", ".join(member.name for member in allowed)
        raise Unsupported(f"which upstream's models are to be changed? only one may have allow_management, not {names}")
    (member,) = allowed
    if not member.up:
        raise NoUpstream(f"upstream {member.name}, which has allow_management, {member.why}")
    if not member.native & OLLAMA:
        raise Unsupported(f"upstream {member.name}, which has allow_management, is no Ollama")
    return member


async def _pass_on(
    request: web.Request, member: Member, passed: _Passed, settings: StreamSettings, hops: Mapping[str, str]
) -> web.StreamResponse:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=settings.connect_s)
    url = URL(member.url + passed.path, encoded=True)
    headers = {"Accept-Encoding": "identity", **_credentials(member.settings), **passed.headers, **hops}
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
        try:
            answer = await session.request(
                request.method, url, headers=headers, data=passed.body, allow_redirects=False, ssl=_tls(member.settings)
            )
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamUnreachable(f"upstream {member.name} cannot be reached: {reason(error)}") from None
        _tell(request, member, passed.path, answer.status)
        async with answer:
            response = web.StreamResponse(status=answer.status, headers={"x-edge-upstream": member.name})
            response.content_type = answer.content_type
            await response.prepare(request)
            async for data in _read(answer, member.name):
                await _write(response, data, settings.client_stall_s)
            await response.write_eof()
            return response


def _tell(request: web.Request, member: Member, path: str, status: int) -> None:
    context = request[CONTEXT]
    log.get_logger().info(
        "management",
        request_id=context.request_id,
        principal=None if context.principal is None else context.principal.name,
        client=context.client,
        method=request.method,
        path=path,
        upstream=member.name,
        status=status,
    )


async def _read(answer: aiohttp.ClientResponse, name: str) -> AsyncIterator[bytes]:
    """What comes, as it comes; if it breaks off, at last the line that says so, which is what Ollama itself does."""
    while True:
        try:
            data = await answer.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            yield encode_line({"error": f"upstream {name} broke off in the middle of the answer: {reason(error)}"})
            return
        if not data:
            return
        yield data


async def _write(response: web.StreamResponse, data: bytes, stall_s: float) -> None:
    try:
        async with asyncio.timeout(stall_s):
            await response.write(data)
    except TimeoutError:
        raise ConnectionError("the client takes nothing") from None


def _credentials(settings: UpstreamSettings) -> dict[str, str]:
    key = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
    return {**key, **settings.headers}


def _tls(settings: UpstreamSettings) -> ssl.SSLContext | bool:
    return ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
