"""A reader that comes back to a stream: from its journal if it runs here, else out of a store.

In: where the reader was. Out: a response, and its record. Must not: generate anything, or end the stream for
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
from edge.resume.lookup import Described, StartPoint, begin, check, count, find, seen_all, surface_of
from edge.resume.replay import Replay
from edge.resume.resumed_reader import ResumedReader
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer
from edge.telemetry.record import ReturnRecord


@dataclass(frozen=True, slots=True)
class ResumeRequest:
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
    after_error: AfterError = ALWAYS_RESETS


class Resume(ResumedReader):
    """One reader that came back, and what it reads.

    Args:
        start: What it reads, and from where on.
    """

    def __init__(self, services: ExchangeServices, returned: ResumeRequest, start: StartPoint) -> None:
        super().__init__(services)
        self.returned = returned
        self._described = start.described
        self._channel = start.channel
        self._position = start.position

    def __repr__(self) -> str:
        return f"<Resume {self.returned.request_id} {self._channel!r}>"

    def _make_reader(self, writer: Writer) -> Subscriber:
        services, dialect = self.services, DIALECTS[self._described.surface]
        return Subscriber(
            self._channel, writer, services.settings.stream, services.clock, self._changed,
            headers=self._headers,
            numbering=numbering(dialect.stream_type, self.returned.stream_id, self.returned.after),
            position=self._position,
            closes=self.returned.after_error.closes(self._described.surface),
        )  # fmt: skip

    async def _close(self) -> None:
        if isinstance(self._channel, Replay):
            await self._channel.closed()

    @override
    def shut_down(self) -> None:
        """A stream that is generated here is ended by its exchange."""
        if isinstance(self._channel, Replay):
            self._channel.break_off(ShuttingDown("Edge is shutting down; ask for the rest again"))

    def _headers(self) -> Mapping[str, str]:
        described, returned = self._described, self.returned
        headers = {"x-request-id": returned.request_id, "x-stream-id": returned.stream_id, **STREAM_HEADERS}
        if described.upstream is not None:
            headers["x-edge-upstream"] = described.upstream
        return {**headers, "Content-Type": DIALECTS[described.surface].stream_type}

    def _report(self, reader: Subscriber) -> None:
        services = self.services
        services.observer.returned(record(services, self.returned, self._described, reader))
        broken = self._channel.broken if isinstance(self._channel, Replay) else None
        if broken is not None and broken.__cause__ is not None:
            services.observer.failed(self.returned.request_id, self.returned.stream_id, broken.__cause__)


def record(
    services: ExchangeServices, returned: ResumeRequest, described: Described, reader: Subscriber
) -> ReturnRecord:
    """The record of a reader that came back, and has gone."""
    return ReturnRecord(
        request_id=returned.request_id,
        stream_id=returned.stream_id,
        surface=str(described.surface),
        model=described.model,
        session=described.session,
        principal=returned.principal,
        client=returned.client,
        after=returned.after,
        source=described.source,
        status=reader.sent_status,
        reader=reader.ending,
        reconnections=described.reconnections,
        bytes_out=reader.bytes_out,
        heartbeats=reader.heartbeats,
        total_s=max(0.0, services.clock() - returned.accepted_at),
    )


async def resume_one(
    services: ExchangeServices, returned: ResumeRequest, surface: Surface | None, speak: Callable[[Surface], None]
) -> Resume | None:
    """What answers a reader that came back; None if it has seen all there is, and was.

    ``surface``: whose route it came by; None for the one that is every surface's. ``speak``: gets the stream's, as soon
    as it is known that the reader may know of it.

    Raises:
        NotFound: there is no such stream, or it is somebody else's.
        Gone: what is asked for is not kept any more, or never was.
        BadRequest: there is no such event, or the route is another surface's.
        StoreUnavailable: it may be in a store that cannot be asked now.
    """
    place = await find(services, returned.principal, returned.stream_id)
    if surface not in (None, surface_of(place)):
        raise BadRequest(
            f"Last-Event-ID: that stream is not one of this route's, but of {surface_of(place)}; "
            "ask for GET /v1/streams/ID",
            param="Last-Event-ID",
            code="wrong_surface",
        )
    speak(surface_of(place))
    check(place, returned.after)
    if seen_all(place, returned.after):
        return None
    place = (await count({returned.stream_id: place}))[returned.stream_id]
    return Resume(services, returned, begin(services.settings.stream, place, returned.after))
