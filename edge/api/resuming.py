"""Coming back to a stream: what a request says of it, and the answer.

In: requests of any surface. Out: the rest of a stream, where one is asked for. Must not: generate anything.
"""

from aiohttp import web

from edge.api.after_error import after_error
from edge.api.context import CONTEXT, caller
from edge.errors import BadRequest
from edge.exchange.ports import ExchangeServices
from edge.policy.routing import printable
from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import parse_cursor
from edge.protocol.surface import Surface
from edge.resume.resume_one import ResumeRequest, come_back

_FLAGS = {"1": True, "true": True, "0": False, "false": False}


def last_event_id(request: web.Request) -> str | None:
    """What a reader says that comes back; an ``EventSource`` that has seen no id may send an empty one."""
    return request.headers.get("Last-Event-ID", "").strip() or None


def count_read(request: web.Request, services: ExchangeServices) -> None:
    """Count a request for something that is kept; to be called before it is looked for.

    Raises:
        RateLimited: the caller has sent too many of them.
    """
    principal = caller(request)
    services.limits.read(request[CONTEXT].stream_id, principal.name, principal.limits)


def wants_resume(request: web.Request) -> bool:
    """Whether the client asks for a stream that it can come back to.

    Raises:
        BadRequest: it is not clear.
    """
    asked = flag("x-edge-resume", request.headers.get("x-edge-resume"))
    if asked is None and request.query_string:
        asked = flag("resume", request.query.get("resume"))
    return bool(asked)


def flag(name: str, text: str | None) -> bool | None:
    """What is said by 1 or 0; None if nothing is.

    Raises:
        BadRequest: it is not clear.
    """
    wanted = None if text is None else _FLAGS.get(text.strip().lower())
    if text is not None and wanted is None:
        raise BadRequest(f"{name}: must be 1 or 0, not {printable(text)!r}", param=name)
    return wanted


async def resume(
    request: web.Request, services: ExchangeServices, surface: Surface | None, last: str, stream_id: str | None = None
) -> web.StreamResponse:
    """Read on after the event with the id ``last``.

    ``surface``: whose route it is, None for any; ``stream_id``: what the path names, if it does.

    Raises:
        EdgeError: see ``resume.resume_one.come_back``.
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
        EdgeError: see ``resume.resume_one.come_back``.
    """
    count_read(request, services)
    context = request[CONTEXT]
    returned = ResumeRequest(
        request_id=context.request_id,
        stream_id=stream_id,
        principal=caller(request).name,
        client=context.client,
        after=after,
        accepted_at=context.accepted_at,
        after_error=after_error(request, services.settings.stream),
    )
    context.stream_id = stream_id

    def speak(surface: Surface) -> None:
        context.dialect = DIALECTS[surface]

    attachment = await come_back(services, returned, surface, speak)
    if attachment is None:
        return web.Response(status=204, headers={"x-stream-id": stream_id})
    context.exchanged = True
    return await attachment.run(request)
