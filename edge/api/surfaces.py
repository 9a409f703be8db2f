"""The surfaces whose requests become exchanges: parse, run, and nothing else but to estimate what nobody counts.

In: requests on the exact routes of ``protocol.surface``. Out: the exchange's response. Must not: know a dialect's
details; a route only names its surface.
"""

from dataclasses import replace

from aiohttp import web

from edge.api import ollama
from edge.api.body import Bodies, Reading
from edge.api.context import CONTEXT, caller
from edge.api.face import Handler
from edge.api.request_options import after_error, lane_of, last_event_id, wants_resume
from edge.api.resuming import resume
from edge.api.upload import FormUpload
from edge.errors import ShuttingDown
from edge.exchange.exchange import Exchange
from edge.exchange.ports import ExchangeRequest, ExchangeServices
from edge.policy.auth.permission import check_model
from edge.policy.routing import uncounted
from edge.protocol.surface import OLLAMA, UPLOADS, UPSTREAM_PATHS, Surface

# The only request headers that travel upstream, besides Edge's own. Never credentials, and never X-Conversation-Id:
# with it llama.cpp goes on generating after the reader has left.
_FORWARDED = ("anthropic-version", "anthropic-beta", "openai-beta")


def routes(services: ExchangeServices, bodies: Bodies) -> list[web.RouteDef]:
    """One POST route per surface; clients use the same paths as upstreams do."""
    return [web.post(path, _handler(services, bodies, surface)) for surface, path in UPSTREAM_PATHS.items()]


def _handler(services: ExchangeServices, bodies: Bodies, surface: Surface) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        context, principal = request[CONTEXT], caller(request)
        if last := last_event_id(request):
            return await resume(request, services, surface, last)
        refuse_if_draining(services)
        again, lane = wants_resume(request), lane_of(request, principal)
        ending = after_error(request, services.settings.stream)
        share = bodies.share(request)
        try:
            upload: FormUpload | None = None
            names = services.fleet.names(surface)
            if surface in UPLOADS:
                upload = FormUpload(request, services.settings.server, bodies.arrivals)
                prepared = await upload.begin(surface, share, model_once=principal.models is not None)
                prepared = replace(prepared, model=prepared.model and names(prepared.model))
            else:
                most = services.limits.most(principal.name, principal.limits, str(surface))
                reading = Reading(lambda: services.fleet.targets(surface), most, names)
                prepared = await bodies.read(request, surface, share, reading)
            refuse_if_draining(services)  # the drain has not waited for bodies
            check_model(principal, prepared.model, services.fleet.members)
            if surface is Surface.COUNT_TOKENS and uncounted(prepared.model, services.fleet.members):
                return web.json_response(
                    {"input_tokens": await bodies.estimate(prepared)}, headers={"x-edge-estimated": "true"}
                )
            if surface in OLLAMA:
                loaded = ollama.loaded(prepared, services.fleet)
                if loaded is not None:
                    return loaded
            asked = ExchangeRequest(
                request_id=context.request_id,
                stream_id=context.stream_id,
                principal=principal,
                client=context.client,
                dialect=context.dialect,
                headers=_forwarded(request),
                release=share.give_back,
                accepted_at=context.accepted_at,
                upload=upload,
                resume=again,
                lane=lane,
                passed=context.passed,
                after_error=ending,
                id_made=context.request_id != request.headers.get("x-request-id"),
            )
            context.exchanged = True
            exchange = Exchange(services, asked, prepared)
            del prepared  # the exchange lets go of the body as soon as it can
            return await exchange.run(request)
        finally:
            if not context.exchanged:
                share.give_back()

    return handle


def _forwarded(request: web.Request) -> dict[str, str]:
    """What goes on of the request's headers; of one that is there several times, all values."""
    return {name: ", ".join(request.headers.getall(name)) for name in _FORWARDED if name in request.headers}


def refuse_if_draining(services: ExchangeServices) -> None:
    """Nothing new is begun any more once Edge is leaving.

    Raises:
        ShuttingDown: it is.
    """
    if services.registry.draining:
        raise ShuttingDown("Edge is shutting down; send the request again")
