"""Replay: a stream from a store, for one reader. First what it missed, then what another process still generates.

In: stretches of events from a store, read by a task of its own that waits while the reader lags. Out: events for that
reader, and the end of the stream. Must not: generate anything, or have a second reader.
"""

import asyncio
import contextlib
from dataclasses import replace

from typing_extensions import override

from edge.errors import BadRequest, EdgeError, Gone, InternalError
from edge.policy.lifecycle import Outcome
from edge.protocol.event_ids import Numbering
from edge.protocol.surface_format import SurfaceFormat
from edge.settings import Stream as StreamSettings
from edge.store.ports import LOST, Dropped, Ending, StoreDown, StreamState, Stretch
from edge.stream.channel import Channel
from edge.stream.endings import error_events
from edge.stream.persistence import StoredStream, unavailable

_PAGE_BYTES = 64 * 1024  # the most that is read at once
_LOOK_S = 1.0  # a store reports changes by itself; this is for a report that was lost


def _error_of(ending: Ending) -> EdgeError:
    """The error that a stream ended with."""
    message, code, kind = ending.error or (f"the stream ended as {ending.outcome}", ending.outcome, "server_error")
    error = EdgeError(message, code=code)
    error.status, error.type = ending.status, kind
    return error


class Replay(Channel):
    """A channel whose events come from a store; see the module.

    Args:
        after: The sequence of the last event that the reader has.
        numbering: Finds the ends of events.
        surface_format: Makes heartbeats, and the errors that are not stored; None if the reader makes its own.

    Attributes:
        broken: Why the stream could not be read to its end.
    """

    __slots__ = ("_format", "_found", "_last", "_numbering", "_page_bytes", "_room", "_task", "broken")

    def __init__(
        self,
        found: StoredStream,
        settings: StreamSettings,
        after: int,
        *,
        numbering: Numbering,
        surface_format: SurfaceFormat | None,
    ) -> None:
        super().__init__(found.state.meta.id, settings)
        self._found = found
        self._last = after
        self._numbering = numbering
        self._format = surface_format
        self._page_bytes = min(_PAGE_BYTES, settings.buffer_bytes)
        self.broken: EdgeError | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.get_running_loop().create_task(self._run())

    def __repr__(self) -> str:
        end = f" {self.outcome}" if self.outcome else " paused" * self._paused
        return f"<Replay {self.id}{end} at {self._last} {self.journal!r}>"

    @override
    def heartbeat(self, *, lively: bool) -> bytes:
        return b"" if self._format is None else self._format.heartbeat(lively=lively)

    @override
    def fail(self, bug: BaseException) -> None:
        error = InternalError("Edge failed while replaying the stream")
        error.__cause__ = bug
        self._part(Outcome.INTERNAL_ERROR, error)

    @override
    def break_off(self, error: EdgeError) -> None:
        """End it for this reader; the stream itself goes on."""
        self._part(Outcome.REJECTED, error)

    @override
    def left(self, *, stalled: bool) -> None:
        self._task.cancel()

    @override
    def pause_source(self) -> None:
        self._room.clear()

    @override
    def resume_source(self) -> None:
        self._room.set()

    async def closed(self) -> None:
        """Wait until its task has ended."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._read()
        except Dropped:
            self.break_off(gone(self.id, self._last))
        except StoreDown:
            self.break_off(unavailable())
        except EdgeError as error:
            self.break_off(error)
        except Exception as bug:  # noqa: BLE001 - the reader gets a bug as an end like any other
            self.fail(bug)

    async def _read(self) -> None:
        found = self._found
        while True:
            await self._room.wait()
            try:
                stretches = await found.store.read(self.id, self._last, self._page_bytes)
                if not stretches:
                    await self._learn_beginning(found)
                    if self._ends(found.state):
                        return
                    found = await self._changed(found)
            except Dropped:
                found = await self._elsewhere(found)
                continue
            for stretch in stretches:
                self._hand_on(stretch)

    async def _learn_beginning(self, found: StoredStream) -> None:
        """Read the first event of a lost stream: the error event may have to name what it says."""
        ending = found.state.ending
        if self._format is not None and ending is not None and ending.error == LOST:
            with contextlib.suppress(Dropped):
                for stretch in await found.store.read(self.id, 0, 1):
                    self._format.learn(stretch.data)

    def _ends(self, state: StreamState) -> bool:
        """Conclude if the stream has ended and all of it has been read; whether it has."""
        if state.ending is None or state.last > self._last:
            return False
        self._conclude(state, state.ending)
        return True

    async def _changed(self, found: StoredStream) -> StoredStream:
        if found.state.ending is None:
            await found.store.changed(self.id, self._last, _LOOK_S)
        state = await found.store.find(self.id)
        if state is None:
            raise Dropped(f"{self.id} has expired")
        return replace(found, state=state)

    async def _elsewhere(self, found: StoredStream) -> StoredStream:
        """Find the stream in another store, which may have got it in the meantime."""
        now = await found.archive.find(found.state.meta.principal, self.id)
        if now is None or now.store is found.store:
            raise Dropped(f"what follows event {self._last} of {self.id} is in no store")
        return now

    def _hand_on(self, stretch: Stretch) -> None:
        seen = self._last - (stretch.last - stretch.count)
        data = stretch.data[self._numbering.cut(stretch.data, seen) :] if seen > 0 else stretch.data
        count = stretch.last - self._last
        self._last = stretch.last
        self.handed_over = True
        if self._format is not None:
            self._format.heard(data)
        self.publish(data, count)

    def _conclude(self, state: StreamState, ending: Ending) -> None:
        outcome = Outcome(ending.outcome)
        if state.last < self._last:
            self.break_off(past_the_end(state, self._last))
        elif ending.clean:
            self.clean = True
            self._finish(outcome, None)
        else:
            error = _error_of(ending)
            unstored = ending.error == LOST or not state.last  # other errors are among the stored events
            words = self._words(error, final=True) if unstored else []
            for event in words:
                self.publish(event, 1)
            self.error_sent = bool(words) or not unstored
            self._finish(outcome, error)

    def _part(self, outcome: Outcome, error: EdgeError) -> None:
        """End it for this reader alone: the error does not become an event of the stream."""
        if self.outcome is None:
            self.broken, self.parting = error, b"".join(self._words(error, final=False))
        self._finish(outcome, error)

    def _words(self, error: EdgeError, *, final: bool) -> list[bytes]:
        """An error as events; none if it can be the status, or the reader makes them. ``final``: it ends the stream."""
        own, committed = self._format, self.handed_over or any(reader.committed for reader in self._readers)
        if own is None or not committed:
            return []
        return error_events(own, error) if final else [own.error_event(error)]

    def _finish(self, outcome: Outcome, error: EdgeError | None) -> None:
        if self.outcome is None:
            self.outcome, self.error = outcome, error
            self.conclude()


def gone(stream_id: str, after: int) -> Gone:
    """The error for events that are no longer kept."""
    return Gone(
        f"events after {after} of stream {stream_id} are no longer kept (stream.journal_bytes, store.keep_s); "
        "send the request again",
        code="stream_gone",
    )


def past_the_end(state: StreamState, after: int) -> EdgeError:
    """The error for a reader that claims to have more events than an ended stream has."""
    if state.ending is not None and state.ending.error == LOST:
        message, code, _ = LOST
        return Gone(message, code=code)  # the lost stream may well have had that event
    return no_event(after, state.last)


def no_event(after: int, last: int) -> BadRequest:
    """The error for an event that does not exist."""
    return BadRequest(
        f"this stream has no event {after}, its last is {last}; ask for the events after one that exists",
        param="starting_after",
        code="no_such_event",
    )
