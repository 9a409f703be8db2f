"""Resumes several streams over one connection.

In: stream ids and a cursor. Out: one response, and one ReturnRecord per stream. Must not: generate anything, or end a
stream for anybody else.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from typing_extensions import override

from edge.errors import BadRequest, EdgeError, Gone, NotFound, ShuttingDown
from edge.exchange.ports import STREAM_HEADERS, ExchangeServices
from edge.protocol.dialects import DIALECTS
from edge.protocol.mux_events import ENDED, Marks, MuxFormat
from edge.protocol.sse import SSE_TYPE
from edge.resume.lookup import Location, StartPoint, begin, check, count, find_all
from edge.resume.mux import Mux, MuxedStream
from edge.resume.resume_one import ResumeRequest, record
from edge.resume.resumed_reader import ResumedReader
from edge.stream.subscriber import Subscriber
from edge.stream.writer import Writer

_LEAST_BYTES = 16 * 1024  # how far each stream is at least read ahead from a store


@dataclasses.dataclass(frozen=True, slots=True)
class MuxRequest:
    """A request for several streams at once. ``marks``: how far the reader has got in each."""

    request_id: str
    principal: str
    client: str | None
    accepted_at: float
    order: Sequence[str]
    marks: Marks


class ResumeMany(ResumedReader):
    """One reader of several streams.

    Args:
        places: Where the streams are that it can read on.
        lost: The errors of the others.
    """

    def __init__(
        self,
        services: ExchangeServices,
        asked: MuxRequest,
        places: Mapping[str, Location],
        lost: Mapping[str, EdgeError],
    ) -> None:
        super().__init__(services)
        self.asked = asked
        self._places = dict(places)
        self._lost = dict(lost)
        self._followed: list[tuple[MuxedStream, StartPoint]] = []
        self._mux = Mux(asked.request_id, services.settings.stream, MuxFormat(asked.order, asked.marks.seen))

    def __repr__(self) -> str:
        return f"<ResumeMany {self._mux!r}>"

    def _make_reader(self, writer: Writer) -> Subscriber:
        services = self.services
        return Subscriber(
            self._mux, writer, services.settings.stream, services.clock, self._changed, headers=self._headers
        )

    async def _close(self) -> None:
        await self._mux.closed()

    @override
    def shut_down(self) -> None:
        """End those that are not generated here; exchanges end the others."""
        self._mux.leave(ShuttingDown("Edge is shutting down; ask for the rest again"))

    def _begin(self) -> None:
        mux, stream = self._mux, self.services.settings.stream
        share = max(_LEAST_BYTES, stream.buffer_bytes // len(self.asked.order))
        ahead = replace(stream, buffer_bytes=min(stream.buffer_bytes, share))
        for stream_id, error in self._lost.items():
            mux.lose(stream_id, error)
        for stream_id, place in self._places.items():
            after = self.asked.marks.seen.get(stream_id, 0)
            try:
                start = begin(ahead, place, after, own_events=False)
            except Gone as gone:  # dropped since the check
                mux.lose(stream_id, gone)
                continue
            source = mux.add(start, DIALECTS[start.facts.surface].stream_type)
            self._followed.append((source, start))
        self._places.clear()
        mux.wake()

    def _headers(self) -> Mapping[str, str]:
        return {"x-request-id": self.asked.request_id, **STREAM_HEADERS, "Content-Type": SSE_TYPE}

    def _record(self, reader: Subscriber) -> None:
        services, asked, error = self.services, self.asked, self._mux.error
        heartbeats = reader.heartbeats
        for source, start in self._followed:
            stream_id = source.channel.id
            one = ResumeRequest(
                request_id=asked.request_id,
                stream_id=stream_id,
                principal=asked.principal,
                client=asked.client,
                after=asked.marks.seen.get(stream_id, 0),
                accepted_at=asked.accepted_at,
            )
            returned = record(services, one, start.facts, reader)
            services.observer.returned(dataclasses.replace(returned, bytes_out=source.bytes_out, heartbeats=heartbeats))
            heartbeats = 0  # they belong to no single stream, so the first record has them all
        if error is not None and error.__cause__ is not None:
            services.observer.failed(asked.request_id, None, error.__cause__)


async def resume_many(services: ExchangeServices, asked: MuxRequest) -> ResumeMany | None:
    """Find the streams of a reader; None if it has seen the end of all of them.

    Raises:
        NotFound: the reader asks for a new stream that does not exist, or that belongs to somebody else.
        BadRequest: there is no such event.
        StoreUnavailable: a stream may be in a store that cannot be reached now.
    """
    seen = asked.marks.seen
    places: dict[str, Location] = {}
    lost: dict[str, EdgeError] = {}
    left = [stream_id for stream_id in asked.order if seen.get(stream_id) != ENDED]
    if not left and asked.marks.done:
        return None
    for stream_id, place in await find_all(services, asked.principal, left):
        if isinstance(place, NotFound):
            if stream_id not in seen:
                raise place
            lost[stream_id] = place  # the reader has events of it, so it has expired: the others go on
            continue
        try:
            check(place, seen.get(stream_id, 0))
        except Gone as gone:
            lost[stream_id] = gone
        except BadRequest as error:
            error.param, error.message = "cursor", f"{stream_id}: {error.message}"
            raise
        else:
            places[stream_id] = place
    return ResumeMany(services, asked, await count(places), lost)
