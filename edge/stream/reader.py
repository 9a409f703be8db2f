"""What all downstream readers share: a lifecycle, the stall clock and one end.

In: a channel, a writer, ticks. Out: lifecycle steps; the cut of a reader that takes no byte for too long. Must not:
know whether the answer goes out as a stream or as one body.
"""

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web
from typing_extensions import override

from edge.errors import EdgeError
from edge.policy.lifecycle import ReaderEvent, ReaderState, reader_step
from edge.settings import Stream as StreamSettings
from edge.stream.channel import Channel, Reader
from edge.stream.writer import Writer


class BaseReader(Reader):
    """A reader's state; see ``policy.lifecycle.READER``.

    Args:
        changed: Called when the reader becomes blocked or unblocked, or ends.
        position: Where in the journal it begins.
    """

    __slots__ = (
        "_awake",
        "_changed",
        "_channel",
        "_clock",
        "_progress_at",
        "_settings",
        "_taken",
        "_waiter",
        "_writer",
        "blocked",
        "error",
        "gone",
        "heartbeats",
        "peak_pending",
        "position",
        "stalled",
        "state",
        "status",
    )

    wants_events = True

    def __init__(
        self,
        channel: Channel,
        writer: Writer,
        settings: StreamSettings,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        position: int = 0,
    ) -> None:
        self.state = ReaderState.HELD
        self.status = 0
        self.position = position
        self.blocked = False
        self.stalled = False
        self.gone = False
        self.error: EdgeError | None = None  # the error that it got as its status, if that was not 200
        self.peak_pending = 0
        self.heartbeats = 0
        self._channel = channel
        self._writer = writer
        self._settings = settings
        self._clock = clock
        self._changed = changed
        self._awake = False  # the task has something to do
        self._waiter: asyncio.Future[None] | None = None  # what the task waits with, while it does
        self._taken = 0  # bytes that the peer had taken when it last made progress
        self._progress_at = clock()
        channel.attach(self)

    def __repr__(self) -> str:
        flags = " blocked" * self.blocked + " stalled" * self.stalled + " gone" * self.gone
        return f"<{type(self).__name__} {self.state} at {self.position}{flags}>"

    @property
    @override
    def committed(self) -> bool:
        return self.state is not ReaderState.HELD

    @property
    def closed(self) -> bool:
        """Nothing more goes out on this connection for this exchange."""
        return self.state is ReaderState.CLOSED

    @property
    def sent_status(self) -> int:
        """The HTTP status that went out; 499 if the client left before."""
        return self.status or 499

    @property
    def ending(self) -> str:
        """How it ended: finished, gone or stalled."""
        return "stalled" if self.stalled else "gone" if self.gone else "finished"

    @property
    def http10(self) -> bool:
        """See ``Writer.http10``."""
        return self._writer.http10

    @property
    def bytes_out(self) -> int:
        """Body bytes handed to the connection."""
        return self._writer.bytes_out

    @override
    def write(self, data: bytes) -> bool:
        raise NotImplementedError

    @override
    def push(self) -> None:
        raise NotImplementedError

    @override
    def ended(self) -> None:
        self._rouse()

    def tick(self, now: float) -> None:
        """Cut a reader that has bytes pending and has taken none of them for ``client_stall_s``."""
        if self._writer.closing:
            # Half-closed: while bytes are pending, aiohttp reports that end only once they are out, if ever.
            self._writer.abort()
            self.leave()
        if self.state not in (ReaderState.OPEN, ReaderState.ENDING):
            return
        if not self._writer.pending:
            self._progress_at = now
        elif (taken := self._writer.taken) > self._taken:
            self._progress_at = now
            self._taken = taken
        elif now - self._progress_at > self._settings.client_stall_s:
            self.cut_off()

    @override
    def cut_off(self) -> None:
        """Harmless where no body is under way."""
        if self.state not in (ReaderState.OPEN, ReaderState.ENDING):
            return
        self.stalled = True
        self._writer.abort()
        self._step(ReaderEvent.STALLED)

    def leave(self) -> None:
        """The connection is lost; idempotent, and harmless after a regular end."""
        if self.state is ReaderState.CLOSED:
            return
        if self.state is not ReaderState.HELD:
            self._writer.abort()  # part of an answer is out: it must not end like a whole one
        self.gone = True
        self._step(ReaderEvent.GONE)

    async def _answer(self, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """Send a whole answer; the time that the client needs to take it counts as client-blocked."""
        self._step(ReaderEvent.ANSWER)
        self.status = 200
        self._note_blocked(blocked=True)
        try:
            response = await self._writer.answer(200, headers, body)
        finally:
            self._note_blocked(blocked=False)
        self._step(ReaderEvent.FLUSHED)
        return response

    def _refuse(self, error: EdgeError) -> None:
        """The caller answers with the error."""
        self.error = error
        self.status = error.status
        self._step(ReaderEvent.ANSWER)
        self._step(ReaderEvent.FLUSHED)

    async def _drain(self) -> None:
        """Wait for a blocked writer; the time counts as client-blocked."""
        self._note_blocked(blocked=True)
        try:
            await self._writer.drain()
        finally:
            self._note_blocked(blocked=False)

    async def _finish(self) -> None:
        """End the body and wait until its last bytes are out; the time counts as client-blocked."""
        self._note_blocked(blocked=True)
        try:
            await self._writer.finish()
        finally:
            self._note_blocked(blocked=False)

    def _note_blocked(self, *, blocked: bool) -> None:
        if blocked:
            self._note_lag()
        if blocked is not self.blocked:
            self.blocked = blocked
            self._changed()

    def _note_lag(self) -> None:
        """Note how far this reader lags: bytes in the transport, and those behind them in the journal."""
        lag = self._writer.pending + self._channel.journal.end - self.position
        self.peak_pending = max(self.peak_pending, lag)

    def _rouse(self) -> None:
        """Wake the task: it has something to do."""
        self._awake = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _sleep(self) -> None:
        """Wait until the task is woken. An ``asyncio.Event`` for its one waiter would take 900 bytes."""
        if not self._awake:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._awake = False

    def _step(self, happened: ReaderEvent) -> None:
        self.state = reader_step(self.state, happened)
        if self.state is ReaderState.CLOSED:
            self.blocked = False
            self._channel.detach(self, stalled=self.stalled)
            self._rouse()
            self._changed()
