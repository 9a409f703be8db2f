"""A sink for the tests of upstreams: it notes what is pushed into it, and may act from within a push.

In: pushes. Out: what came, in order. Must not: judge.
"""

import asyncio
from collections.abc import Callable, Mapping

from support.hanging import HANG_S, hang_limit

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.batch import Batch

LIMIT_S = HANG_S


class Recorder:
    """A sink that notes what is pushed into it.

    Attributes:
        calls: The names of the pushes, in order.
        when: What to do inside the next push of that name.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes = 0
        self.token_count = 0
        self.whole: bytes | None = None
        self.happened: LifecycleEvent | None = None
        self.error: EdgeError | None = None
        self.when: dict[str, Callable[[], None]] = {}
        self._changed = asyncio.Event()

    def connected(self) -> None:
        self._note("connected")

    def answered(self, headers: Mapping[str, str]) -> None:
        assert isinstance(headers, Mapping)
        self._note("answered")

    def tokens(self, data: bytes, count: int) -> None:
        self.feed(Batch(data, count, count))

    def feed(self, batch: Batch) -> None:
        self.bytes += len(batch.data)
        self.token_count += batch.tokens
        self._note("feed")

    def uploading(self, *, clients_turn: bool) -> None:
        assert isinstance(clients_turn, bool)
        self._note("uploading")

    def body(self, data: bytes, content_type: str = "application/json") -> None:
        assert content_type == "application/json"
        self.whole = data
        self._note("body")

    def end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        self.happened, self.error = happened, error
        self._note("end")

    async def until(self, reached: Callable[[], bool], timeout_s: float = LIMIT_S) -> None:
        """Wait until a push has made it so."""
        async with hang_limit(timeout_s):
            while not reached():
                self._changed.clear()
                await self._changed.wait()

    async def until_call(self, name: str) -> None:
        await self.until(lambda: name in self.calls)

    def _note(self, name: str) -> None:
        self.calls.append(name)
        self._changed.set()
        self.when.pop(name, lambda: None)()


async def turns(count: int = 30) -> None:
    """Let everything that is due happen: all ends of all sockets are in this loop."""
    for _ in range(count):
        await asyncio.sleep(0)
