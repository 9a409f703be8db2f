"""An attempt: one call to one upstream, from open to end.

In: pushes from the upstream, whose sink it is, and ticks. Out: events for its generation; one call to failover when it
has ended. Must not: choose an upstream, end the generation by itself, or publish anything after its end.

The attempt holds what the upstream sends before the first content, since another attempt may still follow. Three clocks
run here: connecting, until the first content, and between two contents; ``deadlines`` has their rules.
"""

from collections.abc import Callable, Mapping

from typing_extensions import override

from edge.bounds import PRELUDE_BYTES
from edge.errors import AnswerTooLarge, EdgeError, UpstreamBroken
from edge.policy.lifecycle import AttemptState, LifecycleEvent, attempt_step
from edge.protocol.batch import Batch
from edge.settings import Stream as StreamSettings
from edge.stream.deadlines import AnswerMode, Waited, overdue
from edge.stream.endings import broken_off
from edge.stream.generation import Generation
from edge.stream.ports import RunningAttempt
from edge.upstream.ports import JSON_TYPE, Call, Sink, Source, Upstream

# Far above any real one. A server that shows that it is alive by empty deltas may send five a second for half an hour.
MOST_EVENTS = 10_000


class Prelude:
    """Whole events that are held back, and whether they are too many.

    Args:
        largest: The size of the largest allowed event, in bytes.

    Attributes:
        events: How many are held.
    """

    __slots__ = ("_data", "_most_bytes", "events")

    def __init__(self, largest: int) -> None:
        self._data = bytearray()  # in one piece: an object for each small event would take as much again
        self._most_bytes = largest + PRELUDE_BYTES
        self.events = 0

    def __repr__(self) -> str:
        return f"<Prelude {self.events} events, {len(self._data)} B>"

    @property
    def data(self) -> bytes:
        """The held events."""
        return bytes(self._data)

    def drop_first(self, size: int) -> None:
        """Drop the first event, of ``size`` bytes."""
        del self._data[:size]
        self.events -= 1

    def add(self, data: bytes, events: int) -> None:
        """Hold more events."""
        self._data += data
        self.events += events

    def excess(self) -> UpstreamBroken | None:
        """The error if it holds too much; else None."""
        if len(self._data) > self._most_bytes:
            return AnswerTooLarge(
                f"the upstream sent over {self._most_bytes} bytes of events without any content; "
                "raise stream.max_event_bytes if they are meant to be so many"
            )
        if self.events > MOST_EVENTS:
            return UpstreamBroken(f"the upstream sent {self.events} events without any content")
        return None


class AttemptOwner:
    """What decides what follows an attempt: ``exchange.failover``."""

    __slots__ = ()

    def attempt_ended(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """Open another attempt, or finish the generation."""
        raise NotImplementedError


class Attempt(Sink, RunningAttempt):
    """One call to one upstream, and its sink; see the module.

    Args:
        generation: The answer that it works for.
        owner: Decides what follows its end.
        settings: Its limits.
        clock: Monotonic, in seconds.

    Attributes:
        sent: The server has got the request.
        cut_off: Edge broke it off, so the server may still be working on it.
    """

    __slots__ = (
        "_alive_at", "_clock", "_generation", "_held", "_last", "_mode", "_owner", "_settings", "_since", "_source",
        "clients_turn", "cut_off", "other_events", "sent", "state",
    )  # fmt: skip

    def __init__(
        self,
        generation: Generation,
        owner: AttemptOwner,
        settings: StreamSettings,
        clock: Callable[[], float],
    ) -> None:
        self.state = AttemptState.CONNECTING
        self.sent = self.cut_off = self.clients_turn = False
        self.other_events = 0
        self._held: Prelude | None = None  # the events before the first content
        self._last: Prelude | None = None  # the events of the end, until the answer is stored
        self._generation = generation
        self._owner = owner
        self._settings = settings
        self._clock = clock
        self._mode = AnswerMode()
        self._source: Source | None = None
        self._since = clock()  # when the present state began, or the latest content came
        self._alive_at = self._since  # when the upstream last sent anything but content; tokens do not update it

    def __repr__(self) -> str:
        return f"<Attempt {self.state}>"

    def open(self, upstream: Upstream, call: Call) -> None:
        """Begin the call. The attempt does not keep ``call``, since a request may be 30 MB."""
        self._mode = AnswerMode(call.buffers_calls, call.whole)
        self._generation.begin(self, call.codec)
        self._source = upstream.open(call, self)

    # --- upstream.ports.Sink --------------------------------------------------------------------------------------

    @override
    def connected(self) -> None:
        self.sent = True
        self._move(LifecycleEvent.CONNECTED)
        self._generation.changed()

    @override
    def uploading(self, *, clients_turn: bool) -> None:
        """Silence is now the client's or the upstream's, so its clock begins anew."""
        self._since = self._clock()
        self.clients_turn = clients_turn
        self._generation.changed()

    @override
    def answered(self, headers: Mapping[str, str]) -> None:
        self._generation.headers = headers

    @override
    def tokens(self, data: bytes, count: int) -> None:
        """The hot path, once per network read: no timer, task, log line or lock."""
        if self.state is not AttemptState.STREAMING or self._held:
            self.feed(Batch(data, count, count))
            return
        now = self._clock()
        generation = self._generation
        generation.gaps.add(now - self._since, count)
        self._since = generation.last_token_at = now
        generation.token_count += count
        generation.handed_over = True
        try:
            if generation.sample_bytes:
                generation.add_sample(data)
            generation.publish(data, count)
        except Exception as bug:  # noqa: BLE001 - a sink never raises; this is a bug in Edge, not a fault of the upstream
            generation.fail(bug)

    @override
    def feed(self, batch: Batch) -> None:
        try:
            self._take(batch)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self._generation.fail(bug)

    def _take(self, batch: Batch) -> None:
        generation = self._generation
        if batch.tokens:
            now = self._clock()
            if self.state is AttemptState.STREAMING:
                generation.gaps.add(now - self._since, batch.tokens)
            else:
                self._move(LifecycleEvent.CONTENT)
                generation.first_content(now)
            generation.token_count += batch.tokens
            self._since = generation.last_token_at = now
        else:
            self._alive_at = self._clock()
        self.other_events += batch.events - batch.tokens
        generation.terminated, generation.upstream_error_sent = batch.terminated, batch.error_in_data
        if not batch.data:
            return
        if self.state is not AttemptState.STREAMING:
            self._hold(batch.data, batch.events)
        elif self._last is not None or ((batch.terminated or batch.error_in_data) and generation.keeps_answer):
            self.release()
            self._last = self._last or Prelude(self._settings.max_event_bytes)
            self._last.add(batch.data, batch.events)
        elif self._held is not None:
            self._held.add(batch.data, batch.events)
            self.release()
        else:
            generation.hand_over(batch.data, batch.events)

    @override
    def body(self, data: bytes, content_type: str = JSON_TYPE) -> None:
        self._generation.take_body(data, content_type)

    @override
    def end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """The call is over; failover opens another one or finishes the generation."""
        self._source = None
        if self.state is AttemptState.ENDED:
            return
        self.cut_off |= self.sent and broken_off(happened, error)
        self.clients_turn = False
        try:
            self.state = attempt_step(self.state, happened)
            self._owner.attempt_ended(happened, error)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self._generation.fail(bug)

    # --- ports.RunningAttempt -----------------------------------------------------------------------------------------

    @property
    @override
    def held_events(self) -> bytes | None:
        return None if self._held is None else self._held.data

    @override
    def drop_first(self, size: int) -> None:
        if self._held is not None:
            self._held.drop_first(size)

    @override
    def drop_held(self) -> bool:
        held, self._held = self._held, None
        return held is not None

    @override
    def release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._generation.hand_over(held.data, held.events)

    @override
    def release_last(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            self._generation.hand_over(last.data, last.events)

    @override
    def pause(self) -> None:
        if self._source is not None:
            self._source.pause()

    @override
    def resume(self) -> None:
        if self.state is AttemptState.STREAMING:  # before the first content nothing but content stops the clock
            self._since = self._clock()
        if self._source is not None:
            self._source.resume()

    @override
    def tick(self, now: float, *, paused: bool) -> None:
        if self.clients_turn:  # which has a clock of its own (server.body_s)
            return
        waited = Waited(now - self._since, now - max(self._since, self._alive_at))
        late = overdue(self.state, self._settings, waited, paused=paused, mode=self._mode)
        if late is not None:
            self._disconnect()
            self.end(late.happened, late.error())

    @override
    def abort(self, happened: LifecycleEvent) -> None:
        self.clients_turn = False
        self._disconnect()
        self.state = attempt_step(self.state, happened)

    def _disconnect(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self.cut_off = self.sent
            source.abort()

    def _hold(self, data: bytes, events: int) -> None:
        self._held = self._held or Prelude(self._settings.max_event_bytes)
        self._held.add(data, events)
        excess = self._held.excess()
        if excess is not None:
            self._disconnect()
            self.end(LifecycleEvent.ERROR, excess)

    def _move(self, happened: LifecycleEvent) -> None:
        self.state = attempt_step(self.state, happened)
        self._since = self._clock()
