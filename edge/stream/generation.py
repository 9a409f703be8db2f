"""A generation: one answer being produced, from the first attempt to its one outcome.

In: pushes from the upstream (it is the attempts' sink), ticks, and readers that attach and leave. Out: events for its
channel, the last of which tells how it ended. Must not: write to a socket, choose an upstream (its owner's ``retry``
does), or end in any way that the lifecycle table does not know.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial

from edge.errors import EdgeError, InternalError
from edge.policy.lifecycle import LifecycleEvent, Outcome, State, step
from edge.protocol.batch import Batch
from edge.protocol.dialect import Codec
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.settings import Settings
from edge.stream.channel import Channel, Reader, Retention
from edge.stream.deadlines import Manner, Waited, overdue, overlong
from edge.stream.endings import broken_off, ended_here, failed, told, unread
from edge.stream.owner import Owner
from edge.stream.prelude import Prelude
from edge.telemetry.gaps import Gaps
from edge.upstream.ports import JSON_TYPE, Call, Source, Upstream


class Generation(Channel):
    """See the module.

    Args:
        surface_format: How Edge's own events look.
        kept: If it can be come back to.

    Attributes:
        sent: The server of the latest attempt has got it to work on.
        cut_off: Edge broke that attempt off, so the server may still be at work on it.
    """

    __slots__ = (
        "_alive_at", "_clock", "_format", "_held", "_holding_up", "_last", "_left_at", "_manner", "_others", "_owner",
        "_paused_at", "_since", "_source", "_started_at", "clients_turn", "codec", "cut_off",
        "first_token_at", "gaps", "headers", "last_token_at", "reconnections", "sample", "sample_bytes", "sent",
        "state", "terminated", "token_count", "told", "whole", "whole_type",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: str,
        settings: Settings,
        clock: Callable[[], float],
        owner: Owner,
        *,
        surface_format: SurfaceFormat,
        kept: Retention | None = None,
    ) -> None:
        super().__init__(stream_id, settings.stream, kept)
        self.state = State.ROUTING
        self.codec: Codec | None = None
        self.headers: Mapping[str, str] = {}
        self.whole: bytes | None = None  # the answer, where the upstream sent one body
        self.whole_type = JSON_TYPE
        self.clients_turn = False  # the client is to bring more of the request's body
        self.terminated = False  # the journal ends with the surface's regular end
        self.told = False  # the journal ends with the upstream's own error event
        self.sent = self.cut_off = False
        self.reconnections = 0  # readers that came back
        self._others = 0  # events without any
        self.token_count = 0  # events with generated content
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.gaps = Gaps()
        self.sample = bytearray()  # of the answer, as far as log.content_bytes asks
        self.sample_bytes = settings.log.content_bytes
        self._clock = clock
        self._owner = owner
        self._format = surface_format
        self._left_at: float | None = None  # when the last reader left of one that waits for others
        self._held: Prelude | None = None  # until something has been generated
        self._last: Prelude | None = None  # the events that tell of the end, until what was said is kept
        self._source: Source | None = None
        self._started_at = clock()
        self._since = self._started_at  # when the present state began, or the latest content came
        self._alive_at = self._started_at  # when the upstream last sent what is no content; tokens do not note it
        self._paused_at = 0.0  # if it is
        self._holding_up: tuple[Reader, ...] = ()  # who lagged when the upstream was paused
        self._manner = Manner()

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Generation {self.id} {self.state}{end} {self.token_count} tokens {self.journal!r}>"

    @property
    def kept(self) -> bool:
        """Whether it can be come back to."""
        return self._kept is not None

    @property
    def forsaken(self) -> bool:
        """Nobody reads it, and it goes on for one that may come back."""
        return self._left_at is not None

    @property
    def events(self) -> int:
        """Data-bearing events handed on."""
        return self.token_count + self._others

    def present(self, opening: bytes) -> None:
        """Begin with an event that is no part of the answer: the status goes out, yet other attempts may follow."""
        self.begun = True
        self.publish(opening, 1)

    # --- attempts -------------------------------------------------------------------------------------------------

    def open(self, upstream: Upstream, call: Call) -> None:
        """Begin an attempt."""
        self._step(LifecycleEvent.OPEN)
        self.sent = self.cut_off = False
        self.codec = call.codec
        self._agree()
        self._manner = Manner(call.buffers_calls, call.whole)
        self.headers = {}
        self._source = upstream.open(call, self)

    def connected(self) -> None:
        """See ``upstream.ports.Sink``."""
        self.sent = True
        self._step(LifecycleEvent.CONNECTED)

    def uploading(self, *, clients_turn: bool) -> None:
        """See ``upstream.ports.Sink``: whose silence a silence is changes with it, and begins anew."""
        self._since = self._clock()
        self.clients_turn = clients_turn
        self._owner.changed()

    def answered(self, headers: Mapping[str, str]) -> None:
        """See ``upstream.ports.Sink``."""
        self.headers = headers

    def tokens(self, data: bytes, count: int) -> None:
        """See ``upstream.ports.Sink``. The hot path: once per network read, no timer, task, log or lock."""
        if self.state is not State.STREAMING or self._held:
            self.feed(Batch(data, count, count))
            return
        now = self._clock()
        self.gaps.add(now - self._since, count)
        self._since = self.last_token_at = now
        self.token_count += count
        journal, readers = self.journal, self._readers
        try:
            if (
                journal.start == journal.end
                and len(readers) == 1
                and self._kept is None
                and not self.sample_bytes
                and readers[0].take(data)
            ):
                journal.skip(len(data), count)  # the usual case: one reader, which keeps up
            else:
                self._hand_over(data, count)
        except Exception as bug:  # noqa: BLE001 - a sink never raises; what went wrong is ours, not the upstream's
            self.fail(bug)

    def feed(self, batch: Batch) -> None:
        """See ``upstream.ports.Sink``."""
        try:
            self._take(batch)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self.fail(bug)

    def _take(self, batch: Batch) -> None:
        if batch.tokens:
            now = self._clock()
            if self.state is State.STREAMING:
                self.gaps.add(now - self._since, batch.tokens)
            else:
                self.first_token_at = now
                self._step(LifecycleEvent.CONTENT)
            self.token_count += batch.tokens
            self._since = self.last_token_at = now
        else:
            self._alive_at = self._clock()
        self._others += batch.events - batch.tokens
        self.terminated = batch.terminated
        self.told = batch.told
        if not batch.data:
            return
        if self.state is not State.STREAMING:
            self._hold(batch.data, batch.events)
        elif self._last is not None or ((batch.terminated or batch.told) and self._owner.keeps_answer):
            self._release()
            self._last = self._last or Prelude(self._settings.max_event_bytes)
            self._last.add(batch.data, batch.events)
        else:
            self._hand_over(batch.data, batch.events)

    def body(self, data: bytes, content_type: str = JSON_TYPE) -> None:
        """See ``upstream.ports.Sink``."""
        self.whole, self.whole_type = data, content_type
        self.sample += data[: self.sample_bytes]

    def end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """See ``upstream.ports.Sink``: the attempt is over, and with it the generation unless another one follows."""
        self._source = None
        self.cut_off |= self.sent and broken_off(happened, error)
        try:
            if not self._retried(happened, error):
                self._finish(happened, error)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self.fail(bug)

    def _retried(self, happened: LifecycleEvent, error: EdgeError | None) -> bool:
        if error is None or happened is LifecycleEvent.BUG or self.handed_over:
            return False
        return self.state in (State.CONNECTING, State.WAITING) and self._owner.retry(error)

    def retrying(self) -> None:
        """The owner opens another attempt, now or when it can: what the last one left behind is dropped."""
        self._step(LifecycleEvent.RETRY)
        self._held = None
        self._others = int(self._format.opened is not None)
        self.codec = None
        self.told = self.terminated = False

    # --- readers --------------------------------------------------------------------------------------------------

    def heartbeat(self, *, lively: bool) -> bytes:
        """See ``Channel``. What a codec has read and nobody has got yet is no matter for a heartbeat."""
        if lively and self._begin_early(committing=False):
            return b""  # which was one
        beat = self._format.heartbeat(self._progress(), lively=lively)
        return self._owner.waiting_beat(beat) if self.state is State.ROUTING else beat

    def committed(self) -> None:
        """See ``Channel``."""
        self._begin_early(committing=True)

    def _begin_early(self, *, committing: bool) -> bool:
        """Have the event that begins an answer go out before the answer: what other attempts bring has to agree."""
        late = self.begun or self.handed_over or self.outcome is not None
        if late or not self._format.opens(committing=committing):
            return False
        held = self._held
        event, own = self._format.begin(b"" if held is None else held.data, self.id)
        if own and held is not None:
            held.drop_first(len(event))
        elif not own:
            self._agree()
        self._others += not own
        self.present(event)
        return True

    def left(self, *, stalled: bool) -> None:
        """See ``Channel``: it ends, or waits for a reader to come back, or is to be drained."""
        policy = unread(self._settings, self.state, kept=self.kept)
        if policy == "cancel":
            self.stop(LifecycleEvent.READER_STALLED if stalled else LifecycleEvent.READER_GONE)
            return
        if policy == "grace":
            self._left_at = self._clock()
        if not self.kept:
            self.journal.trim(self.journal.end)
        self.unpause()
        if self.forsaken:
            self._owner.forsaken()

    def return_to(self) -> None:
        """A reader has come back; it attaches at once."""
        self.reconnections += 1
        self._left_at = None

    def hold_on(self) -> None:
        """See ``Channel``."""
        self._paused_at, self._holding_up = self._clock(), tuple(self._readers)
        if self._source is not None:
            self._source.pause()

    def go_on(self) -> None:
        """See ``Channel``."""
        self._holding_up = ()
        if self.state is State.STREAMING:  # before the first content nothing but content stops the clock
            self._since = self._clock()
        if self._source is not None:
            self._source.resume()

    def _hold(self, data: bytes, events: int) -> None:
        self._held = self._held or Prelude(self._settings.max_event_bytes)
        self._held.add(data, events)
        excess = self._held.excess()
        if excess is not None:
            self._abort()
            self.end(LifecycleEvent.ERROR, excess)

    def _release(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._hand_over(held.data, held.events)

    def _hand_over(self, data: bytes, events: int) -> None:
        if self._held is not None:
            self._held.add(data, events)
            self._release()
            return
        if self.sample_bytes and len(self.sample) < self.sample_bytes:
            self.sample += data
        self.handed_over = True
        self.publish(data, events)

    # --- the end --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clocks: grace, connect, first token, between tokens, total, and how long readers hold it up."""
        settings = self._settings
        if self.outcome is not None:
            return
        if self._paused and now - self._paused_at > settings.client_lag_s and self._owner.wanted():
            self._let_go_of_laggards(now)
        if self._left_at is not None and now - self._left_at > settings.grace_s:
            self.stop(LifecycleEvent.READER_GONE)
        elif settings.total_s and now - self._started_at > settings.total_s:
            late = overlong(settings)
            error = late.error(self.state)
            self._abort()
            self._finish(late.happened, error)
        elif not self.clients_turn:  # which has a clock of its own (server.body_s)
            waited = Waited(now - self._since, now - max(self._since, self._alive_at))
            overrun = overdue(self.state, settings, waited, paused=self._paused, manner=self._manner)
            if overrun is not None:
                error = overrun.error(self.state)
                self._abort()
                self.end(overrun.happened, error)

    def _let_go_of_laggards(self, now: float) -> None:
        """Cut whoever has held up the upstream all the time; those that came since have as long again."""
        laggards = self._holding_up
        for reader in laggards:
            if reader in self._readers:
                reader.cut_off()
        self._paused_at, self._holding_up = now, tuple(self._readers)

    def stop(self, happened: LifecycleEvent) -> None:
        """End it from this side: the readers left or stalled, somebody stopped it, or the process is leaving."""
        self._abort()
        self._finish(happened, ended_here(happened, self._settings, kept=self.kept))

    def fail(self, bug: BaseException) -> None:
        """A bug of ours, told like every other end."""
        self._abort()
        self._finish(LifecycleEvent.BUG, failed(bug))

    def break_off(self, error: EdgeError) -> None:
        """What the upstream sends cannot be used any more."""
        self._abort()
        self._finish(LifecycleEvent.ERROR, error)

    def reject(self, error: EdgeError, happened: LifecycleEvent = LifecycleEvent.REJECT) -> None:
        """No upstream is to be asked."""
        self._finish(happened, error)

    def _abort(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            self.cut_off = self.sent
            source.abort()

    def _finish(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        if happened is LifecycleEvent.DONE:
            self._release()  # an empty answer is its prelude
        if self.state is State.ENDED:
            return
        if happened is not LifecycleEvent.DONE:
            if self._held is not None:
                self._held = None
                self.told = False  # the error was held too: it becomes the HTTP status, or Edge tells it in-band
            self.terminated &= self.told  # an end that is the error itself; any other was no regular one
            if error is not None and not self.handed_over:
                self._fail_in_stream(error)
        self.error = error
        self.clients_turn = False
        self._left_at = None
        state, outcome = step(self.state, happened)
        self.clean = outcome is Outcome.COMPLETE
        self.state = state
        self._since = self._clock()
        tell = partial(self._tell, outcome)
        try:
            self._owner.settle(outcome or Outcome.INTERNAL_ERROR, tell)
        except Exception as bug:  # noqa: BLE001 - as in tokens; and whatever is broken, the readers are told
            self.error, self.clean, self.terminated = failed(bug), False, False
            tell()

    def _tell(self, outcome: Outcome | None) -> None:
        """Have the readers told how it ended; once."""
        if self.outcome is not None:
            return
        try:
            self._last_words(outcome)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self.error, self.clean, self.terminated = failed(bug), False, False
            outcome = Outcome.INTERNAL_ERROR
            with contextlib.suppress(Exception):  # what is broken may be in what these go through
                self._last_words(outcome)
        self.outcome = outcome
        self._owner.changed()
        self.conclude()

    def _fail_in_stream(self, error: EdgeError) -> None:
        """Begin the stream of an answer that failed early, where the surface's clients act only on one that fails."""
        if self._format.fails_in_stream(error) and any(reader.wants_events for reader in self._readers):
            self.fails_in_stream = True
            self._begin_early(committing=True)

    def _last_words(self, outcome: Outcome | None) -> None:
        """The one terminal event, unless it is there: the surface's regular end, or the error."""
        last, self._last = self._last, None
        if last is not None:
            self._hand_over(last.data, last.events)
        readers = [reader for reader in self._readers if reader.wants_events]
        words: list[bytes] = []
        if self.terminated:
            self.error_told = not self.clean
        elif not (self.kept or readers):
            return
        elif self.clean:
            ended = self.codec is None or self.codec.progress().ended
            words = [b"" if ended else self._format.terminator]
        elif self.told or self.handed_over or self.begun or any(reader.committed for reader in readers):
            error = self.error or InternalError(f"the stream ended as {outcome}")
            words = told(self._format, error, self._progress(), by_upstream=self.told)
            self.error_told = True
        for event in filter(None, words):
            self.publish(event, 1)

    def _agree(self) -> None:
        """Let the codec of an attempt know the opening that the client has already."""
        if self.codec is not None and self._format.opened is not None:
            self.codec.begun(self._format.opened)

    def _progress(self) -> Progress | None:
        """How far the answer has got for the client; None while nothing of an attempt's has gone out."""
        return self.codec.progress() if self.codec is not None and self.handed_over else None

    def _step(self, happened: LifecycleEvent) -> None:
        self.state, _ = step(self.state, happened)
        self._since = self._clock()
        self._owner.changed()
