"""Taking a response's body in the callback of each network read, instead of in a task that each read wakes.

In: calls after each read. Out: the data, to a callable that says when it was the end; then one ``Ending``. Must not: be
used by two at once on one body, or read while paused: then aiohttp's buffer fills (64 KiB), then the kernel's.

A paced token costs 5 to 6 microseconds less this way: no future, no task switch.
"""

import asyncio
from collections.abc import Callable

import aiohttp

from edge.errors import EdgeError
from edge.policy.lifecycle import Happened

Ending = tuple[Happened, EdgeError | None]


class Listening:
    """One body being listened to.

    Args:
        content: The body.
        take: Given each read, and ``b""`` at the clean end; returns how the stream ended, if it did.
        cut: Makes the error to tell of a body that broke off.

    Attributes:
        over: Done with the ending.
        paused: What comes is left where it is.
    """

    def __init__(
        self,
        content: aiohttp.StreamReader,
        take: Callable[[bytes], Ending | None],
        cut: Callable[[Exception], EdgeError],
    ) -> None:
        self.paused = False
        self._looking = False
        self._loop = asyncio.get_running_loop()
        self.over: asyncio.Future[Ending] = self._loop.create_future()
        self._content = content
        self._take = take
        self._cut = cut

    def resume(self) -> None:
        """Take what has come meanwhile, in a turn of its own: whoever resumes may be in the middle of writing."""
        if self.paused:
            self.paused = False
            self._loop.call_soon(self.look)

    def look(self) -> None:
        """Take what there is, and see whether the body has ended."""
        if self.paused or self._looking or self.over.done():
            return
        self._looking = True
        try:
            ending = self._next()
        except Exception as bug:  # noqa: BLE001 - we are in the protocol's callback: the waiting task tells of it
            if not self.over.done():
                self.over.set_exception(bug)
            return
        finally:
            self._looking = False
        if ending is not None and not self.over.done():
            self.over.set_result(ending)

    def _next(self) -> Ending | None:
        content = self._content
        # Not read_nowait: that raises the exception of a broken body before what had come is taken. More than once,
        # since taking makes room in aiohttp's buffer, upon which it parses what it had put off (and calls again).
        while data := content._read_nowait(-1):  # noqa: SLF001
            ending = self._take(data)
            if ending is not None or self.paused:
                return ending
        if content.at_eof():
            return self._take(b"")
        error = content.exception()
        if error is None:
            return None
        return Happened.CUT, self._cut(error if isinstance(error, Exception) else ConnectionResetError())
