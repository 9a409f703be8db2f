"""A generation: one answer being produced, from the first attempt to its one outcome.

In: events from its attempts, ticks, and readers that attach and leave. Out: events for its readers; the last one says
how it ended. Must not: write to a socket, know an upstream, open an attempt (failover does), or end in a way that the
lifecycle table does not have.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial

from typing_extensions import override

from edge.errors import EdgeError, InternalError
from edge.policy.lifecycle import AttemptState, LifecycleEvent, Outcome, State, step
from edge.protocol.dialect import Codec
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.settings import Settings
from edge.stream.channel import Channel, Reader, Retention
from edge.stream.deadlines import overlong
from edge.stream.endings import ended_here, error_events, failed, unread
from edge.stream.ports import GenerationOwner, RunningAttempt
from edge.telemetry.timeline import Gaps


class Generation(Channel):
    """One answer being produced, and the channel that its readers attach to.

    Args:
        surface_format: Makes Edge's own events.
        retention: What is kept of it for readers that come back; None if nobody may.

    Attributes:
        codec: The codec of the latest attempt; None before the first one and between two.
        headers: Response headers of the latest attempt that are passed on.
        whole: The answer, if the upstream sent it in one body; ``whole_type`` is its content type.
        terminated: The journal ends with the surface's regular end.
        upstream_error_sent: The journal ends with the upstream's own error event.
        reconnections: How many readers came back.
        token_count: Events with generated content.
        sample: The beginning of the answer, for the log (log.content_bytes).
    """

    __slots__ = (
        "_attempt", "_clock", "_format", "_holding_up", "_left_at", "_others", "_owner", "_paused_at", "_started_at",
        "codec", "first_token_at", "gaps", "headers", "last_token_at", "reconnections", "sample", "sample_bytes",
        "state", "terminated", "token_count", "upstream_error_sent", "whole", "whole_type",
    )  # fmt: skip

    def __init__(
        self,
        stream_id: str,
        settings: Settings,
        clock: Callable[[], float],
        owner: GenerationOwner,
        *,
        surface_format: SurfaceFormat,
        retention: Retention | None = None,
    ) -> None:
        super().__init__(stream_id, settings.stream, retention)
        self.state = State.ROUTING
        self.codec: Codec | None = None
        self.headers: Mapping[str, str] = {}
        self.whole: bytes | None = None
        self.whole_type = ""
        self.terminated = False
        self.upstream_error_sent = False
        self.reconnections = 0
        self.token_count = 0
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.gaps = Gaps()
        self.sample = bytearray()
        self.sample_bytes = settings.log.content_bytes
        self._attempt: RunningAttempt | None = None
        self._others = 0  # events without generated content that no attempt has sent
        self._clock = clock
        self._owner = owner
        self._format = surface_format
        self._started_at = clock()
        self._left_at: float | None = None  # when the last reader left of one that waits for others
        self._paused_at = 0.0  # if the upstream is not read
        self._holding_up: tuple[Reader, ...] = ()  # who lagged when the upstream was paused

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Generation {self.id} {self.state}{end} {self.token_count} tokens {self.journal!r}>"

    @property
    def resumable(self) -> bool:
        """Whether readers may come back to it."""
        return self._retention is not None

    @property
    def detached(self) -> bool:
        """Nobody reads it; it goes on for a reader that may come back."""
        return self._left_at is not None

    @property
    def events(self) -> int:
        """How many data-bearing events were published."""
        attempt = self._attempt
        return self.token_count + self._others + (0 if attempt is None else attempt.other_events)

    @property
    def connecting(self) -> bool:
        """Whether the connection to the upstream is still being made."""
        return self._attempt is not None and self._attempt.state is AttemptState.CONNECTING

    @property
    def clients_turn(self) -> bool:
        """Whether Edge waits for the client to send more of the request's body."""
        return self._attempt is not None and self._attempt.clients_turn

    @property
    def keeps_answer(self) -> bool:
        """Whether the answer is stored before a reader sees the end."""
        return self._owner.keeps_answer

    def present(self, opening: bytes) -> None:
        """Publish an event of Edge's own first: the status goes out, and other attempts may still follow."""
        self.begun = True
        self.publish(opening, 1)

    # --- attempts -------------------------------------------------------------------------------------------------

    def begin(self, attempt: RunningAttempt, codec: Codec | None) -> None:
        """An attempt begins, with its codec."""
        self._attempt = attempt
        self._step(LifecycleEvent.OPEN)
        self.codec = codec
        self._agree()
        self.headers = {}

    def changed(self) -> None:
        """From now on time belongs to another phase."""
        self._owner.changed()

    def first_content(self, now: float) -> None:
        """Generated content has come: no other attempt will follow."""
        self.first_token_at = now
        self._step(LifecycleEvent.CONTENT)

    def add_sample(self, data: bytes) -> None:
        """Keep the beginning of the answer for the log."""
        if len(self.sample) < self.sample_bytes:
            self.sample += data

    def hand_over(self, data: bytes, events: int) -> None:
        """Publish events of the answer."""
        if self.sample_bytes:
            self.add_sample(data)
        self.handed_over = True
        self.publish(data, events)

    def take_body(self, data: bytes, content_type: str) -> None:
        """The upstream sent the answer as one body."""
        self.whole, self.whole_type = data, content_type
        self.sample += data[: self.sample_bytes]

    def retrying(self) -> None:
        """Another attempt will follow, now or later: drop what the last one left behind."""
        self._step(LifecycleEvent.RETRY)
        self._attempt = None
        self._others = int(self._format.opened is not None)
        self.codec = None
        self.upstream_error_sent = self.terminated = False

    # --- readers --------------------------------------------------------------------------------------------------

    @override
    def heartbeat(self, *, lively: bool) -> bytes:
        """What a codec has read but no reader has got does not count as progress."""
        if lively and self._begin_early(committing=False):
            return b""  # which was one
        place = self._owner.place if self.state is State.ROUTING else None
        if place is not None:
            return self._format.queued_heartbeat(place.position, place.estimate_s, lively=lively)
        return self._format.heartbeat(self._progress(), lively=lively)

    @override
    def committed(self) -> None:
        self._begin_early(committing=True)

    def _begin_early(self, *, committing: bool) -> bool:
        """Publish the event that begins an answer before the answer comes; what attempts send has to agree with it."""
        late = self.begun or self.handed_over or self.outcome is not None
        if late or not self._format.opens(committing=committing):
            return False
        attempt = self._attempt
        event, own = self._format.begin((attempt and attempt.held_events) or b"", self.id)
        if own and attempt is not None:
            attempt.drop_first(len(event))
        elif not own:
            self._agree()
        self._others += not own
        self.present(event)
        return True

    @override
    def left(self, *, stalled: bool) -> None:
        """It ends, or waits for a reader to come back, or is to be drained."""
        policy = unread(self._settings, self.state, resumable=self.resumable)
        if policy == "cancel":
            self.stop(LifecycleEvent.READER_STALLED if stalled else LifecycleEvent.READER_GONE)
            return
        if policy == "grace":
            self._left_at = self._clock()
        if not self.resumable:
            self.journal.trim(self.journal.end)
        self.unpause()
        if self.detached:
            self._owner.detached()

    def return_to(self) -> None:
        """A reader has come back; it attaches at once."""
        self.reconnections += 1
        self._left_at = None

    @override
    def pause_source(self) -> None:
        self._paused_at, self._holding_up = self._clock(), tuple(self._readers)
        if self._attempt is not None:
            self._attempt.pause()

    @override
    def resume_source(self) -> None:
        self._holding_up = ()
        if self._attempt is not None:
            self._attempt.resume()

    # --- the end --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Check the clocks: readers that hold it up, grace, total, and those of the attempt."""
        settings = self._settings
        if self.outcome is not None:
            return
        if self._paused and now - self._paused_at > settings.client_lag_s and self._owner.wanted():
            self._let_go_of_laggards(now)
        if self._left_at is not None and now - self._left_at > settings.grace_s:
            self.stop(LifecycleEvent.READER_GONE)
        elif settings.total_s and now - self._started_at > settings.total_s:
            late = overlong(settings)
            self._abort(late.happened)
            self.finish(late.happened, late.error())
        elif self._attempt is not None:
            self._attempt.tick(now, paused=self._paused)

    def _let_go_of_laggards(self, now: float) -> None:
        """Cut the readers that have held up the upstream all the time; the others get the same time again."""
        laggards = self._holding_up
        for reader in laggards:
            if reader in self._readers:
                reader.cut_off()
        self._paused_at, self._holding_up = now, tuple(self._readers)

    def stop(self, happened: LifecycleEvent) -> None:
        """End it from Edge's side: the readers left or stalled, somebody stopped it, or the process shuts down."""
        self._abort(happened)
        self.finish(happened, ended_here(happened, self._settings, resumable=self.resumable))

    def fail(self, bug: BaseException) -> None:
        """End it because of a bug in Edge; the readers see that like any other end."""
        self._abort(LifecycleEvent.BUG)
        self.finish(LifecycleEvent.BUG, failed(bug))

    def break_off(self, error: EdgeError) -> None:
        """End it because Edge cannot use what the upstream sends."""
        self._abort(LifecycleEvent.ERROR)
        self.finish(LifecycleEvent.ERROR, error)

    def reject(self, error: EdgeError, happened: LifecycleEvent = LifecycleEvent.REJECT) -> None:
        """End it without asking an upstream, or any more of them."""
        self.finish(happened, error)

    def finish(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        """End it: no attempt runs and none will follow. Only the first end counts."""
        attempt = self._attempt
        if happened is LifecycleEvent.DONE and attempt is not None:
            attempt.release()  # an empty answer is its prelude
        if self.state is State.ENDED:
            return
        if happened is not LifecycleEvent.DONE:
            if attempt is not None and attempt.drop_held():
                # The error was held too: it becomes the HTTP status, or Edge sends it in-band.
                self.upstream_error_sent = False
            # An end that is the error itself stays one; any other was no regular end.
            self.terminated &= self.upstream_error_sent
            if error is not None and not self.handed_over:
                self._fail_in_stream(error)
        self.error = error
        self._left_at = None
        state, outcome = step(self.state, happened)
        self.clean = outcome is Outcome.COMPLETE
        self.state = state
        announce = partial(self._announce, outcome)
        try:
            self._owner.settle(outcome or Outcome.INTERNAL_ERROR, announce)
        except Exception as bug:  # noqa: BLE001 - as in tokens; whatever is broken, the readers see an end
            self.error, self.clean, self.terminated = failed(bug), False, False
            announce()

    def _announce(self, outcome: Outcome | None) -> None:
        """Show the readers how it ended; once."""
        if self.outcome is not None:
            return
        try:
            self._last_words(outcome)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self.error, self.clean, self.terminated = failed(bug), False, False
            outcome = Outcome.INTERNAL_ERROR
            with contextlib.suppress(Exception):  # the bug may be in the code that they go through
                self._last_words(outcome)
        self.outcome = outcome
        self._owner.changed()
        self.conclude()

    def _fail_in_stream(self, error: EdgeError) -> None:
        """Begin the stream of an answer that failed early, if the surface's clients act on errors only in a stream."""
        if self._format.fails_in_stream(error) and any(reader.wants_events for reader in self._readers):
            self.fails_in_stream = True
            self._begin_early(committing=True)

    def _last_words(self, outcome: Outcome | None) -> None:
        """Publish the one terminal event, if it is missing: the surface's regular end, or the error."""
        if self._attempt is not None:
            self._attempt.release_last()
        readers = [reader for reader in self._readers if reader.wants_events]
        words: list[bytes] = []
        if self.terminated:
            self.error_sent = not self.clean
        elif not (self.resumable or readers):
            return
        elif self.clean:
            ended = self.codec is None or self.codec.progress().ended
            words = [b"" if ended else self._format.terminator]
        elif self.upstream_error_sent or self.handed_over or self.begun or any(reader.committed for reader in readers):
            error = self.error or InternalError(f"the stream ended as {outcome}")
            words = error_events(self._format, error, self._progress(), by_upstream=self.upstream_error_sent)
            self.error_sent = True
        for event in filter(None, words):
            self.publish(event, 1)

    def _agree(self) -> None:
        """Pass the opening that the client has already got to the codec of the attempt."""
        if self.codec is not None and self._format.opened is not None:
            self.codec.begun(self._format.opened)

    def _progress(self) -> Progress | None:
        """How far the client's answer has got; None while nothing of any attempt has gone out."""
        return self.codec.progress() if self.codec is not None and self.handed_over else None

    def _step(self, happened: LifecycleEvent) -> None:
        self.state, _ = step(self.state, happened)
        self._owner.changed()

    def _abort(self, happened: LifecycleEvent) -> None:
        if self._attempt is not None:
            self._attempt.abort(happened)
