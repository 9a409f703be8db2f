"""The wait for streams that another process may have begun a moment ago: processes write in batches.

In: whose streams are wanted, and which. Out: those that turn up. Must not: ask the store for each request that waits:
all of them share one look, however many there are; or take a different time for a stream that is somebody else's than
for one that never was.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

LATE_S = 0.25  # by which every process has written that it began a stream
_LOOKS_EVERY_S = 0.05
_AT_A_TIME = 512  # ids that are asked for at once: a look must not take long either

T = TypeVar("T")
Look = Callable[[str, Sequence[str]], Awaitable[Mapping[str, T]]]


class _Waiting(Generic[T]):
    """One request that waits; ``left`` are the ids that have not turned up."""

    __slots__ = ("done", "found", "left", "principal", "until")

    def __init__(self, principal: str, left: set[str], until: float, done: "asyncio.Future[None]") -> None:
        self.principal = principal
        self.left = left
        self.found: dict[str, T] = {}
        self.until = until
        self.done = done


class LateStreams(Generic[T]):
    """See the module.

    Args:
        look: Finds those of some streams that are a principal's. What it raises is raised to all who wait for it.
    """

    def __init__(self, look: Look[T]) -> None:
        self._look = look
        self._waiting: dict[_Waiting[T], None] = {}
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<LateStreams {len(self._waiting)} waiting>"

    async def find(self, principal: str, stream_ids: Sequence[str]) -> dict[str, T]:
        """Those of these streams that turn up; as soon as all have, and after ``LATE_S`` at the latest.

        Raises:
            EdgeError: the store cannot be asked.
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
        """Look no more."""
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
        except Exception as error:  # noqa: BLE001 - those who wait get it
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
