"""A raw client over a Unix socket.

In: the socket's path. Out: a ``RawClient`` in all but where it connects. Must not: be used for TCP.
"""

import asyncio
import socket
from pathlib import Path
from typing import Self

from support.raw import RawClient


class UnixClient(RawClient):
    """A ``RawClient`` over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__(0)
        self._path = path

    async def __aenter__(self) -> Self:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(self.sock, str(self._path))
        except BaseException:
            self.sock.close()
            raise
        return self
