"""The request bodies that are still on their way: each within its time, and none for longer than Edge takes requests.

In: what reads a body. Out: an error where that takes too long, or Edge leaves meanwhile. Must not: read by itself.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from edge.errors import RequestTimeout, ShuttingDown


class Arrivals:
    """See the module."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._leaving = False

    def __len__(self) -> int:
        return len(self._waits)

    def leave(self) -> None:
        """What has not arrived would be refused anyway, so refuse it now, while its client can send it elsewhere."""
        self._leaving = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            wait.reschedule(now)

    @asynccontextmanager
    async def within(self, limit_s: float, late: str) -> AsyncIterator[None]:
        """Read here.

        Args:
            limit_s: How long that may take.
            late: The error if it takes longer.

        Raises:
            RequestTimeout: it took longer.
            ShuttingDown: Edge is leaving.
        """
        if self._leaving:
            raise _leaving()
        wait = asyncio.timeout(limit_s)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            raise (_leaving() if self._leaving else RequestTimeout(late)) from None
        finally:
            self._waits.discard(wait)


def _leaving() -> ShuttingDown:
    return ShuttingDown("Edge is shutting down; send the request again")
