"""What takes the body of a server's answer, and what that needs of the call.

In: nothing. Out: the interface of all bodies. Must not: know any of them.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent
from edge.upstream.ports import Call, Sink

End = Callable[[LifecycleEvent, EdgeError | None], None]


class Body:
    """Takes one body. ``whole`` and ``broke`` exclude each other."""

    __slots__ = ()

    def take(self, data: bytes) -> None:
        """What one network read brought; never raises."""
        raise NotImplementedError

    def whole(self) -> None:
        """It ended as its framing says."""
        raise NotImplementedError

    def broke(self, why: str) -> None:
        """It ended otherwise."""
        raise NotImplementedError


class Work:
    """What is still to be done with a body that has come: one task at most."""

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; it must not raise."""
        self._task = asyncio.get_running_loop().create_task(work)

    def drop(self) -> None:
        """Nobody wants it any more, or it is done; it may itself say so."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def done(self) -> None:
        """Wait for it, if there is any."""
        if self._task is not None:
            await self._task


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom an answer is for.

    Attributes:
        name: Of the upstream that gives it.
        call: What was asked.
        sink: What is pushed into.
        end: Ends the call.
        use: Told of another body that takes what comes from the next read on, at most once.
        work: Dropped when the call ends.
    """

    name: str
    call: Call
    sink: Sink
    end: End
    use: Callable[[Body], None]
    work: Work
