"""Slots and queues of a running Edge: how they stand, and that they come to stand so.

In: a running Edge. Out: numbers. Must not: hold one itself.
"""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from fakes.model_server import FakeModel, Step, chat_finish, chat_role, chat_token, chunk, end, gate, head

from edge.policy.queue.lanes import Lane
from edge.policy.queue.queue import Queue
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, chat_body
from support.running import Running

ONE: dict[str, Any] = {"upstream": {"max_concurrency": 1}, "queue": {"drain_s": 0}}
REST = chat_token(" end") + chat_finish() + b"data: [DONE]\n\n"


def held(name: str) -> list[Step]:
    """A chat stream that says one token, and the rest once the gate is open."""
    return [head(), chunk(chat_role() + chat_token("tok")), gate(name), chunk(REST), end()]


def queues(edge: Running) -> list[Queue]:
    """All that there are."""
    return [queue for queues in edge.edge.fleet._queues.values() for queue in queues._queues.values()]


def taken(edge: Running) -> tuple[int, int, int]:
    """Slots that are busy, slots that are draining, and requests that wait."""
    known = queues(edge)
    slots = [queue.slots for queue in known]
    return (
        sum(slot.busy for slot in slots),
        sum(slot.draining for slot in slots),
        len({waiting for queue in known for waiting in queue.everybody()}),
    )


async def until_taken(edge: Running, busy: int, draining: int, waiting: int) -> None:
    """Wait until they stand so."""
    async with hang_limit():
        while taken(edge) != (busy, draining, waiting):
            await asyncio.sleep(0.001)


class Clients(AsyncExitStack):
    """Raw clients that have asked, and are let go of at the end."""

    def __init__(self, edge: Running) -> None:
        super().__init__()
        self._edge = edge

    async def ask(
        self, path: str = CHAT, body: Any = None, headers: dict[str, str] | None = None, *, waits: bool = False
    ) -> RawClient:
        """One more, whose request is an exchange; ``waits``: and is in the queue."""
        begun, waiting = len(self._edge.lines.of("start")), taken(self._edge)[2]
        client = await self.enter_async_context(RawClient(self._edge.port))
        await client.post(path, chat_body() if body is None else body, headers)
        await self._edge.lines.wait("start", begun + 1)
        assert taken(self._edge)[2] == waiting + waits
        return client


async def occupied(edge: Running, fake: FakeModel, clients: Clients, name: str = "first") -> RawClient:
    """The one slot is taken, until the gate is opened or the client goes; it has had its first token."""
    fake.script(*held(name))
    client = await clients.ask()
    await client.until(b"tok")
    assert taken(edge)[0] == 1
    return client


def lane(edge: Running, which: Lane) -> int:
    """How many wait in a lane."""
    return sum(len(queue.lanes[which]) for queue in queues(edge))
