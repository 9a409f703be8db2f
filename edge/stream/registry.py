"""Who owns the exchanges: the registry, never a handler's task.

In: exchanges that begin and end. Out: how many there are, by stream id; the drain. Must not: know HTTP.
"""

import asyncio
from collections.abc import Iterator
from typing import Protocol


class Owned(Protocol):
    """An exchange, as the registry sees it."""

    @property
    def stream_id(self) -> str:
        """Its id."""

    def shut_down(self) -> None:
        """End it with the truth: the process is leaving."""


class Registry:
    """The exchanges that are alive."""

    def __init__(self) -> None:
        self._alive: dict[str, Owned] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._alive)

    def __iter__(self) -> Iterator[Owned]:
        return iter(tuple(self._alive.values()))

    def add(self, exchange: Owned) -> None:
        """Own it until ``discard``."""
        self._alive[exchange.stream_id] = exchange
        self._empty.clear()

    def discard(self, exchange: Owned) -> None:
        """It has ended on both sides."""
        self._alive.pop(exchange.stream_id, None)
        if not self._alive:
            self._empty.set()

    async def drain(self, within_s: float, flush_s: float) -> bool:
        """Wait until all have ended by themselves; after ``within_s`` end the rest with the truth.

        Returns:
            Whether all ended by themselves.
        """
        self.draining = True
        if await self._wait_empty(within_s):
            return True
        for exchange in self:
            exchange.shut_down()
        await self._wait_empty(flush_s)
        return False

    async def _wait_empty(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
