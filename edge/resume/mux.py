"""The mux: several streams as one channel, for one reader.

In: the journals of generations and replays, a slice of each in turn. Out: events that name their stream. Must not: hold
more of a stream than its own journal does, or slow a stream down more than any other slow reader would.

While its reader lags, the mux reads nothing. What a journal has dropped by then becomes an ``error`` event.
"""

import asyncio
import contextlib
from collections import deque

from typing_extensions import override

from edge.errors import EdgeError, InternalError
from edge.policy.lifecycle import Outcome
from edge.protocol.mux_events import RETRY, MuxFormat, Tagged
from edge.resume.lookup import StartPoint
from edge.resume.replay import Replay, gone
from edge.settings import Stream as StreamSettings
from edge.stream.channel import Channel, Reader
from edge.stream.journal import Expired

# How much is read of one stream before the next has its turn.
_SLICE_BYTES = 16 * 1024


class MuxedStream(Reader):
    """One of the streams: a reader of its journal, for the mux.

    Attributes:
        bytes_out: How many bytes of its events the mux has sent.
    """

    committed = False  # the mux reports how a stream ended, so the stream need not make an event of it
    wants_events = True

    def __init__(self, mux: "Mux", start: StartPoint, stream_type: str) -> None:
        self.channel = start.channel
        self.position = start.position
        self.stream_type = stream_type
        self.bytes_out = 0
        self._mux = mux
        self.channel.attach(self)

    @property
    def behind(self) -> bool:
        """Whether its journal has more."""
        return self.position < self.channel.journal.end

    def __repr__(self) -> str:
        return f"<MuxedStream {self.channel.id} at {self.position}>"

    @override
    def write(self, data: bytes) -> bool:
        return False

    @override
    def push(self) -> None:
        self._mux.pushed(self)

    @override
    def ended(self) -> None:
        self._mux.wake()

    @override
    def cut_off(self) -> None:
        """Cut the reader of the mux: the source lags because that one does."""
        self._mux.cut_off()


class Mux(Channel):
    """Several streams as one channel; see the module.

    Args:
        name: Its id in logs.
        mux_format: Makes the events, and knows how far the reader is.
    """

    __slots__ = ("_format", "_handle", "_incomplete", "_leaving", "_lost", "_replays", "_said", "_sources")

    def __init__(self, name: str, settings: StreamSettings, mux_format: MuxFormat) -> None:
        super().__init__(name, settings)
        self.begun = True  # the streams exist, so the status can go out at once
        self._format = mux_format
        self._sources: deque[MuxedStream] = deque()  # the next in turn comes first
        self._lost: list[tuple[str, EdgeError]] = []  # still to be reported
        self._replays: list[Replay] = []
        self._handle: asyncio.Handle | None = None
        self._said = False  # an event has gone out
        self._leaving: EdgeError | None = None  # ends the mux once all that has come is read
        self._incomplete: EdgeError | None = None  # why the reader should come back for some stream

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Mux {self.id}{end} {list(self._sources)} {self.journal!r}>"

    def add(self, start: StartPoint, stream_type: str) -> MuxedStream:
        """Read one more stream. The mux needs its reader before."""
        if isinstance(start.channel, Replay):
            self._replays.append(start.channel)
        source = MuxedStream(self, start, stream_type)
        self._sources.append(source)
        self.wake()
        return source

    def lose(self, stream_id: str, error: EdgeError) -> None:
        """Report that one of the streams cannot be read."""
        self._lost.append((stream_id, error))
        self.wake()

    def leave(self, error: EdgeError) -> None:
        """End it once all that has come is read; with this error, if not all streams have ended."""
        self._leaving = error
        self.wake()

    def wake(self) -> None:
        """Read all sources soon, unless the reader lags."""
        if self._handle is None and not self._paused and self.outcome is None:
            self._handle = asyncio.get_running_loop().call_soon(self._round)

    def pushed(self, source: MuxedStream) -> None:
        """This source has more: pass it on at once, unless others come first. Never raises: the source calls it."""
        if self._handle is not None or self._paused or self.outcome is not None:
            return
        try:
            self._pass_on(source)
        except Exception as bug:  # noqa: BLE001 - a bug of the mux, not of the source
            self.fail(bug)
            return
        if source.behind:
            self.wake()

    def cut_off(self) -> None:
        """Cut the reader: it is too slow for one of the streams."""
        for reader in tuple(self._readers):
            reader.cut_off()

    async def closed(self) -> None:
        """Wait until no replay runs any more."""
        for replay in self._replays:
            await replay.closed()

    # --- channel.Channel ------------------------------------------------------------------------------------------

    @override
    def heartbeat(self, *, lively: bool) -> bytes:
        return self._format.heartbeat(lively=lively)

    @override
    def fail(self, bug: BaseException) -> None:
        error = InternalError("Edge failed while merging streams")
        error.__cause__ = bug
        self._end(Outcome.INTERNAL_ERROR, error)

    @override
    def break_off(self, error: EdgeError) -> None:
        """End it for this reader; the streams go on."""
        self._end(Outcome.REJECTED, error)

    @override
    def left(self, *, stalled: bool) -> None:
        """Leave the streams, as one of their readers."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.outcome = self.outcome or Outcome.CLIENT_GONE
        while self._sources:
            source = self._sources.popleft()
            source.channel.detach(source, stalled=stalled)

    @override
    def pause_source(self) -> None:
        """Nothing to do: it reads nothing while it is paused."""

    @override
    def resume_source(self) -> None:
        """Read on soon; not now, since the reader is in the middle of reading."""
        self.wake()

    # --- its work -------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        """Read a slice of each source; those that are left when the reader begins to lag come first next time."""
        self._handle = None
        try:
            again = self._slices()
        except Exception as bug:  # noqa: BLE001 - the reader gets a bug as an end like any other
            self.fail(bug)
            return
        if again:
            self.wake()
        elif not self._paused and not self._sources:
            self._conclude()
        elif not self._paused and self._leaving is not None:
            self.break_off(self._leaving)

    def _slices(self) -> bool:
        """Read a slice of each source; whether there is more."""
        again = False
        while self._lost and not self._paused:
            self._report_lost(*self._lost.pop(0))
        for _ in range(len(self._sources)):
            if self._paused:
                return False
            source = self._sources.popleft()
            stream = source.channel
            try:
                self._pass_on(source)
            except Expired:
                self._report_lost(stream.id, gone(stream.id, self._format.last(stream.id)))
                stream.detach(source)
                continue
            again |= source.behind
            if source.behind or stream.outcome is None:
                self._sources.append(source)
            else:
                self._report_end(stream, stream.outcome)
                stream.detach(source)
        return again

    def _pass_on(self, source: MuxedStream) -> None:
        """Pass on a slice of a source.

        Raises:
            Expired: the journal has dropped it.
        """
        channel = source.channel
        run = channel.journal.read(source.position, _SLICE_BYTES)
        if run:
            tagged = self._format.events(channel.id, run, source.stream_type, _SLICE_BYTES)
            source.position += tagged.used or len(run)
            source.bytes_out += len(tagged.data)
            self._send(tagged)
            channel.advanced()

    def _report_end(self, stream: Channel, outcome: Outcome) -> None:
        broken = stream.broken if isinstance(stream, Replay) else None
        if broken is not None:
            self._report_lost(stream.id, broken)
        else:
            self._send(Tagged(self._format.end(stream.id, outcome, stream.error), 1, 0))

    def _report_lost(self, stream_id: str, error: EdgeError) -> None:
        self._send(Tagged(self._format.lost(stream_id, error, final=not error.retryable), 1, 0))
        if error.retryable:
            self._incomplete = error

    def _send(self, tagged: Tagged) -> None:
        if tagged.count:
            data = tagged.data if self._said else RETRY + tagged.data
            self._said = self.handed_over = True
            self.publish(data, tagged.count)

    def _conclude(self) -> None:
        if self._incomplete is not None:
            self.break_off(self._incomplete)  # so that the connection is cut, and an ``EventSource`` comes back
            return
        self._send(Tagged(self._format.done(), 1, 0))
        self.clean = True
        self._finish(Outcome.COMPLETE, None)

    def _end(self, outcome: Outcome, error: EdgeError) -> None:
        if self.outcome is None:
            with contextlib.suppress(*(Exception,) if outcome is Outcome.INTERNAL_ERROR else ()):  # it may be in there
                self._send(Tagged(self._format.error_event(error), 1, 0))
            self._finish(outcome, error)

    def _finish(self, outcome: Outcome, error: EdgeError | None) -> None:
        self.outcome, self.error = outcome, error
        self.conclude()
