"""A reader that comes back to a stream: from its journal if it runs here, else out of a store.

In: where the reader was. Out: a response, and what is told of it. Must not: generate anything, or end the stream for
anybody else.
"""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from aiohttp import web

from edge.errors import BadRequest, Gone, NotFound, ShuttingDown
from edge.protocol.dialects import DIALECTS
from edge.protocol.numbering import numbering
from edge.protocol.surface import Surface
from edge.store.base import LOST, StoreDown
from edge.stream.audience import Audience
from edge.stream.exchange import STREAM_HEADERS, Exchange, House
from edge.stream.journal import Expired
from edge.stream.keeper import Found
from edge.stream.replay import Replay, gone, no_event, past_the_end
from edge.stream.subscriber import Subscriber
from edge.stream.voice import Voice
from edge.stream.writer import Writer
from edge.telemetry.record import ReturnRecord


@dataclass(frozen=True, slots=True)
class Returned:
    """A reader that came back.

    Attributes:
        after: Sequence of the event that it has seen last; 0 for none.
    """

    request_id: str
    stream_id: str
    principal: str
    client: str | None
    after: int
    accepted_at: float


class Attachment:
    """One reader that came back, and what it reads.

    Args:
        audience: An exchange's generation, or a ``Replay`` for this reader alone.
        position: Where in its journal the reader begins.
    """

    def __init__(
        self, house: House, returned: Returned, described: "Described", audience: Audience, position: int = 0
    ) -> None:
        self.house = house
        self.returned = returned
        self._described = described
        self._audience = audience
        self._position = position
        self._reader: Subscriber | None = None
        self._recorded = False

    def __repr__(self) -> str:
        return f"<Attachment {self.returned.request_id} {self._audience!r}>"

    async def run(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request.

        Raises:
            EdgeError: the stream had failed before it brought anything, or what is asked for is not kept any more.
        """
        house, dialect = self.house, DIALECTS[self._described.surface]
        reader = self._reader = Subscriber(
            self._audience, Writer(request), house.settings.stream, house.clock, self._changed,
            headers=self._headers,
            numbering=numbering(dialect.stream_type, self.returned.stream_id, self.returned.after),
            position=self._position,
        )  # fmt: skip
        house.registry.add(self)
        house.ticker.add(self)
        try:
            return await reader.run()
        finally:
            reader.leave()
            self._changed()
            if isinstance(self._audience, Replay):
                await self._audience.closed()

    def shut_down(self) -> None:
        """See ``registry.Owned``; a stream that is generated here is ended by its exchange."""
        if isinstance(self._audience, Replay):
            self._audience.break_off(ShuttingDown("Edge is shutting down; ask for the rest again"))

    def tick(self, now: float) -> None:
        """See ``ticker.Ticked``."""
        if self._reader is not None:
            self._reader.tick(now)

    def _headers(self) -> Mapping[str, str]:
        described, returned = self._described, self.returned
        headers = {"x-request-id": returned.request_id, "x-stream-id": returned.stream_id, **STREAM_HEADERS}
        if described.upstream is not None:
            headers["x-edge-upstream"] = described.upstream
        return {**headers, "Content-Type": DIALECTS[described.surface].stream_type}

    def _changed(self) -> None:
        reader = self._reader
        if reader is None or not reader.closed or self._recorded:
            return
        self._recorded = True
        house, returned, described = self.house, self.returned, self._described
        house.registry.discard(self)
        house.ticker.discard(self)
        house.tell.returned(
            ReturnRecord(
                request_id=returned.request_id,
                stream_id=returned.stream_id,
                surface=str(described.surface),
                model=described.model,
                session=described.session,
                principal=returned.principal,
                client=returned.client,
                after=returned.after,
                source="store" if isinstance(self._audience, Replay) else "live",
                status=reader.status or 499,
                reader="stalled" if reader.stalled else "gone" if reader.gone else "finished",
                reconnections=described.reconnections,
                bytes_out=reader.bytes_out,
                heartbeats=reader.heartbeats,
                total_s=house.clock() - returned.accepted_at,
            )
        )


@dataclass(frozen=True, slots=True)
class Described:
    """What is known of the stream that a reader came back to."""

    surface: Surface
    model: str | None
    session: str | None
    upstream: str | None
    reconnections: int


async def come_back(
    house: House, returned: Returned, surface: Surface | None, speak: Callable[[Surface], None]
) -> Attachment | None:
    """What answers a reader that came back; None if it has seen all there is, and was.

    ``surface``: whose route it came by; None for the one that is every surface's. ``speak``: told the stream's, as soon
    as it is known that the reader may know of it.

    Raises:
        NotFound: there is no such stream, or it is somebody else's.
        Gone: what is asked for is not kept any more, or never was.
        BadRequest: there is no such event, or the route is another surface's.
        StoreUnavailable: it may be in a store that cannot be asked now.
    """
    exchange = house.registry.streams.get(returned.stream_id)
    if exchange is not None and exchange.asked.principal.name == returned.principal:
        _check_surface(surface, exchange.prepared.surface)
        speak(exchange.prepared.surface)
        return _to_live(house, returned, exchange)
    found = None if exchange is not None else await house.keeper.find(returned.principal, returned.stream_id)
    if found is None:
        raise unknown(returned.stream_id)
    _check_surface(surface, Surface(found.state.meta.surface))
    speak(Surface(found.state.meta.surface))
    return await _to_stored(house, returned, found)


def unknown(stream_id: str) -> NotFound:
    """What is told of a stream that there is not, and in the same words of somebody else's."""
    return NotFound(f"there is no stream {stream_id!r}", code="stream_not_found")


def _check_surface(asked: Surface | None, surface: Surface) -> None:
    if asked is not None and asked is not surface:
        raise BadRequest(
            f"Last-Event-ID: that stream is not one of this route's, but of {surface}; ask for GET /v1/streams/ID",
            param="Last-Event-ID",
            code="wrong_surface",
        )


def _to_live(house: House, returned: Returned, exchange: Exchange) -> Attachment | None:
    generation, after = exchange.generation, returned.after
    if not generation.kept:
        raise Gone(
            f"stream {returned.stream_id} cannot be resumed, since that was not asked for; "
            "send x-edge-resume: 1 with the request",
            code="stream_not_kept",
        )
    if after > generation.journal.last:
        raise no_event(after, generation.journal.last)
    if generation.outcome is not None and after == generation.journal.last > 0:
        return None
    cut = numbering(exchange.asked.dialect.stream_type, returned.stream_id).cut
    try:
        position = generation.journal.after(after, cut)
    except Expired:
        raise gone(returned.stream_id, after) from None
    generation.return_to()
    prepared = exchange.prepared
    described = Described(
        prepared.surface, prepared.model, exchange.asked.session, exchange.upstream, generation.reconnections
    )
    return Attachment(house, returned, described, generation, position)


async def _to_stored(house: House, returned: Returned, found: Found) -> Attachment | None:
    state, after = found.state, returned.after
    meta = state.meta
    if after < state.first - 1:
        raise gone(meta.id, after)
    if state.ending is not None and after > state.last:
        raise past_the_end(state, after)
    if state.ending is not None and after == state.last > 0 and state.ending.error != LOST:
        return None
    with contextlib.suppress(StoreDown):
        state = replace(state, reconnections=await found.store.came_back(meta.id))
    surface = Surface(meta.surface)
    dialect = DIALECTS[surface]
    voice = Voice(dialect, meta.model, meta.request_id)
    marks = numbering(dialect.stream_type, meta.id, after)
    described = Described(surface, meta.model, meta.session, state.upstream, state.reconnections)

    async def find() -> Found | None:
        return await house.keeper.find(returned.principal, meta.id)

    replay = Replay(Found(found.store, state), find, house.settings.stream, after, numbering=marks, voice=voice)
    return Attachment(house, returned, described, replay)
