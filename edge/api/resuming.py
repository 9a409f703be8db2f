"""Coming back to a stream: what a request says of it, and the answer.

In: requests of any surface. Out: the rest of a stream, where one is asked for. Must not: generate anything.
"""

from aiohttp import web

from edge.api.context import CONTEXT, caller
from edge.api.request_options import after_error
from edge.errors import BadRequest
from edge.exchange.ports import ExchangeServices
from edge.policy.routing import printable
from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import parse_cursor
from edge.protocol.surface import Surface
from edge.resume.resume_one import ResumeRequest, resume_one


def count_read(request: web.Request, services: ExchangeServices) -> None:
    """Count a request for something that is kept; to be called before it is looked for.

    Raises:
        RateLimited: the caller has sent too many of them.
    """
    principal = caller(request)
    services.limits.read(request[CONTEXT].stream_id, principal.name, principal.limits)


async def resume(
    request: web.Request, services: ExchangeServices, surface: Surface | None, last: str, stream_id: str | None = None
) -> web.StreamResponse:
    """Read on after the event with the id ``last``.

    ``surface``: whose route it is, None for any; ``stream_id``: what the path names, if it does.

    Raises:
        EdgeError: see ``resume.resume_one.resume_one``.
    """
    cursor = parse_cursor(last)
    if cursor is None or stream_id not in (None, cursor[0]):
        form = f"{stream_id or 'st_…'}:NUMBER"
        raise BadRequest(
            f"Last-Event-ID: must be the id of an event of this stream, {form}, not {printable(last)!r}; "
            "leave it out to begin anew",
            param="Last-Event-ID",
        )
    return await resume_after(request, services, surface, *cursor)


async def resume_after(
    request: web.Request, services: ExchangeServices, surface: Surface | None, stream_id: str, after: int
) -> web.StreamResponse:
    """Read on after the event of this sequence; 204 if the stream ended with it.

    Raises:
        EdgeError: see ``resume.resume_one.resume_one``.
    """
    count_read(request, services)
    context = request[CONTEXT]
    asked = ResumeRequest(
        request_id=context.request_id,
        stream_id=stream_id,
        principal=caller(request).name,
        client=context.client,
        after=after,
        accepted_at=context.accepted_at,
        after_error=after_error(request, services.settings.stream),
    )
    context.stream_id = stream_id

    def on_surface(surface: Surface) -> None:
        context.dialect = DIALECTS[surface]

    reader = await resume_one(services, asked, surface, on_surface)
    if reader is None:
        return web.Response(status=204, headers={"x-stream-id": stream_id})
    context.exchanged = True
    return await reader.run(request)
