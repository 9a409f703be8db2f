"""Connections to a Redis server, each for one purpose: a wire that many ask on at once, and ears.

In: commands; channels. Out: answers in the order of the commands; messages. Must not: care who still waits for an
answer (a command that was sent is answered, whoever has left), or outlive ``close``.
"""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

Lost = Callable[[Exception], None]  # called once, with what the library raised


class Wire:
    """Commands that are sent together and answered one after the other. ``connection`` is one of the library's."""

    def __init__(self, connection: Any, lost: Lost) -> None:
        self._connection = connection
        self._lost = lost
        self._out: list[bytes] = []
        self._some = asyncio.Event()
        self._due: deque[asyncio.Future[Any]] = deque()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect; raises what the library does. ``close`` must follow, however it went."""
        await self._connection.connect()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(_until_lost(work, self._fail)) for work in (self._send, self._receive)]

    def say(self, *words: Any) -> "asyncio.Future[Any]":
        """A command; its answer, or the error that it is."""
        self._out += self._connection.pack_command(*words)
        self._some.set()
        answer = asyncio.get_running_loop().create_future()
        self._due.append(answer)
        return answer

    def give_up(self, error: Exception) -> None:
        """Nothing is answered any more; who waits gets ``error``."""
        _refuse(self._due, error)

    async def close(self) -> None:
        """End it."""
        self.give_up(ConnectionError("closed"))
        await _ended(self._tasks)
        await self._connection.disconnect(nowait=True)

    async def _send(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            out, self._out = self._out, []
            await self._connection.send_packed_command(out, check_health=False)

    async def _receive(self) -> None:
        from redis.exceptions import ResponseError  # noqa: PLC0415 - the extra; loaded by now

        while True:
            try:
                said, error = await self._connection.read_response(timeout=math.inf), None
            except ResponseError as refusal:
                said, error = None, refusal
            answer = self._due.popleft()
            if answer.done():  # who asked has left
                continue
            if error is None:
                answer.set_result(said)
            else:
                answer.set_exception(error)

    def _fail(self, error: Exception) -> None:
        self.give_up(error)
        self._lost(error)


class Ears:
    """What is published on channels, to whoever subscribed here."""

    def __init__(self, connection: Any, lost: Lost) -> None:
        self._connection = connection
        self._lost = lost
        self._hear: dict[bytes, Callable[[bytes], None]] = {}
        self._pending: dict[bytes, asyncio.Future[None]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect; raises what the library does. ``close`` must follow, however it went."""
        await self._connection.connect()
        self._tasks = [asyncio.get_running_loop().create_task(_until_lost(self._listen, self._fail))]

    async def subscribe(self, channel: bytes, hear: Callable[[bytes], None]) -> None:
        """Return when every message from then on is heard."""
        self._hear[channel] = hear
        pending = self._pending[channel] = asyncio.get_running_loop().create_future()
        await self._connection.send_command("SUBSCRIBE", channel)
        await pending

    async def unsubscribe(self, channels: list[bytes]) -> None:
        """StoreListener no more of these."""
        for channel in channels:
            self._hear.pop(channel, None)
        await self._connection.send_command("UNSUBSCRIBE", *channels)

    def give_up(self, error: Exception) -> None:
        """Nothing is heard any more; who waits gets ``error``."""
        _refuse(self._pending.values(), error)

    async def close(self) -> None:
        """End it."""
        self.give_up(ConnectionError("closed"))
        await _ended(self._tasks)
        await self._connection.disconnect(nowait=True)

    async def _listen(self) -> None:
        while True:
            kind, channel, data = await self._connection.read_response(timeout=math.inf)
            if kind == b"message" and channel in self._hear:
                self._hear[channel](data)
            elif kind == b"subscribe" and channel in self._pending:
                pending = self._pending.pop(channel)
                if not pending.done():
                    pending.set_result(None)

    def _fail(self, error: Exception) -> None:
        self.give_up(error)
        self._lost(error)


async def _until_lost(work: Callable[[], Any], lost: Lost) -> None:
    from redis.exceptions import RedisError  # noqa: PLC0415 - the extra; loaded by now

    try:
        await work()
    except (RedisError, OSError) as error:
        lost(error)


def _refuse(waiting: Iterable["asyncio.Future[Any]"], error: Exception) -> None:
    for one in waiting:
        if not one.done():
            one.set_exception(error)
            one.exception()  # looked at, in case that nobody waits any more


async def _ended(tasks: list["asyncio.Task[None]"]) -> None:
    for task in tasks:
        if task is not asyncio.current_task():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
