"""Has the server stopped working on what was cut off? Asked only while a slot of it is draining.

In: queues with draining slots, and what the server answers. Out: ``Queue.idle``, and the end of the wait for it. Must
not: ask a server that has nothing to prove, or wait for its answer without bound.

llama.cpp shows it in ``/slots``, vLLM in ``/metrics``. Others, Ollama among them, show nothing of theirs: there a
slot drains for a while that is about what it takes to notice a reader that has left, which is looked for between two
tokens, or between two batches of a prompt. A cloud has nothing of ours to protect.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from edge.policy.queue.queue import Queue
from edge.upstream.discovery.servers import CLOUDS, Kind, ask
from edge.upstream.discovery.working import busy_slots, running_requests
from edge.upstream.fetch import Answer
from edge.upstream.pool import Pool

UNPROVEN_S = 2.0  # how long a slot drains where nothing can be asked; a batch of a prompt takes about as long on a CPU
NEXT_STEP_S = 3.0  # vLLM drops what was cut off between two steps; what it works on after that is not ours
FIRST_S = 0.02  # llama.cpp stops within 13 to 21 ms
SLOWEST_S = 0.25
PROBE_S = 5.0  # llama.cpp answers only after the batch of a prompt that it is at


class Probe(NamedTuple):
    """Where it is asked how many sequences a server works on, and how the answer is read."""

    path: str
    running: Callable[[bytes], int | None]
    stops_s: float | None = None  # it has stopped by then, whatever else it works on; None if that takes any time


PROBES: Mapping[Kind, Probe] = {
    Kind.LLAMA_CPP: Probe("/slots", busy_slots),
    # It counts everybody's sequences, so that new ones of others would else hold our slot for long.
    Kind.VLLM: Probe("/metrics", running_requests, NEXT_STEP_S),
}


def drain_s(kind: Kind, most_s: float) -> float:
    """How long a slot of such a server may drain; ``most_s`` is what the settings allow."""
    if kind in CLOUDS or kind is Kind.SIMULATOR:
        return 0.0
    return most_s if kind in PROBES else min(most_s, UNPROVEN_S)


class IdleWatch:
    """The watch over one server.

    Args:
        pool: Of its connections.
        kind: What it is, as far as is known at the time.
        clock: Seconds, the same as the queues'.
    """

    def __init__(self, pool: Pool, kind: Callable[[], Kind], clock: Callable[[], float]) -> None:
        self._pool = pool
        self._kind = kind
        self._clock = clock
        self._queues: set[Queue] = set()
        self._pause_s = FIRST_S
        self._news = asyncio.Event()  # another slot has begun to drain
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<IdleWatch {self._pool!r} {sum(queue.slots.draining for queue in self._queues)} draining>"

    def watch(self, queue: Queue) -> None:
        """A slot of this queue has begun to drain."""
        self._queues.add(queue)
        self._pause_s = FIRST_S
        self._news.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="idle watch")

    async def close(self) -> None:
        """Stop watching; what drains is freed by the ticks of admission."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while self._queues:
            self._news.clear()
            asked_at, kind = self._clock(), self._kind()
            running = await running_on(self._pool, kind)
            stops_s = PROBES[kind].stops_s if running is not None else None
            for queue in tuple(self._queues):
                now = self._clock()
                if running is not None:
                    queue.idle(running, asked_at, now)
                queue.slots.tick(now, stops_s)
                if not queue.slots.draining:
                    self._queues.discard(queue)
            if self._queues:
                await self._pause()

    async def _pause(self) -> None:
        """What runs at the moment of a cut shows how many are of others, hence a cut is looked at soon."""
        await asyncio.sleep(FIRST_S)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pause_s - FIRST_S):
                await self._news.wait()
        self._pause_s = min(2 * self._pause_s, SLOWEST_S)


async def running_on(pool: Pool, kind: Kind) -> int | None:
    """How many sequences the server works on; None if it does not say, or not in time."""
    probe = PROBES.get(kind)
    if probe is None:
        return None
    answer = await ask(pool, probe.path, PROBE_S)
    if not isinstance(answer, Answer) or answer.head.status != 200:
        return None
    return probe.running(answer.body)
