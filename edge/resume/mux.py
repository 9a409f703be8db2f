"""Several streams as one: what a merged reader attaches to, and what attaches to each of the streams for it.

In: the journals of generations and replays, a slice of each in turn. Out: events that say whose they are, for one
reader. Must not: hold more of a stream than its own journal does, or let that wait for a reader who lags more than any
other reader would: while this one does, nothing is taken, and what a journal has let go of meanwhile counts as lost.
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

# Taken of one stream before it is another's turn.
_SLICE_BYTES = 16 * 1024


class Source(Reader):
    """One of the streams: a reader of its journal.

    Attributes:
        bytes_out: What it has brought, as the merged reader got it.
    """

    committed = False  # how it ended is said beside its events, so none is made of that for this reader's sake
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
        """There is more to be taken."""
        return self.position < self.channel.journal.end

    def __repr__(self) -> str:
        return f"<Source {self.channel.id} at {self.position}>"

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
        """It lags because the merged reader does."""
        self._mux.cut_off()


class Mux(Channel):
    """See the module.

    Args:
        name: For whoever looks at it.
        mux_format: Makes the events, and knows how far the reader is.
    """

    __slots__ = ("_format", "_handle", "_incomplete", "_leaving", "_lost", "_replays", "_said", "_sources")

    def __init__(self, name: str, settings: StreamSettings, mux_format: MuxFormat) -> None:
        super().__init__(name, settings)
        self.begun = True  # whatever follows, the streams are known
        self._format = mux_format
        self._sources: deque[Source] = deque()  # whose turn it is comes first
        self._lost: list[tuple[str, EdgeError]] = []  # to be announced
        self._replays: list[Replay] = []
        self._handle: asyncio.Handle | None = None
        self._said = False  # something has gone out
        self._leaving: EdgeError | None = None  # to be said when nothing is left to be taken
        self._incomplete: EdgeError | None = None  # why some stream may yet be had by a reader that comes back

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Mux {self.id}{end} {list(self._sources)} {self.journal!r}>"

    def follow(self, start: StartPoint, stream_type: str) -> Source:
        """Read one more stream; once there is a reader."""
        if isinstance(start.channel, Replay):
            self._replays.append(start.channel)
        source = Source(self, start, stream_type)
        self._sources.append(source)
        self.wake()
        return source

    def lose(self, stream_id: str, error: EdgeError) -> None:
        """One of the streams cannot be read."""
        self._lost.append((stream_id, error))
        self.wake()

    def leave(self, error: EdgeError) -> None:
        """End it when what there is has been taken, for this reason if not all streams have ended."""
        self._leaving = error
        self.wake()

    def wake(self) -> None:
        """Look at all sources soon, unless the reader lags."""
        if self._handle is None and not self._paused and self.outcome is None:
            self._handle = asyncio.get_running_loop().call_soon(self._round)

    def pushed(self, source: Source) -> None:
        """This source has more: pass it on at once, unless it is others' turn. Never raises: the source is at work."""
        if self._handle is not None or self._paused or self.outcome is not None:
            return
        try:
            self._pass_on(source)
        except Exception as bug:  # noqa: BLE001 - ours, and not the source's
            self.fail(bug)
            return
        if source.behind:
            self.wake()

    def cut_off(self) -> None:
        """Its reader is too slow for one of the streams."""
        for reader in tuple(self._readers):
            reader.cut_off()

    async def closed(self) -> None:
        """Wait until nothing of it runs any more."""
        for replay in self._replays:
            await replay.closed()

    # --- as an channel -------------------------------------------------------------------------------------------

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
        """This reader gets the error, the streams go on."""
        self._end(Outcome.REJECTED, error)

    @override
    def left(self, *, stalled: bool) -> None:
        """For the streams, a reader has gone."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self.outcome = self.outcome or Outcome.CLIENT_GONE
        while self._sources:
            source = self._sources.popleft()
            source.channel.detach(source, stalled=stalled)

    @override
    def pause_source(self) -> None:
        """Nothing is taken while it is paused."""

    @override
    def resume_source(self) -> None:
        """Soon, since the reader is in the middle of its reading."""
        self.wake()

    # --- its work -------------------------------------------------------------------------------------------------

    def _round(self) -> None:
        """A slice of each source; those that are left when the reader begins to lag come first next time."""
        self._handle = None
        try:
            again = self._slices()
        except Exception as bug:  # noqa: BLE001 - an end like every other
            self.fail(bug)
            return
        if again:
            self.wake()
        elif not self._paused and not self._sources:
            self._conclude()
        elif not self._paused and self._leaving is not None:
            self.break_off(self._leaving)

    def _slices(self) -> bool:
        """Whether there is more."""
        again = False
        while self._lost and not self._paused:
            self._announce_lost(*self._lost.pop(0))
        for _ in range(len(self._sources)):
            if self._paused:
                return False
            source = self._sources.popleft()
            stream = source.channel
            try:
                self._pass_on(source)
            except Expired:
                self._announce_lost(stream.id, gone(stream.id, self._format.last(stream.id)))
                stream.detach(source)
                continue
            again |= source.behind
            if source.behind or stream.outcome is None:
                self._sources.append(source)
            else:
                self._announce_end(stream, stream.outcome)
                stream.detach(source)
        return again

    def _pass_on(self, source: Source) -> None:
        """Pass on a slice of what there is.

        Raises:
            Expired: it is gone.
        """
        channel = source.channel
        run = channel.journal.read(source.position, _SLICE_BYTES)
        if run:
            tagged = self._format.events(channel.id, run, source.stream_type, _SLICE_BYTES)
            source.position += tagged.used or len(run)
            source.bytes_out += len(tagged.data)
            self._say(tagged)
            channel.advanced()

    def _announce_end(self, stream: Channel, outcome: Outcome) -> None:
        broken = stream.broken if isinstance(stream, Replay) else None
        if broken is not None:
            self._announce_lost(stream.id, broken)
        else:
            self._say(Tagged(self._format.end(stream.id, outcome, stream.error), 1, 0))

    def _announce_lost(self, stream_id: str, error: EdgeError) -> None:
        self._say(Tagged(self._format.lost(stream_id, error, final=not error.retryable), 1, 0))
        if error.retryable:
            self._incomplete = error

    def _say(self, tagged: Tagged) -> None:
        if tagged.count:
            data = tagged.data if self._said else RETRY + tagged.data
            self._said = self.handed_over = True
            self.publish(data, tagged.count)

    def _conclude(self) -> None:
        if self._incomplete is not None:
            self.break_off(self._incomplete)  # so that the connection is cut, and an ``EventSource`` comes back
            return
        self._say(Tagged(self._format.done(), 1, 0))
        self.clean = True
        self._finish(Outcome.COMPLETE, None)

    def _end(self, outcome: Outcome, error: EdgeError) -> None:
        if self.outcome is None:
            with contextlib.suppress(*(Exception,) if outcome is Outcome.INTERNAL_ERROR else ()):  # it may be in there
                self._say(Tagged(self._format.error_event(error), 1, 0))
            self._finish(outcome, error)

    def _finish(self, outcome: Outcome, error: EdgeError | None) -> None:
        self.outcome, self.error = outcome, error
        self.conclude()
