"""A proxy that cuts: each connection through it gets so many bytes of the answer, then ends like a lost one.

In: where to, and after how many bytes to cut each connection in turn. Out: a port, and the requests that came through.
Must not: understand HTTP, beyond where a head ends.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Self, cast

from edge.stream.writer import reset

_READ_BYTES = 65536
_HEAD_END = b"\r\n\r\n"


class CuttingProxy:
    """See the module.

    Args:
        target: The port behind it.
        cuts: Bytes of the answer that each connection gets, by turns; those after the last get all.
    """

    def __init__(self, target: int, cuts: Sequence[int] = ()) -> None:
        self.port = 0
        self._target = target
        self._cuts = list(cuts)
        self._asked = b""
        self._carried = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    @property
    def heads(self) -> list[bytes]:
        """Those of all requests, which have no bodies."""
        return self._asked.split(_HEAD_END)[:-1]

    @property
    def cuts_left(self) -> int:
        """How many are still to be made."""
        return len(self._cuts)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = bytearray()
        with contextlib.suppress(OSError):
            try:
                first = await reader.read(_READ_BYTES)
                if not first:
                    return  # a browser also connects in advance, and asks for nothing
                self._asked += first
                most = self._cuts.pop(0) if self._cuts else None
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    back.write(first)
                    await _either(self._ask(reader, back), _answer(there, writer, answered, most))
                finally:
                    back.transport.abort()
            finally:
                self._carried += 1
                self._end(writer, answered)

    def _end(self, writer: asyncio.StreamWriter, answered: bytearray) -> None:
        """Every other one with a reset, and each whose head is cut: over plain HTTP, browsers take half of one for all.

        What is then missing, such as the type, is a reason for them never to come back.
        """
        if self._carried % 2 or _HEAD_END not in answered:
            reset(cast("asyncio.Transport", writer.transport))
        else:
            writer.close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_READ_BYTES):
            self._asked += data
            writer.write(data)
            await writer.drain()


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answered: bytearray, most: int | None
) -> None:
    """Pass on so many bytes, or all."""
    while most is None or len(answered) < most:
        data = await reader.read(_READ_BYTES if most is None else min(most - len(answered), _READ_BYTES))
        if not data:
            return
        answered += data
        writer.write(data)
        await writer.drain()


async def _either(*pumps: Coroutine[None, None, None]) -> None:
    """Run them until one has ended."""
    tasks = [asyncio.ensure_future(pump) for pump in pumps]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
