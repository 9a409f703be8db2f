"""The registry: owns the exchanges, transfers and returned readers, so that no handler's task has to.

In: what begins and ends. Out: how many are alive; the exchange of a stream id; the drain. Must not: know HTTP.
"""

import asyncio
from collections.abc import Iterator
from typing import Generic, TypeVar

ExchangeT = TypeVar("ExchangeT")
TransferT = TypeVar("TransferT")


class Owned:
    """An exchange, a transfer or a returned reader, as the registry sees it."""

    __slots__ = ()

    def shut_down(self) -> None:
        """End it, with an error that says that the process shuts down."""
        raise NotImplementedError


class Registry(Generic[ExchangeT, TransferT]):
    """All that is alive in this process.

    Attributes:
        streams: The exchanges among them, by stream id.
        transfers: The transfers among them, by stream id.
    """

    def __init__(self) -> None:
        self._alive: dict[Owned, None] = {}  # in order of arrival
        self.streams: dict[str, ExchangeT] = {}
        self.transfers: dict[str, TransferT] = {}
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._alive)

    def __iter__(self) -> Iterator[Owned]:
        return iter(tuple(self._alive))

    def add(self, owned: Owned) -> None:
        """Own it until ``discard``."""
        self._alive[owned] = None
        self._empty.clear()

    def discard(self, owned: Owned) -> None:
        """It has ended on both sides: own it no more."""
        self._alive.pop(owned, None)
        if not self._alive:
            self._empty.set()

    async def drain(self, within_s: float, flush_s: float) -> bool:
        """Wait until all have ended by themselves; after ``within_s``, shut down the rest.

        Returns:
            Whether all ended by themselves.
        """
        self.draining = True
        if await self._wait_empty(within_s):
            return True
        for owned in self:
            owned.shut_down()
        await self._wait_empty(flush_s)
        return False

    async def _wait_empty(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                await self._empty.wait()
        except TimeoutError:
            return False
        return True
