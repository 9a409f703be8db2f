"""Lookup: finds the stream that a reader comes back to, and the position in it where that reader begins.

In: a stream id, who asks, and the last event that the reader has. Out: what to attach to: the generation's journal if
the stream runs here, else a replay from a store. Must not: answer the request, or generate anything.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edge.errors import Gone, NotFound
from edge.exchange.ports import ExchangeServices, RunningExchange
from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import numbering
from edge.protocol.surface import Surface
from edge.resume.replay import Replay, gone, no_event, past_the_end
from edge.settings import Stream as StreamSettings
from edge.store.ports import LOST, StoreDown, StreamStore
from edge.stream.channel import Channel
from edge.stream.journal import Expired
from edge.stream.persistence import StoredStream

Location = RunningExchange | StoredStream  # the stream runs here, or is in a store


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """Facts about a resumed stream, for headers and the log. ``source``: ``live`` if it runs here, else ``store``."""

    surface: Surface
    model: str | None
    session: str | None
    upstream: str | None
    reconnections: int
    source: str


@dataclass(frozen=True, slots=True)
class StartPoint:
    """Where a reader begins.

    Attributes:
        channel: The generation of an exchange, or a ``Replay`` for this reader alone.
        position: The reader's position in the channel's journal.
    """

    channel: Channel
    position: int
    facts: StreamFacts


async def find(services: ExchangeServices, principal: str, stream_id: str) -> Location:
    """Find a stream of this principal.

    Raises:
        NotFound: there is no such stream, or it belongs to somebody else.
        StoreUnavailable: it may be in a store that cannot be reached now.
    """
    ((_, place),) = await find_all(services, principal, [stream_id])
    if isinstance(place, NotFound):
        raise place
    return place


async def find_all(
    services: ExchangeServices, principal: str, streams: Sequence[str]
) -> list[tuple[str, Location | NotFound]]:
    """Find several streams of this principal at once: each with its place, or with the error that it does not exist.

    Raises:
        StoreUnavailable: one may be in a store that cannot be reached now.
    """
    here: dict[str, Location] = {
        stream_id: exchange
        for stream_id in streams
        if (exchange := own_exchange(services, principal, stream_id)) is not None
    }
    elsewhere = [stream_id for stream_id in streams if stream_id not in here]
    if elsewhere:
        here.update(await services.archive.find_all(principal, elsewhere))
    return [(stream_id, here.get(stream_id) or unknown(stream_id)) for stream_id in streams]


def own_exchange(services: ExchangeServices, principal: str, stream_id: str) -> RunningExchange | None:
    """The exchange in this process that generates this stream of this principal; None if there is none."""
    exchange = services.registry.streams.get(stream_id)
    return exchange if exchange is not None and exchange.asked.principal.name == principal else None


def unknown(stream_id: str) -> NotFound:
    """The error for a stream that does not exist; the same for a stream of somebody else."""
    return NotFound(f"there is no stream {stream_id!r}", code="stream_not_found")


def surface_of(place: Location) -> Surface:
    """The surface of the stream."""
    return Surface(place.state.meta.surface) if isinstance(place, StoredStream) else place.prepared.surface


def check(place: Location, after: int) -> None:
    """Check that the stream can be read on after the event of this sequence.

    Raises:
        Gone: the events after it are not kept any more, or never were.
        BadRequest: there is no such event.
    """
    if not isinstance(place, StoredStream):
        if not place.generation.resumable:
            raise Gone(
                f"stream {place.stream_id} cannot be resumed, since that was not asked for; "
                "send x-edge-resume: 1 with the request",
                code="stream_not_kept",
            )
        if after > place.generation.journal.last:
            raise no_event(after, place.generation.journal.last)
        _position(place, after)
        return
    if after < place.state.first - 1:
        raise gone(place.state.meta.id, after)
    if place.state.ending is not None and after > place.state.last:
        raise past_the_end(place.state, after)


def seen_all(place: Location, after: int) -> bool:
    """Whether the stream has ended with this event, so that a reader that has it needs nothing more."""
    if not isinstance(place, StoredStream):
        return place.generation.outcome is not None and after == place.generation.journal.last > 0
    ending, last = place.state.ending, place.state.last
    return ending is not None and after == last > 0 and ending.error != LOST


async def count(places: Mapping[str, Location]) -> dict[str, Location]:
    """Count a reader that comes back to these streams: here in the stores; a generation counts it in ``begin``."""
    counted = dict(places)
    stores: dict[StreamStore, list[str]] = {}
    for stream_id, place in places.items():
        if isinstance(place, StoredStream):
            stores.setdefault(place.store, []).append(stream_id)
    for store, stream_ids in stores.items():
        with contextlib.suppress(StoreDown):
            for stream_id, again in (await store.came_back_all(stream_ids)).items():
                place = places[stream_id]
                if isinstance(place, StoredStream):
                    counted[stream_id] = replace(place, state=replace(place.state, reconnections=again))
    return counted


def begin(settings: StreamSettings, place: Location, after: int, *, own_events: bool = True) -> StartPoint:
    """The start point of a reader. Attach to it at once: a generation that nobody reads may end.

    Args:
        settings: The settings of the reader.
        place: Where the stream is; ``check`` has passed.
        after: The sequence of the last event that the reader has.
        own_events: A replay makes heartbeats and error events in the stream's surface; False if the reader does.

    Raises:
        Gone: the events after it are not kept any more.
    """
    if not isinstance(place, StoredStream):
        position = _position(place, after)
        place.generation.return_to()
        return StartPoint(place.generation, position, _facts(place))
    meta = place.state.meta
    dialect = DIALECTS[Surface(meta.surface)]
    marks = numbering(dialect.stream_type, meta.id, after)
    own = dialect.format(meta.model, meta.request_id) if own_events else None
    return StartPoint(Replay(place, settings, after, numbering=marks, surface_format=own), 0, _facts(place))


def _facts(place: Location) -> StreamFacts:
    if not isinstance(place, StoredStream):
        prepared, again = place.prepared, place.generation.reconnections
        return StreamFacts(prepared.surface, prepared.model, place.asked.session, place.upstream, again, "live")
    state, meta = place.state, place.state.meta
    surface = Surface(meta.surface)
    return StreamFacts(surface, meta.model, meta.session, state.upstream, state.reconnections, "store")


def _position(exchange: RunningExchange, after: int) -> int:
    cut = numbering(exchange.asked.dialect.stream_type, exchange.stream_id).cut
    try:
        return exchange.generation.journal.after(after, cut)
    except Expired:
        raise gone(exchange.stream_id, after) from None
