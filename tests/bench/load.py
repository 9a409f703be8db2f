"""Load on one target: checked answers, as many at once as a scenario wants.

In: a target and asks. Out: a ``Tally``. Must not: measure the target (``procfs`` does), or outlive its block.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import wire
from checks import Checked, Tally

from edge.cli.bench_load import Connection, Target

Kind = Callable[..., Checked]


class Load:
    """Connections and their answers, as a context manager: all of them are gone after it.

    Attributes:
        connections: Those that are open, each with its answer.
    """

    def __init__(self, url: str, key: str = "", path: str = "/v1/chat/completions") -> None:
        self._path = path
        self.tally = Tally()
        self.connections: dict[Connection, Checked] = {}
        self._target = Target.parse(url, key)
        self._tasks: set[asyncio.Task[None]] = set()
        self._going = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._going = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.leave()
        await asyncio.sleep(0)  # the aborts are carried out

    async def start(
        self, kind: Kind, ask: wire.Ask, count: int, *, over_s: float = 0.0, again: bool = False, stream: bool = True
    ) -> None:
        """Begin ``count`` answers, evenly spread over a time.

        Args:
            kind: Which check.
            again: Ask again whenever an answer has ended, until the load ends.
            stream: Whether a stream is asked for.
        """
        request = self._target.post(self._path, ask.body(stream=stream))
        began = time.monotonic()
        for number in range(count):
            await asyncio.sleep(max(0.0, began + over_s * number / count - time.monotonic()))
            self._spawn(self._begin(kind, ask, request, again=again))

    async def until_over(self, timeout_s: float) -> None:
        """Wait until every answer has ended; those that have not by then are faults."""
        ends = time.monotonic() + timeout_s
        while (self._tasks or self.connections) and time.monotonic() < ends:
            await asyncio.sleep(0.01)  # then disturbs what is measured less than a call for each end
        for answer in self.connections.values():
            self.tally.faults[f"not over {timeout_s:.0f} s after it should be" if answer.status else "no answer"] += 1

    async def until_begun(self, count: int, timeout_s: float) -> None:
        """Wait until so many answers have brought their first token, or the time is up."""
        ends = time.monotonic() + timeout_s
        while self.tally.begun < count and not self.tally.faults and time.monotonic() < ends:
            await asyncio.sleep(0.005)
        if self.tally.begun < count:
            self.tally.faults[f"no first token within {timeout_s:.0f} s"] += count - self.tally.begun

    def leave(self) -> None:
        """Drop all connections at once, as clients do that are closed."""
        for connection in list(self.connections):
            connection.leave()
        self.connections.clear()

    def _spawn(self, work: object) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _begin(self, kind: Kind, ask: wire.Ask, request: bytes, *, again: bool) -> None:
        try:
            connection = await Connection.open(self._target)
        except OSError as error:
            self.tally.faults[f"cannot connect: {error.strerror or error}"] += 1
            return
        self._ask(connection, kind, ask, request, again=again)

    def _ask(self, connection: Connection, kind: Kind, ask: wire.Ask, request: bytes, *, again: bool) -> None:
        def over(answer: Checked) -> None:
            del self.connections[connection]
            if again and self._going and answer.fault is None:
                if connection.reusable:
                    self._ask(connection, kind, ask, request, again=True)
                else:
                    connection.leave()
                    self._spawn(self._begin(kind, ask, request, again=True))
            else:
                connection.leave()

        answer = kind(self.tally, ask, time.monotonic(), over)
        self.connections[connection] = answer
        connection.ask(request, answer)
