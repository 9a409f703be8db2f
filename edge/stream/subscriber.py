"""A subscriber: one downstream connection that gets a generation as a stream.

In: the journal. Out: bytes through the writer, heartbeats in silences, and exactly one terminal signal. Must not:
change an event, keep anything the journal has, or run a task of its own: it lives in the handler's, which wakes only
when the status goes out, when the reader is slow, and at the end; in between, ``take`` writes on each upstream read.
"""

from collections.abc import Callable, Mapping

from aiohttp import web

from edge.errors import EdgeError, InternalError
from edge.policy.lifecycle import Outcome, ReaderHappened, ReaderState
from edge.protocol.dialect import Codec
from edge.settings import Stream as StreamSettings
from edge.stream.generation import Generation
from edge.stream.reader import BaseReader
from edge.stream.writer import Writer

# One write at the most: what a fast stream may take of a loop turn before it looks whether the reader keeps up.
_WRITE_BYTES = 32 * 1024


class Subscriber(BaseReader):
    """See the module.

    Args:
        headers: Called at the commit for the response headers, so that they can tell what is known by then.
        request_id: Goes into in-band errors where the surface has a place for it.
        opening: What goes out at once, with the status. It is no part of the answer: other attempts may still follow.
    """

    def __init__(
        self,
        generation: Generation,
        writer: Writer,
        settings: StreamSettings,
        clock: Callable[[], float],
        changed: Callable[[], None],
        *,
        headers: Callable[[], Mapping[str, str]],
        request_id: str,
        opening: bytes = b"",
    ) -> None:
        super().__init__(generation, writer, settings, clock, changed)
        self._headers = headers
        self._request_id = request_id
        self._opening = opening
        self._accepted_at = clock()
        self._commit_due = False
        self._written_at = self._accepted_at
        self._wrote = False  # some bytes went out since the last tick
        self._ready = False  # status and headers are out
        self._flowing = False  # and the task waits for nothing but a reason to stop: ``take`` may write

    async def run(self) -> web.StreamResponse:
        """Hold the status until it is known, then stream until the end.

        Raises:
            EdgeError: the generation failed before the status went out; the caller answers with it.
        """
        try:
            return await self._run()
        except ConnectionError:
            # Only downstream awaits and writes are in here: it is the reader that left.
            self.leave()
            raise
        finally:
            # Cancelled by the server when the connection is lost; whatever got us here, the generation must know.
            self.leave()

    async def _run(self) -> web.StreamResponse:
        while not self._decided():
            await self._woken()
        error = self._failed_early()
        if error is not None:
            self._refuse(error)
            raise error
        self._step(ReaderHappened.COMMIT)
        self.status = 200
        response = await self._writer.open(200, self._headers())
        self._ready = True
        self._written_at = self._clock()
        if self._opening:
            self._writer.write_nowait(self._opening)
        try:
            await self._stream()
        except ConnectionError:
            raise
        except Exception as bug:  # noqa: BLE001 - a bug of ours is told in-band like every other end
            self._generation.fail(bug)
            if self.state is ReaderState.OPEN:
                await self._end()
        return response

    def take(self, data: bytes) -> bool:
        """Write at once, if nothing waits before it."""
        if not self._flowing:
            return False
        try:
            blocked = self._writer.write_nowait(data)
        except ConnectionError:
            self._rouse()  # the handler's task finds out by itself
            return False
        self.position += len(data)
        self._wrote = True
        if blocked:
            self._rouse()
        return True

    def push(self) -> None:
        """Write on what came, unless the status is still held or the reader is slow."""
        if self._flowing:
            try:
                self._pump()
            except ConnectionError:
                self._rouse()  # the handler's task finds out by itself
                return
            if self._writer.blocked:
                self._rouse()
        elif self.blocked:
            self._note_lag()
        elif self.state is ReaderState.HELD:
            self._rouse()

    def tick(self, now: float) -> None:
        """The commit deadline, heartbeats, and the stall clock."""
        super().tick(now)
        if self.state is ReaderState.HELD:
            if not self._commit_due and now - self._accepted_at >= self._settings.commit_after_s:
                self._commit_due = True
                self._rouse()
        elif self.state is ReaderState.OPEN:
            if self._wrote:
                self._wrote = False
                self._written_at = now
            elif now - self._written_at >= self._settings.heartbeat_s:
                self._beat(now)

    def _rouse(self) -> None:
        self._flowing = False
        super()._rouse()

    def _decided(self) -> bool:
        generation = self._generation
        return generation.handed_over or generation.outcome is not None or self._commit_due or bool(self._opening)

    def _failed_early(self) -> EdgeError | None:
        generation = self._generation
        if generation.handed_over or generation.outcome in (None, Outcome.COMPLETE):
            return None
        return generation.error or InternalError(f"the stream ended as {generation.outcome}")

    async def _woken(self) -> None:
        self._flowing = self._ready and not self._awake
        await self._sleep()

    async def _stream(self) -> None:
        generation = self._generation
        while self.state is ReaderState.OPEN:
            self._awake = False
            self._pump()
            if self._writer.blocked:
                await self._drain()
            elif generation.outcome is not None:
                break
            else:
                await self._woken()
        if self.state is ReaderState.OPEN:
            await self._end()

    def _pump(self) -> None:
        journal = self._generation.journal
        while not self._writer.blocked:
            data = journal.read(self.position, _WRITE_BYTES)
            if not data:
                break
            self.position += len(data)
            self._writer.write_nowait(data)
            self._wrote = True
        self._generation.advanced()

    def _beat(self, now: float) -> None:
        """A heartbeat, only ever between whole events, and only if the connection is idle."""
        codec = self._generation.codec
        behind = self.blocked or self._writer.pending or self.position < self._generation.journal.end
        if codec is None or not self._ready or behind:
            return
        try:
            self._writer.write_nowait(codec.heartbeat(handed_over=self.position > 0))
        except ConnectionError:
            self._rouse()
            return
        self.heartbeats += 1
        self._written_at = now

    async def _end(self) -> None:
        """The one terminal signal."""
        generation = self._generation
        codec = generation.codec
        self._step(ReaderHappened.END)
        if generation.outcome is Outcome.COMPLETE or generation.terminated:
            if not generation.terminated and codec is not None:
                self._writer.write_nowait(codec.terminator)
            await self._finish()
        else:
            if not generation.told:
                self._write_error(codec)
            await self._writer.flush(self._settings.flush_s)
            self._writer.abort()
        self._step(ReaderHappened.FLUSHED)

    def _write_error(self, codec: Codec | None) -> None:
        error = self._generation.error or InternalError(f"the stream ended as {self._generation.outcome}")
        if codec is not None:
            self._writer.write_nowait(codec.error_event(error, self._request_id))
