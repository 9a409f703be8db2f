"""A generation: one answer being produced, from the first attempt to its one outcome.

In: pushes from the upstream (it is the attempts' sink), ticks, and readers that attach and leave. Out: bytes in
the journal, pushes to readers, one ``end``. Must not: write to a socket, choose an upstream (its owner's ``retry``
does), or end in any way that the lifecycle table does not know.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from edge.errors import EdgeError, InternalError, ShuttingDown, UpstreamTimeout
from edge.policy.lifecycle import Happened, Outcome, State, step
from edge.protocol.batch import Batch
from edge.protocol.dialect import Codec
from edge.settings import Settings
from edge.stream.journal import Journal
from edge.telemetry.gaps import Gaps
from edge.upstream.base import JSON_TYPE, Call, Source, Upstream


class Reader(Protocol):
    """One who reads a generation's journal."""

    position: int

    def take(self, data: bytes) -> bool:
        """Take what comes next, past the journal; False, and nothing taken, if the reader is not up to it."""

    def push(self) -> None:
        """There is more in the journal."""

    def ended(self) -> None:
        """The generation has ended; nothing more will come."""


class Owner(Protocol):
    """Who runs the exchange that the generation belongs to."""

    def retry(self, error: EdgeError) -> bool:
        """Whether another attempt is to follow this failure; if so the owner opens it after ``retrying``."""

    def changed(self) -> None:
        """The state changed: time is to be booked on another phase."""


_TIMEOUTS = {
    Happened.CONNECT_TIMEOUT: "the upstream did not accept a connection within {} s",
    Happened.FIRST_TOKEN_TIMEOUT: "the upstream produced no token within {} s",
    Happened.STALL: "the upstream fell silent for {} s in the middle of the answer",
    Happened.TOTAL_TIMEOUT: "the answer took longer than {} s",
}


class Generation:
    """See the module. ``id`` is the stream id, ``st_`` and 32 hex digits."""

    __slots__ = (
        "_clock",
        "_held",
        "_held_bytes",
        "_largest",
        "_others",
        "_owner",
        "_paused",
        "_readers",
        "_settings",
        "_since",
        "_source",
        "_started_at",
        "clients_turn",
        "codec",
        "error",
        "first_token_at",
        "gaps",
        "headers",
        "id",
        "journal",
        "last_token_at",
        "outcome",
        "pauses",
        "sample",
        "sample_bytes",
        "state",
        "terminated",
        "token_count",
        "told",
        "whole",
        "whole_type",
    )  # as attributes of a dict they would take 1.5 KB

    def __init__(self, stream_id: str, settings: Settings, clock: Callable[[], float], owner: Owner) -> None:
        self.id = stream_id
        self.state = State.ROUTING
        self.outcome: Outcome | None = None
        self.error: EdgeError | None = None
        self.journal = Journal()
        self.codec: Codec | None = None
        self.headers: Mapping[str, str] = {}
        self.whole: bytes | None = None  # the answer, where the upstream sent one body
        self.whole_type = JSON_TYPE
        self.clients_turn = False  # the client is to bring more of the request's body
        self.terminated = False  # the journal ends with the surface's regular end
        self.told = False  # the journal ends with the upstream's own error event
        self._others = 0  # events without any
        self.token_count = 0  # events with generated content
        self.pauses = 0  # times that all readers lagged so far that the upstream was not read
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.gaps = Gaps()
        self.sample = bytearray()  # of the answer, as far as log.content_bytes asks
        self.sample_bytes = settings.log.content_bytes
        self._settings = settings.stream
        self._clock = clock
        self._owner = owner
        self._readers: list[Reader] = []
        self._held: list[bytes] = []  # the prelude, until something has been generated
        self._held_bytes = 0
        self._largest = 0  # of the batches handed over
        self._source: Source | None = None
        self._paused = False
        self._started_at = clock()
        self._since = self._started_at  # when the present state's clock was last reset

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Generation {self.id} {self.state}{end} {self.token_count} tokens {self.journal!r}>"

    @property
    def handed_over(self) -> bool:
        """Some event is, or was, within a reader's reach: from here on there is no other attempt."""
        return self.journal.end > 0

    @property
    def events(self) -> int:
        """Data-bearing events handed on."""
        return self.token_count + self._others

    def tokens_per_s(self, tokens: int | None = None) -> float | None:
        """The rate between the first and the latest token, for the tokens counted or for a better-known number."""
        count, first, last = tokens or self.token_count, self.first_token_at, self.last_token_at
        if first is None or last is None or last <= first or count < 2:
            return None
        return (count - 1) / (last - first)

    # --- attempts -------------------------------------------------------------------------------------------------

    def open(self, upstream: Upstream, call: Call) -> None:
        """Begin an attempt."""
        self._step(Happened.OPEN)
        self.codec = call.codec
        self.headers = {}
        self._source = upstream.open(call, self)

    def connected(self) -> None:
        """See ``upstream.base.Sink``."""
        self._step(Happened.CONNECTED)

    def uploading(self, *, clients_turn: bool) -> None:
        """See ``upstream.base.Sink``: whose silence a silence is changes with it, and begins anew."""
        self._since = self._clock()
        self.clients_turn = clients_turn
        self._owner.changed()

    def answered(self, headers: Mapping[str, str]) -> None:
        """See ``upstream.base.Sink``."""
        self.headers = headers

    def tokens(self, data: bytes, count: int) -> None:
        """See ``upstream.base.Sink``. The hot path: once per network read, no timer, task, log or lock."""
        if self.state is not State.STREAMING or self._held:
            self.feed(Batch(data, count, count))
            return
        now = self._clock()
        self.gaps.add(now - self._since, count)
        self._since = self.last_token_at = now
        self.token_count += count
        journal, readers = self.journal, self._readers
        try:
            if journal.start == journal.end and len(readers) == 1 and not self.sample_bytes and readers[0].take(data):
                journal.skip(len(data))  # the usual case: one reader, which keeps up
            else:
                self._hand_over(data)
        except Exception as bug:  # noqa: BLE001 - a sink never raises; what went wrong is ours, not the upstream's
            self.fail(bug)

    def feed(self, batch: Batch) -> None:
        """See ``upstream.base.Sink``."""
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
                self._step(Happened.CONTENT)
            self.token_count += batch.tokens
            self._since = self.last_token_at = now
        self._others += batch.events - batch.tokens
        self.terminated = batch.terminated
        self.told = batch.told
        if not batch.data:
            return
        if self.state is State.STREAMING:
            self._hand_over(batch.data)
        else:
            self._hold(batch.data)

    def body(self, data: bytes, content_type: str = JSON_TYPE) -> None:
        """See ``upstream.base.Sink``."""
        self.first_token_at = self._clock()
        self.whole, self.whole_type = data, content_type
        self.sample += data[: self.sample_bytes]

    def end(self, happened: Happened, error: EdgeError | None) -> None:
        """See ``upstream.base.Sink``: the attempt is over, and with it the generation unless another one follows."""
        self._source = None
        try:
            if not self._retried(happened, error):
                self._finish(happened, error)
        except Exception as bug:  # noqa: BLE001 - as in tokens
            self.fail(bug)

    def _retried(self, happened: Happened, error: EdgeError | None) -> bool:
        if error is None or happened is Happened.BUG or self.handed_over:
            return False
        return self.state in (State.CONNECTING, State.WAITING) and self._owner.retry(error)

    def retrying(self) -> None:
        """The owner is about to open another attempt: what the last one left behind is dropped."""
        self._step(Happened.RETRY)
        self._held.clear()
        self._held_bytes = 0
        self._others = 0
        self.told = self.terminated = False

    # --- readers --------------------------------------------------------------------------------------------------

    def attach(self, reader: Reader) -> None:
        """A reader begins at its position."""
        self._readers.append(reader)

    def detach(self, reader: Reader, *, stalled: bool = False) -> None:
        """A reader is gone; without readers the generation ends, unless it is to be drained."""
        if reader not in self._readers:
            return
        self._readers.remove(reader)
        if self._readers:
            self.advanced()
        elif self._settings.on_disconnect == "cancel":
            self.stop(Happened.READER_STALLED if stalled else Happened.READER_GONE)
        else:
            self.journal.trim(self.journal.end)
            self._resume()

    def advanced(self) -> None:
        """A reader has taken bytes: let go of what all have, and read on if one has caught up."""
        if not self._readers:
            return
        self.journal.trim(min(reader.position for reader in self._readers))
        if self._paused:
            furthest = max(reader.position for reader in self._readers)
            if self.journal.end - furthest <= self._settings.buffer_bytes // 2:
                self._resume()

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > self._settings.buffer_bytes:
            # A prelude of that size is none; what is bounded must leave.
            self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        self._held_bytes = 0
        if held:
            self._hand_over(b"".join(held))

    def _hand_over(self, data: bytes) -> None:
        if self._held:
            self._held.append(data)
            self._release()
            return
        if self.sample_bytes and len(self.sample) < self.sample_bytes:
            self.sample += data
        journal = self.journal
        readers = self._readers
        if journal.start == journal.end and len(readers) == 1 and readers[0].take(data):
            journal.skip(len(data))
            return
        journal.append(data)
        if not readers:
            journal.trim(journal.end)
            return
        for reader in readers:
            reader.push()
        # The next read may bring as much as any did, and has to fit too.
        self._largest = max(self._largest, len(data))
        buffer_bytes = self._settings.buffer_bytes
        room = max(buffer_bytes - self._largest, buffer_bytes // 2)
        if not self._paused and journal.end - journal.start > room:
            lag = journal.end - max((reader.position for reader in readers), default=journal.end)
            if lag > room:
                self._pause()

    def _pause(self) -> None:
        if self._source is not None:
            self._paused = True
            self.pauses += 1
            self._source.pause()

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._since = self._clock()
            if self._source is not None:
                self._source.resume()

    # --- the end --------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Look at the clocks: connect, first token, between tokens, total."""
        settings = self._settings
        waited = now - self._since
        if settings.total_s and now - self._started_at > settings.total_s:
            self._time_out(Happened.TOTAL_TIMEOUT, settings.total_s)
        elif self.clients_turn:
            return  # which has a clock of its own (server.body_s)
        elif self.state is State.CONNECTING and waited > settings.connect_s:
            self._time_out(Happened.CONNECT_TIMEOUT, settings.connect_s)
        elif self.state is State.WAITING and waited > settings.first_token_s:
            self._time_out(Happened.FIRST_TOKEN_TIMEOUT, settings.first_token_s)
        elif self.state is State.STREAMING and waited > settings.inter_token_s and not self._paused:
            self._time_out(Happened.STALL, settings.inter_token_s)

    def _time_out(self, happened: Happened, limit_s: float) -> None:
        self._abort()
        _, outcome = step(self.state, happened)
        error = UpstreamTimeout(_TIMEOUTS[happened].format(f"{limit_s:g}"), code=outcome)
        if happened is Happened.TOTAL_TIMEOUT:
            self._finish(happened, error)
        else:
            self.end(happened, error)

    def stop(self, happened: Happened) -> None:
        """End it from this side: the readers left or stalled, somebody stopped it, or the process is leaving."""
        self._abort()
        shutdown = happened is Happened.SHUTDOWN
        self._finish(happened, ShuttingDown("Edge is shutting down; send the request again") if shutdown else None)

    def fail(self, bug: BaseException) -> None:
        """A bug of ours, told like every other end."""
        self._abort()
        error = InternalError("Edge failed while relaying the answer")
        error.__cause__ = bug
        self._finish(Happened.BUG, error)

    def break_off(self, error: EdgeError) -> None:
        """What the upstream sends cannot be used any more."""
        self._abort()
        self._finish(Happened.ERROR, error)

    def reject(self, error: EdgeError) -> None:
        """No upstream was ever asked."""
        self._finish(Happened.REJECT, error)

    def _abort(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.abort()

    def _finish(self, happened: Happened, error: EdgeError | None) -> None:
        if happened is Happened.DONE:
            self._release()  # an empty answer is its prelude
        if self.state is State.ENDED:
            return
        if happened is not Happened.DONE:
            if self._held:
                self._held.clear()
                self.told = False  # the error was held too: it becomes the HTTP status, or Edge tells it in-band
            self.terminated &= self.told  # an end that is the error itself; any other was no regular one
        self.error = error
        self.clients_turn = False
        self._step(happened)
        for reader in tuple(self._readers):
            reader.ended()

    def _step(self, happened: Happened) -> None:
        self.state, outcome = step(self.state, happened)
        self.outcome = self.outcome or outcome
        self._since = self._clock()
        self._owner.changed()
