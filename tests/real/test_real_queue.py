"""A real model, shared: whoever floods it takes nothing from the others, and a free slot is really free."""

import asyncio
from collections import Counter

import pytest
from support.llama import FIXED, LONG, generating, idle, is_still
from support.raw import CHAT, RawClient, ask
from support.running import Serve
from support.slots import queues, taken, until_taken

from edge.cli.llama_server import LlamaServer

pytestmark = pytest.mark.real

FLOOD = 100
EACH = 6
SHORT = {**FIXED, "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 4, "ignore_eos": True}
ENDLESS = {**FIXED, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2000, "ignore_eos": True}


async def test_one_that_floods_takes_nothing_from_the_other_two(serve: Serve, llama: LlamaServer) -> None:
    """Three keys; one of them has a hundred requests waiting all the time, the others two each."""
    edge = await serve(llama.url, auth={"keys": ["flood", "one", "two"]}, queue={"interactive_length": 2 * FLOOD})

    async def ask_on(key: str, count: int) -> None:
        for _ in range(count):
            answer = await ask(edge.port, CHAT, {**SHORT, "stream": False}, {"x-api-key": key})
            assert answer.status == 200

    floods = [asyncio.create_task(ask_on("flood", 10)) for _ in range(FLOOD)]
    await edge.lines.wait("start", FLOOD)
    assert taken(edge) == (2, 0, FLOOD - 2), "as many as the server has slots"
    before = len(edge.records)
    async with asyncio.TaskGroup() as group:
        for key in ("one", "two"):
            for _ in range(2):
                group.create_task(ask_on(key, EACH // 2))
    served = Counter(record["principal"] for record in edge.records[before:])
    for task in floods:
        task.cancel()
    await asyncio.wait(floods)
    (flooding,) = {line["principal"] for line in edge.lines.of("start")[:FLOOD]}
    had = served.pop(flooding)
    assert list(served.values()) == [EACH, EACH]
    assert EACH / 2 <= had <= 2 * EACH + 2, "a third is its share, and nobody's slot was kept free"
    await until_taken(edge, 0, 0, 0)
    await idle(llama)


async def test_the_next_has_the_slot_when_the_model_has_stopped(serve: Serve, mortal: LlamaServer) -> None:
    edge = await serve(mortal.url)
    async with RawClient(edge.port) as leaves, RawClient(edge.port) as waits:
        await leaves.post(CHAT, {**ENDLESS, "stream": True})
        await generating(mortal)
        await waits.post(CHAT, {**SHORT, "stream": True})
        await edge.lines.wait("start", 2)
        assert taken(edge) == (1, 0, 1)
        leaves.close()
        assert (await waits.answer()).clean
    await until_taken(edge, 0, 0, 0)
    (queue,) = queues(edge)
    assert queue.slots.grants == 2
    assert queue.totals(0.0).zombie_s > 0, "the server had to prove that it was idle"
    await idle(mortal)
    assert await is_still(mortal)
