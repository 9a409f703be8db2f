"""An exchange: the one place that runs a request, from its principal to its StreamRecord.

In: a prepared request and who sent it. Out: a response, through a reader, and one record. Must not: parse a request,
pick a codec or an upstream by itself, or write to a socket.

It reserves limits, has failover open the attempts, books time on phases, settles and records.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from aiohttp import web
from typing_extensions import override

from edge.errors import EdgeError
from edge.exchange.failover import Failover
from edge.exchange.limits import settle
from edge.exchange.ports import STREAM_HEADERS, ExchangeRequest, ExchangeServices
from edge.exchange.record import summarise
from edge.exchange.registry import Owned
from edge.policy.lifecycle import LifecycleEvent, Outcome, State
from edge.policy.limits.rules import Reservation
from edge.policy.queue.lanes import Claim
from edge.policy.queue.refusal import Place
from edge.policy.routing import printable
from edge.protocol.event_ids import numbering
from edge.protocol.request import Prepared
from edge.store.ports import StreamMeta
from edge.stream.generation import Generation
from edge.stream.json_reader import JsonReader
from edge.stream.persistence import ArchivedStream
from edge.stream.ports import GenerationOwner
from edge.stream.stream_or_json_reader import StreamOrJsonReader
from edge.stream.subscriber import Subscriber
from edge.stream.ticker import Ticked
from edge.stream.writer import Writer
from edge.telemetry.timeline import Phase, Timeline

_PHASES = {
    State.ROUTING: Phase.EDGE,
    State.ASKING: Phase.UPSTREAM,
    State.STREAMING: Phase.UPSTREAM,
    State.ENDED: Phase.EDGE,
}


class Exchange(Owned, Ticked, GenerationOwner):
    """One request, its generation and its reader."""

    def __init__(self, services: ExchangeServices, asked: ExchangeRequest, prepared: Prepared) -> None:
        self.services = services
        self.settings = services.settings
        self.asked = asked
        self.stream_id = asked.stream_id
        self.request_text = prepared.body[: self.settings.log.content_bytes]
        self.timeline = Timeline(asked.accepted_at)
        self.reader: Subscriber | JsonReader | None = None
        self._phase = Phase.EDGE
        self._told_at = asked.accepted_at
        self._recorded = False
        self._reservation: Reservation | None = None  # of limits and budgets
        self._over = False  # what the generation held has been given back
        own = asked.dialect.format(prepared.model, asked.request_id)
        resume = prepared.stream and (asked.resume or prepared.surface in self.settings.stream.resume)
        self._numbering = numbering(asked.dialect.stream_type, asked.stream_id) if resume else None
        self._archived = self._archive(prepared, always=resume)
        retention = None if self._archived is None else self._archived.retention
        self.generation = Generation(
            asked.stream_id, self.settings, services.clock, self, surface_format=own, retention=retention
        )
        self.failover = Failover(
            services, asked, prepared,
            claim=self._claim(prepared), generation=self.generation, changed=self.changed,
        )  # fmt: skip

    def _archive(self, prepared: Prepared, *, always: bool) -> ArchivedStream | None:
        stream, asked, archive = self.settings.stream, self.asked, self.services.archive
        if not always and not (prepared.stream and stream.on_disconnect == "grace"):
            return None
        surface, session, most = str(prepared.surface), asked.session, stream.journal_bytes
        return archive.begin(
            StreamMeta(
                asked.stream_id, asked.principal.name, surface, prepared.model, session, asked.request_id,
                archive.clock(), most,
            )
        )  # fmt: skip

    def _claim(self, prepared: Prepared) -> Claim:
        """For whom its slot is. Without keys each address is its own caller: one that floods shuts out no other."""
        asked, principal = self.asked, self.asked.principal
        name = f"{principal.name} {asked.client}" if principal.anonymous else principal.name
        weight = self.services.limits.weight(principal.name, principal.limits, prepared)
        return Claim(name, weight, asked.lane, prepared.sequences)

    def __repr__(self) -> str:
        return f"<Exchange {self.asked.request_id} {self.prepared.surface} {self.generation!r}>"

    async def run(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request.

        Raises:
            EdgeError: it failed before the status went out; the caller answers with it.
        """
        reader = self.reader = self._make_reader(Writer(request))
        self.services.registry.add(self)
        self.services.registry.streams[self.stream_id] = self
        self.services.ticker.add(self)
        try:
            if await self._reserved():
                if self.asked.opening:
                    self.generation.present(self.asked.opening)
                self.failover.begin()
            self.services.observer.started(self)
            return await reader.run()
        except EdgeError as error:
            error.headers = {**self.known_headers(), **error.headers}
            raise
        finally:
            reader.leave()
            self.changed()

    @property
    def prepared(self) -> Prepared:
        """The request; without its body once no attempt can need it any more."""
        return self.failover.prepared

    @property
    def upstream(self) -> str | None:
        """The name of the upstream asked last; None if none was."""
        return self.failover.upstream

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""
        return self.services.clock() - self.timeline.started

    @override
    def shut_down(self) -> None:
        self.generation.stop(LifecycleEvent.SHUTDOWN)

    @override
    def tick(self, now: float) -> None:
        try:
            self.generation.tick(now)
            if self.reader is not None:
                self.reader.tick(now)
            progress_s = self.settings.log.progress_s
            if progress_s and now - self._told_at >= progress_s:
                self._told_at = now
                self.services.observer.progressed(self)
        except Exception as bug:  # noqa: BLE001 - one exchange's bug must not stop everybody's clock
            self.generation.fail(bug)

    async def _reserved(self) -> bool:
        """Reserve what the request may cost; whether the exchange begins. Cancelled, it leaves no reservation."""
        principal = self.asked.principal
        try:
            self._reservation = await self.services.limits.reserve(
                self.stream_id, principal.name, principal.limits, self.prepared, anonymous=principal.anonymous
            )
        except EdgeError as error:
            self.generation.reject(error)
        except Exception as bug:  # noqa: BLE001 - the reader gets a bug as an end like any other
            self.generation.fail(bug)
        if self.generation.outcome is None:
            return True
        if self._reservation is not None:  # the reader left while it was made
            settle(self._reservation, self.generation, self.prepared, asked=False)
        return False

    # --- attempts -------------------------------------------------------------------------------------------------

    @property
    @override
    def keeps_answer(self) -> bool:
        return self.asked.settle is not None

    @override
    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        if self.asked.settle is None:
            announce()
        else:
            self.changed()
            self.failover.free()  # no upstream works on it any more, whenever the readers see the end
            self.asked.settle(self.generation, outcome, announce)

    @property
    @override
    def place(self) -> Place | None:
        return self.failover.place

    @override
    def wanted(self) -> bool:
        return self.failover.wanted

    # --- time and the record --------------------------------------------------------------------------------------

    @override
    def changed(self) -> None:
        """Book time on the current phase; record once both sides have ended."""
        generation, reader = self.generation, self.reader
        state = generation.state
        if generation.clients_turn:
            phase = Phase.EDGE  # as for a body that is read before it is sent on
        elif state is State.ROUTING and self.failover.waiting:
            phase = Phase.QUEUED
        elif reader is not None and reader.blocked:
            phase = Phase.CLIENT_BLOCKED
        elif state is State.ASKING and generation.connecting:
            phase = Phase.CONNECTING
        else:
            phase = _PHASES[state]
        if phase is not self._phase:
            self._phase = phase
            self.timeline.enter(phase, self.services.clock())
        if state is State.STREAMING and self.prepared.body:
            # No other attempt can follow, so nobody needs the body any more: with images it may be 30 MB.
            self.failover.prepared = replace(self.prepared, body=b"", crossed=())
            self.asked.release()
        if generation.outcome is not None:
            if not self._over:
                self._over = True
                self._let_go()
            if reader is not None and reader.closed:
                self._record(reader)

    def _let_go(self) -> None:
        """The generation has ended: give back its slot, judge its upstream, settle its cost, end its archived copy."""
        self.failover.free()
        if self.generation.outcome in (Outcome.UPSTREAM_ERROR, Outcome.UPSTREAM_CUT):
            self.failover.judge(self.generation.error)
        elif self.generation.outcome is Outcome.COMPLETE or self.generation.token_count:
            self.failover.judge(None)
        if self._reservation is not None:
            settle(self._reservation, self.generation, self.prepared, asked=self.failover.count > 0)
        if self._archived is not None:
            self._archived.end(self.generation, self.upstream, self.generation.reconnections)

    @override
    def detached(self) -> None:
        if self.asked.detached is not None:
            self.asked.detached()

    def _make_reader(self, writer: Writer) -> Subscriber | JsonReader:
        services, asked = self.services, self.asked
        stream = self.settings.stream
        if self.prepared.stream:
            return Subscriber(
                self.generation, writer, stream, services.clock, self.changed,
                headers=self._stream_headers, numbering=self._numbering,
                closes=asked.after_error.closes(self.prepared.surface),
            )  # fmt: skip
        if asked.upload is not None:
            return StreamOrJsonReader(
                self.generation, writer, stream, services.clock, self.changed,
                headers=self._found_to_stream, whole_headers=self.known_headers,
            )  # fmt: skip
        return JsonReader(self.generation, writer, stream, services.clock, self.changed, headers=self.known_headers)

    def _found_to_stream(self) -> Mapping[str, str]:
        self.failover.prepared = replace(self.prepared, stream=True)
        return self._stream_headers()

    def _stream_headers(self) -> Mapping[str, str]:
        return {**self.known_headers(), **STREAM_HEADERS, "Content-Type": self.asked.dialect.stream_type}

    def known_headers(self) -> dict[str, str]:
        """The response headers, as far as they are known when the status goes out."""
        headers = {"x-request-id": self.asked.request_id, "x-stream-id": self.stream_id, **self.generation.headers}
        if self._reservation is not None:
            headers.update(self._reservation.headers)
        if self.upstream is not None:
            headers["x-edge-upstream"] = self.upstream
        if self.failover.dropped:
            headers["x-edge-dropped-params"] = ", ".join(map(printable, self.failover.dropped))
        if self.failover.changed:
            headers["x-edge-changed"] = ", ".join(self.failover.changed)
        now = self.services.clock()
        self.timeline.enter(self._phase, now)
        headers["Server-Timing"] = self.timeline.server_timing()
        return headers

    def _record(self, reader: Subscriber | JsonReader) -> None:
        if self._recorded:
            return
        self._recorded = True
        self.asked.release()
        self.services.registry.discard(self)
        self.services.registry.streams.pop(self.stream_id, None)
        self.services.ticker.discard(self)
        self.timeline.enter(Phase.EDGE, self.services.clock())
        bug = self.generation.error.__cause__ if self.generation.error is not None else None
        if bug is not None:
            self.services.observer.failed(self.asked.request_id, self.stream_id, bug)
        self.services.observer.ended(
            summarise(self.asked, self.failover, self.generation, reader, self.timeline, request_text=self.request_text)
        )
