"""Resumes one stream: from its journal if it runs here, else from a store.

In: where the reader was. Out: a response, and one ReturnRecord. Must not: generate anything, or end the stream for
anybody else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from edge.errors import BadRequest, ShuttingDown
from edge.exchange.ports import STREAM_HEADERS, ExchangeServices
from edge.policy.after_error import ALWAYS_RESETS, AfterError
from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import numbering
from edge.protocol.surface import Surface
from edge.resume.lookup import StartPoint, StreamFacts, begin, check, count, find, seen_all, surface_of
from edge.resume.replay import Replay
from edge.resume.resumed_reader import ResumedReader
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer
from edge.telemetry.record import ReturnRecord


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """A request to read on in one stream.

    Attributes:
        after: The sequence of the last event that the reader has; 0 for none.
    """

    request_id: str
    stream_id: str
    principal: str
    client: str | None
    after: int
    accepted_at: float
    after_error: AfterError = ALWAYS_RESETS


class Resume(ResumedReader):
    """One reader that came back to a stream.

    Args:
        start: Where it begins.
    """

    def __init__(self, services: ExchangeServices, asked: ResumeRequest, start: StartPoint) -> None:
        super().__init__(services)
        self.asked = asked
        self._facts = start.facts
        self._channel = start.channel
        self._position = start.position

    def __repr__(self) -> str:
        return f"<Resume {self.asked.request_id} {self._channel!r}>"

    def _make_reader(self, writer: Writer) -> Subscriber:
        services, dialect = self.services, DIALECTS[self._facts.surface]
        return Subscriber(
            self._channel, writer, services.settings.stream, services.clock, self._changed,
            headers=self._headers,
            numbering=numbering(dialect.stream_type, self.asked.stream_id, self.asked.after),
            position=self._position,
            closes=self.asked.after_error.closes(self._facts.surface),
        )  # fmt: skip

    async def _close(self) -> None:
        if isinstance(self._channel, Replay):
            await self._channel.closed()

    @override
    def shut_down(self) -> None:
        """End a replay; the exchange ends a stream that is generated here."""
        if isinstance(self._channel, Replay):
            self._channel.break_off(ShuttingDown("Edge is shutting down; ask for the rest again"))

    def _headers(self) -> Mapping[str, str]:
        facts, asked = self._facts, self.asked
        headers = {"x-request-id": asked.request_id, "x-stream-id": asked.stream_id, **STREAM_HEADERS}
        if facts.upstream is not None:
            headers["x-edge-upstream"] = facts.upstream
        return {**headers, "Content-Type": DIALECTS[facts.surface].stream_type}

    def _record(self, reader: Subscriber) -> None:
        services = self.services
        services.observer.returned(record(services, self.asked, self._facts, reader))
        broken = self._channel.broken if isinstance(self._channel, Replay) else None
        if broken is not None and broken.__cause__ is not None:
            services.observer.failed(self.asked.request_id, self.asked.stream_id, broken.__cause__)


def record(services: ExchangeServices, asked: ResumeRequest, facts: StreamFacts, reader: Subscriber) -> ReturnRecord:
    """The record of a reader that had come back and has gone."""
    return ReturnRecord(
        request_id=asked.request_id,
        stream_id=asked.stream_id,
        surface=str(facts.surface),
        model=facts.model,
        session=facts.session,
        principal=asked.principal,
        client=asked.client,
        after=asked.after,
        source=facts.source,
        status=reader.sent_status,
        reader=reader.ending,
        reconnections=facts.reconnections,
        bytes_out=reader.bytes_out,
        heartbeats=reader.heartbeats,
        total_s=max(0.0, services.clock() - asked.accepted_at),
    )


async def resume_one(
    services: ExchangeServices, asked: ResumeRequest, surface: Surface | None, on_surface: Callable[[Surface], None]
) -> Resume | None:
    """Find the stream of a reader that comes back; None if it has ended and the reader has all of it.

    Args:
        services: What all exchanges share.
        asked: Who asks for what.
        surface: The surface of the route; None for the route that all surfaces share.
        on_surface: Called with the stream's surface once it is certain that the caller may know the stream: from then
            on errors have the shape of that surface.

    Raises:
        NotFound: there is no such stream, or it belongs to somebody else.
        Gone: the events asked for are not kept any more, or never were.
        BadRequest: there is no such event, or the route belongs to another surface.
        StoreUnavailable: it may be in a store that cannot be reached now.
    """
    place = await find(services, asked.principal, asked.stream_id)
    if surface not in (None, surface_of(place)):
        raise BadRequest(
            f"Last-Event-ID: that stream belongs to another route ({surface_of(place)}); use GET /v1/streams/ID",
            param="Last-Event-ID",
            code="wrong_surface",
        )
    on_surface(surface_of(place))
    check(place, asked.after)
    if seen_all(place, asked.after):
        return None
    place = (await count({asked.stream_id: place}))[asked.stream_id]
    return Resume(services, asked, begin(services.settings.stream, place, asked.after))
