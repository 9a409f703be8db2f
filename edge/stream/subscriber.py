"""A subscriber: one downstream connection that gets events as a stream.

In: the journal. Out: bytes through the writer, heartbeats in silences, and an end that is either clean or cannot be
mistaken for a clean one. Must not: change an event (except for an id before it), keep a copy of what the journal has,
or run a task of its own.

It runs in the task of the HTTP handler. That task wakes only to send the status, when the reader is slow, and at the
end; in between, ``write`` passes on each upstream read.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from edge.errors import EdgeError, InternalError
from edge.policy.lifecycle import ReaderEvent, ReaderState
from edge.protocol.event_ids import Numbering
from edge.settings import Stream as StreamSettings
from edge.stream.channel import Channel
from edge.stream.journal import Expired
from edge.stream.reader import BaseReader
from edge.stream.writer import Writer

# The largest write: how much a fast stream sends before it looks whether the reader keeps up.
_WRITE_BYTES = 32 * 1024
# After so long a silence the heartbeat has to be a lively one. Claude Code looks for one every 10 s, and gives up after
# 30 others in a row.
_LIVELY_AFTER_S = 100.0


class Subscriber(BaseReader):
    """A reader that gets the events as a stream; see the module.

    Args:
        headers: Makes the response headers; called at the commit, when most is known.
        numbering: Puts ids on the events, for a reader that may come back.
        closes: The body may end cleanly after an error event; see ``policy.after_error``.
    """

    __slots__ = (
        "_accepted_at",
        "_closes",
        "_commit_due",
        "_flowing",
        "_headers",
        "_lively_at",
        "_numbering",
        "_ready",
        "_written_at",
        "_wrote",
    )

    def __init__(
        self,
        channel: Channel,
        writer: Writer,
        settings: StreamSettings,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        headers: Callable[[], Mapping[str, str]],
        numbering: Numbering | None = None,
        position: int = 0,
        closes: bool = False,
    ) -> None:
        super().__init__(channel, writer, settings, clock, changed, position=position)
        self._closes = closes
        self._headers = headers
        self._numbering = numbering
        self._accepted_at = clock()
        self._commit_due = False
        self._written_at = self._accepted_at
        self._lively_at = self._accepted_at  # the last event that all clients take as a sign of work
        self._wrote = False  # bytes have gone out since the last tick
        self._ready = False  # status and headers are out
        self._flowing = False  # the task only waits for a reason to stop, so ``write`` may write directly

    async def run(self) -> web.StreamResponse:
        """Hold the status until it is known, then stream until the end.

        Raises:
            EdgeError: the generation failed before the status went out; the caller answers with it.
        """
        try:
            return await self._run()
        except ConnectionError:
            # Everything awaited in here is downstream, so it is the client that left.
            self.leave()
            raise
        finally:
            # aiohttp cancels this when the connection is lost; however it ends, the generation must know.
            self.leave()

    async def _run(self) -> web.StreamResponse:
        while not self._decided():
            await self._woken()
        error = self._failed_early()
        if error is not None:
            self._refuse(error)
            raise error
        self._step(ReaderEvent.COMMIT)
        self.status = 200
        response = await self._writer.open(200, self._headers())
        self._ready = True
        self._written_at = self._lively_at = self._clock()
        self._channel.committed()
        try:
            await self._stream()
        except ConnectionError:
            raise
        except Expired:
            self.cut_off()  # it is further behind than the journal reaches
        except Exception as bug:  # noqa: BLE001 - a bug in Edge becomes an in-band error like any other
            self._channel.fail(bug)
            if self.state is ReaderState.OPEN:
                await self._stream()
        return response

    def write(self, data: bytes) -> bool:
        """Write at once, unless something waits before it."""
        if not self._flowing:
            return False
        numbering = self._numbering
        try:
            blocked = self._writer.write_nowait(data if numbering is None else numbering.number(data))
        except ConnectionError:
            self._rouse()  # the handler's task finds out by itself
            return False
        self.position += len(data)
        self._wrote = True
        if blocked:
            self._rouse()
        return True

    def push(self) -> None:
        """Write the journal's new events, unless the status is still held or the reader is slow."""
        if self._flowing:
            try:
                self._pump()
            except (ConnectionError, Expired):
                self._rouse()  # the handler's task finds out by itself
                return
            if self._writer.blocked:
                self._rouse()
        elif self.blocked:
            self._note_lag()
        elif self.state is ReaderState.HELD:
            self._rouse()

    def tick(self, now: float) -> None:
        """Check the commit deadline, heartbeats, and the stall clock."""
        super().tick(now)
        if self.state is ReaderState.HELD:
            if not self._commit_due and now - self._accepted_at >= self._settings.commit_after_s:
                self._commit_due = True
                self._rouse()
        elif self.state is ReaderState.OPEN:
            if self._wrote:
                self._wrote = False
                self._written_at = self._lively_at = now
            elif now - self._written_at >= self._settings.heartbeat_s:
                self._beat(now)

    def _rouse(self) -> None:
        self._flowing = False
        super()._rouse()

    def _decided(self) -> bool:
        channel = self._channel
        return channel.handed_over or channel.outcome is not None or self._commit_due or channel.begun

    def _failed_early(self) -> EdgeError | None:
        channel = self._channel
        if channel.handed_over or channel.fails_in_stream or channel.clean or channel.outcome is None:
            return None
        return channel.error or InternalError(f"the stream ended as {channel.outcome}")

    async def _woken(self) -> None:
        self._flowing = self._ready and not self._awake
        await self._sleep()

    async def _stream(self) -> None:
        channel = self._channel
        while self.state is ReaderState.OPEN:
            self._awake = False
            self._pump()
            if self._writer.blocked:
                await self._drain()
            elif channel.outcome is not None:
                break
            else:
                await self._woken()
        if self.state is ReaderState.OPEN:
            await self._end()

    def _pump(self) -> None:
        journal, numbering = self._channel.journal, self._numbering
        while not self._writer.blocked:
            data = journal.read(self.position, _WRITE_BYTES)
            if not data:
                break
            self.position += len(data)
            self._writer.write_nowait(data if numbering is None else numbering.number(data))
            self._wrote = True
        self._channel.advanced()

    def _beat(self, now: float) -> None:
        """Send a heartbeat, if the connection is idle: only ever between whole events."""
        behind = self.blocked or self._writer.pending or self.position < self._channel.journal.end
        if not self._ready or behind:
            return
        lively = now - self._lively_at >= _LIVELY_AFTER_S
        beat = self._channel.heartbeat(lively=lively)
        if lively:
            self._lively_at = now
        if not beat:
            return
        try:
            self._writer.write_nowait(beat if self._numbering is None else self._numbering.safe(beat))
        except ConnectionError:
            self._rouse()
            return
        self.heartbeats += 1
        self._written_at = now

    async def _end(self) -> None:
        """End the body; the terminal event has gone out by now."""
        self._step(ReaderEvent.END)
        if self._channel.clean:
            await self._finish()
        else:
            parting = self._channel.parting
            if self._numbering is not None:
                parting = self._numbering.aside(parting)
            if parting:
                self._writer.write_nowait(parting)
            if await self._writer.flush(self._settings.flush_s) and self._may_close():
                await self._finish()
            else:
                self._writer.abort()
        self._step(ReaderEvent.FLUSHED)

    def _may_close(self) -> bool:
        """Whether the body may end cleanly: the client has the error event, and will not take the answer for whole.

        If only this reader fails, and not the stream, its connection is cut, so that it comes back.
        """
        channel = self._channel
        return self._closes and channel.error_sent and not channel.parting and not self.http10
