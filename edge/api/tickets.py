"""Tickets for browsers: ``POST /v1/tickets``.

In: how long, and for which stream. Out: a ticket, to whoever could read the streams with a header as well. Must not:
let a ticket be kept by anybody on the way.
"""

from aiohttp import web

from edge.api.answer import json_answer
from edge.api.body import Bodies
from edge.api.callers import Callers
from edge.api.context import caller
from edge.policy.auth.tickets import MOST_TTL_S
from edge.protocol.event_ids import is_stream
from edge.protocol.fields import Fields
from edge.protocol.request import parse_object

PATH = "/v1/tickets"
_TTL_S = 60


def routes(callers: Callers, bodies: Bodies) -> list[web.RouteDef]:
    """The route."""

    async def give(request: web.Request) -> web.Response:
        ttl_s, stream = await _asked(request, bodies)
        ticket, expires = await callers.ticket(caller(request), ttl_s, stream)
        fields = {"object": "ticket", "ticket": ticket, "expires_at": int(expires), "stream": stream}
        return json_answer(fields, headers={"Cache-Control": "no-store"})

    return [web.post(PATH, give)]


async def _asked(request: web.Request, bodies: Bodies) -> tuple[float, str | None]:
    """What is asked for; no body at all asks for nothing special."""
    if not request.can_read_body:
        return _TTL_S, None
    share = bodies.share(request)
    try:
        fields = Fields(parse_object(await bodies.read_raw(request, share)))
    finally:
        share.give_back()
    ttl_s, stream = fields.whole("ttl_s"), fields.text("stream")
    if ttl_s is not None and not 1 <= ttl_s <= MOST_TTL_S:
        raise fields.wrong("ttl_s", f"must be 1 to {MOST_TTL_S}")
    if stream is not None and not is_stream(stream):
        raise fields.wrong("stream", "must be the id of a stream (st_ and 32 hex digits)")
    for name in fields.rest():
        raise fields.wrong(name, "no such field; there are ttl_s and stream")
    return _TTL_S if ttl_s is None else ttl_s, stream
