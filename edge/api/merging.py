"""Several streams over one connection: what a request says of that.

In: ``GET /v1/streams?ids=…&follow=1``. Out: the events of all, each with its stream. Must not: generate anything.
"""

from collections.abc import Sequence

from aiohttp import web

from edge.api.context import CONTEXT, caller
from edge.api.request_options import last_event_id
from edge.errors import BadRequest
from edge.exchange.ports import ExchangeServices
from edge.policy.routing import printable
from edge.protocol.event_ids import is_stream
from edge.protocol.mux_events import Marks, parse_marks
from edge.resume.lookup import unknown
from edge.resume.resume_many import MuxRequest, resume_many

# Each event's id covers all streams, with 40 bytes for each, and comes back as a header, of which 8 KiB are taken.
_MOST_IDS = 64


def ids(request: web.Request) -> Sequence[str] | None:
    """The streams that are asked for, in that order; None if none are named.

    Raises:
        BadRequest: they are too many, or one is named twice.
    """
    text = request.query.get("ids")
    if text is None:
        return None
    asked = [part.strip() for part in text.split(",")]
    if len(asked) > _MOST_IDS or not all(asked):
        raise BadRequest(f"ids: name 1 to {_MOST_IDS} streams, separated by commas", param="ids")
    if len(set(asked)) < len(asked):
        raise BadRequest("ids: name each stream once", param="ids")
    return asked


async def follow(request: web.Request, services: ExchangeServices, asked: Sequence[str] | None) -> web.StreamResponse:
    """Follow these streams to their ends; 204 if the reader has seen all of them.

    Raises:
        EdgeError: see ``resume.resume_many.resume_many``.
    """
    if asked is None:
        raise BadRequest("ids: name the streams to follow, separated by commas", param="ids")
    if "starting_after" in request.query:
        raise BadRequest(
            "starting_after: is for a single stream; for several, pass cursor=ID:NUMBER,ID:NUMBER",
            param="starting_after",
        )
    for stream_id in asked:
        if not is_stream(stream_id):
            raise unknown(printable(stream_id))
    context = request[CONTEXT]
    wanted = MuxRequest(
        request_id=context.request_id,
        principal=caller(request).name,
        client=context.client,
        accepted_at=context.accepted_at,
        order=asked,
        marks=_marks(request),
    )
    merging = await resume_many(services, wanted)
    if merging is None:
        return web.Response(status=204)
    context.exchanged = True
    return await merging.run(request)


def _marks(request: web.Request) -> Marks:
    """An ``EventSource`` that comes back asks with the URL that it began with: the header is the newer of the two."""
    name, text = "Last-Event-ID", last_event_id(request)
    if text is None:
        name, text = "cursor", request.query.get("cursor", "").strip() or None
    marks = Marks() if text is None else parse_marks(text)
    if marks is None:
        raise BadRequest(
            f"{name}: must be the id of an event of this connection, ID:NUMBER,ID:end,…, not {printable(str(text))!r}; "
            "leave it out to begin with the first event of each stream",
            param=name,
        )
    return marks
