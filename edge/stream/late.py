"""Waits for streams that another process may have begun a moment ago: processes write to the store in batches.

In: a principal and stream ids. Out: the streams that turn up. Must not: query the store once per waiting request (all
share one query); or take a different time for a stream of somebody else than for one that does not exist.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

LATE_S = 0.25  # by which every process has written that it began a stream
_LOOKS_EVERY_S = 0.05
_AT_A_TIME = 512  # ids in one query, so that no query takes long

T = TypeVar("T")
Look = Callable[[str, Sequence[str]], Awaitable[Mapping[str, T]]]


class _Waiting(Generic[T]):
    """One waiting request; ``left`` are the ids that have not turned up yet."""

    __slots__ = ("done", "found", "left", "principal", "until")

    def __init__(self, principal: str, left: set[str], until: float, done: "asyncio.Future[None]") -> None:
        self.principal = principal
        self.left = left
        self.found: dict[str, T] = {}
        self.until = until
        self.done = done


class LateStreams(Generic[T]):
    """Waits for streams on behalf of all requests of this process.

    Args:
        look: Queries the store for the streams of a principal. All waiting requests get what it raises.
    """

    def __init__(self, look: Look[T]) -> None:
        self._look = look
        self._waiting: dict[_Waiting[T], None] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LateStreams {len(self._waiting)} waiting>"

    async def find(self, principal: str, stream_ids: Sequence[str]) -> dict[str, T]:
        """The streams that turn up: returns once all have, or after ``LATE_S``.

        Raises:
            EdgeError: the store cannot be reached.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting[T](principal, set(stream_ids), loop.time() + LATE_S, loop.create_future())
        self._waiting[waiting] = None
        if self._task is None:
            self._task = loop.create_task(self._run(), name="late streams")
        try:
            await waiting.done
        finally:
            self._waiting.pop(waiting, None)
        return waiting.found

    async def close(self) -> None:
        """Stop waiting; requests that still wait are cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(_LOOKS_EVERY_S)
                began = asyncio.get_running_loop().time()
                for principal in {waiting.principal for waiting in self._waiting}:
                    await self._look_for([one for one in self._waiting if one.principal == principal])
                for waiting in tuple(self._waiting):
                    if not waiting.left or waiting.until <= began:
                        self._over(waiting)
        finally:
            self._task = None
            for waiting in tuple(self._waiting):  # closed
                waiting.done.cancel()

    async def _look_for(self, some: Sequence[_Waiting[T]]) -> None:
        ids = list(set[str]().union(*(waiting.left for waiting in some)))
        try:
            for at in range(0, len(ids), _AT_A_TIME):
                found = await self._look(some[0].principal, ids[at : at + _AT_A_TIME])
                for waiting in some if found else ():
                    mine = waiting.left & found.keys()
                    waiting.left -= mine
                    waiting.found.update({stream_id: found[stream_id] for stream_id in mine})
        except Exception as error:  # noqa: BLE001 - the waiting requests raise it
            for waiting in some:
                self._over(waiting, error)

    def _over(self, waiting: _Waiting[T], error: Exception | None = None) -> None:
        self._waiting.pop(waiting, None)
        if waiting.done.done():
            return
        if error is None:
            waiting.done.set_result(None)
        else:
            waiting.done.set_exception(error)
