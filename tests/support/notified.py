"""A service manager's ear: a datagram socket that hears what a service tells it.

In: nothing. Out: datagrams, each as its assignments. Must not: wait for ever.
"""

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from support.hanging import HANG_S, hang_limit

WITHIN_S = HANG_S


class Ear:
    """Listens at a path, or ``@NAME`` for an abstract socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[dict[str, str]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        self._sock.bind(address.replace("@", "\0", 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()
        if not self.address.startswith("@"):
            Path(self.address).unlink()

    async def next(self, name: str, within_s: float = WITHIN_S) -> dict[str, str]:
        """The next datagram with this assignment; those before it are passed over."""
        async with hang_limit(within_s):
            while name not in await self._hear():
                pass
        return self.heard[-1]

    async def silence(self, for_s: float) -> None:
        """Wait until nothing has been heard for so long."""
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(for_s):
                    await self._hear()

    async def _hear(self) -> dict[str, str]:
        text = (await asyncio.get_running_loop().sock_recv(self._sock, 65536)).decode()
        self.heard.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.heard[-1]
