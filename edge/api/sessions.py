"""The session API: a message in, a stream out, and Edge remembers the conversation.

In: ``POST`` and ``GET /v1/chat/stream`` (``/stream``), ``GET`` and ``DELETE /v1/sessions/{id}``. Out: the exchange's
response, or what is kept of a session. Must not: generate again for a reader that comes back with an id.
"""

from collections.abc import Callable
from dataclasses import replace

from aiohttp import web

from edge.api.answer import json_answer
from edge.api.body import Bodies, Reading
from edge.api.callers import TICKET
from edge.api.context import CONTEXT, caller
from edge.api.face import Handler
from edge.api.request_options import lane_of, last_event_id, wants_resume
from edge.api.resuming import count_read, resume
from edge.api.surfaces import refuse_if_draining
from edge.errors import Forbidden, NotFound
from edge.exchange.exchange import Exchange
from edge.exchange.ports import ExchangeRequest, ExchangeServices
from edge.exchange.sessions import Held, Sessions
from edge.policy.auth.hosts import Origins
from edge.policy.auth.permission import check_model, may_use
from edge.policy.auth.principal import Principal
from edge.policy.lifecycle import Outcome
from edge.policy.limits.byte_budget import Share
from edge.policy.queue.lanes import Lane
from edge.policy.routing import default_model, printable
from edge.protocol.json_text import loads
from edge.protocol.session.encode import opening
from edge.protocol.session.parse import Wanted, is_session, prepared, read
from edge.protocol.surface import SESSION_PATHS, Surface
from edge.store.ports import Turn
from edge.stream.generation import Generation
from edge.telemetry.timeline import Phase

_FLAGS = {"true": True, "false": False}
_OWN = ("same-origin", "none")  # of Sec-Fetch-Site: asked by a page of Edge's own origin, or by a person


def routes(services: ExchangeServices, bodies: Bodies, sessions: Sessions) -> list[web.RouteDef]:
    """All routes of the session API."""
    stream = _stream(services, bodies, sessions)

    async def show(request: web.Request) -> web.Response:
        session = request.match_info["id"]
        count_read(request, services)
        found = await sessions.read(caller(request).name, session)
        if found is None:
            raise _unknown(session)
        turns = [{**_shown(turn), **({"partial": True} if turn.partial else {})} for turn in found.turns]
        fields = {"id": session, "turns": turns, "created": int(found.created), "updated": int(found.updated)}
        return json_answer(fields)

    async def delete(request: web.Request) -> web.Response:
        session = request.match_info["id"]
        count_read(request, services)
        if not is_session(session) or not await sessions.delete(caller(request).name, session):
            raise _unknown(session)
        return web.Response(status=204)

    return [
        *(web.post(path, stream) for path in SESSION_PATHS),
        *(web.get(path, stream, allow_head=False) for path in SESSION_PATHS),
        web.get("/v1/sessions/{id}", show),
        web.delete("/v1/sessions/{id}", delete),
    ]


def _stream(services: ExchangeServices, bodies: Bodies, sessions: Sessions) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        context, principal = request[CONTEXT], caller(request)
        if request.method == "GET":
            _check_origin(request, Origins(services.settings.server.cors_origins))
        if last := last_event_id(request):
            return await resume(request, services, Surface.SESSION, last)
        refuse_if_draining(services)
        wants_resume(request)  # which it is without asking; what is no answer to that is refused here too
        lane = lane_of(request, principal)
        share = bodies.share(request)
        held: Held | None = None
        try:
            wanted = await _wanted(request, services, bodies, share)
            check_model(principal, wanted.model, services.fleet.members)
            asked_at = services.clock()
            held = await sessions.hold(principal.name, wanted.session_id)
            refuse_if_draining(services)  # the drain has not waited for bodies, nor for the session
            exchange = _exchange(services, request, wanted, held, share, lane=lane)
            exchange.timeline.enter(Phase.QUEUED, asked_at)
            exchange.timeline.enter(Phase.EDGE, services.clock())
            context.exchanged = True
            return await exchange.run(request)
        finally:
            if not context.exchanged:
                share.give_back()
                if held is not None:
                    held.release()

    return handle


def _check_origin(request: web.Request, origins: Origins) -> None:
    """A GET that does something: any page could make a browser send it, and no preflight asks before."""
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site")
    foreign = origin is not None if site is None else site not in _OWN  # older browsers send no site
    if foreign and not origins.allows(origin or ""):
        raise Forbidden("this origin may not call; see server.cors_origins")


async def _wanted(request: web.Request, services: ExchangeServices, bodies: Bodies, share: Share) -> Wanted:
    most_bytes = services.settings.sessions.max_bytes // 2
    if request.method == "GET":
        query = {name: _FLAGS.get(text, text) if name == "metadata" else text for name, text in request.query.items()}
        query.pop(TICKET, None)  # it says who asks, not what
        wanted = read(query, "prompt", most_bytes)
    else:
        asked = await bodies.read(request, Surface.SESSION, share, Reading())
        wanted = read({**loads(asked.body), "stream": asked.stream}, "message", most_bytes)
    model = wanted.model or services.settings.sessions.model or _default_model(services, caller(request))
    return replace(wanted, model=None if model is None else services.fleet.names(Surface.SESSION)(model))


def _default_model(services: ExchangeServices, principal: Principal) -> str | None:
    return default_model(Surface.SESSION, services.fleet.members, lambda name: may_use(principal, name))


def _exchange(
    services: ExchangeServices, request: web.Request, wanted: Wanted, held: Held, share: Share, *, lane: Lane
) -> Exchange:
    context, principal = request[CONTEXT], caller(request)

    def settle(generation: Generation, outcome: Outcome, announce: Callable[[], None]) -> None:
        held.settle(wanted.message, generation, outcome, announce)

    asked = ExchangeRequest(
        request_id=context.request_id,
        stream_id=context.stream_id,
        principal=principal,
        client=context.client,
        dialect=context.dialect,
        headers={},
        release=share.give_back,
        accepted_at=context.accepted_at,
        opening=opening(wanted, context.stream_id),
        resume=True,
        session=wanted.session_id,
        lane=lane,
        passed=context.passed,
        settle=settle,
        detached=held.detached,
    )
    keep_bytes = services.settings.sessions.max_bytes - len(wanted.message.encode())
    turns = [(turn.role, turn.content) for turn in held.turns]
    most = services.limits.most(principal.name, principal.limits, str(Surface.SESSION))
    limit = None if most is None else most(wanted.model)
    exchange = Exchange(services, asked, prepared(wanted, turns, keep_bytes, context.accepted_at, limit))
    held.generation = exchange.generation
    return exchange


def _shown(turn: Turn) -> dict[str, object]:
    return {"role": turn.role, "content": turn.content, "at": int(turn.at)}


def _unknown(session: str) -> NotFound:
    return NotFound(f"there is no session {printable(session)!r}", code="session_not_found")
