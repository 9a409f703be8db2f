"""A storm of clients that leave, at any point and in any way: whoever stays is served, and nothing is left."""

import asyncio
import random

from fakes.model_server import FakeModel, chat_role, chat_token, chunk, gate, head, stall
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve

CLIENTS = 200
AT_ONCE = 50
HANGING_S = 120.0


async def leave(edge: Running, chance: random.Random) -> None:
    """Connect, get as far as chance will have it, and go."""
    async with RawClient(edge.port) as client:
        how_far = chance.randrange(5)
        if how_far == 1:
            await client.send(b"POST /v1/chat/comp")
        elif how_far == 2:
            await client.post(CHAT, b'{"model":', {"Content-Length": "1000"})
        elif how_far >= 3:
            await client.post(CHAT, chat_body(stream=chance.random() < 0.5))
            if how_far == 4:
                await asyncio.sleep(0)
        if chance.random() < 0.5:
            client.reset()


async def test_whoever_stays_is_served(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    chance = random.Random(13)
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("end"))
    async with RawClient(edge.port) as stays:
        await stays.post(CHAT, chat_body())
        await stays.until(b"tok", HANGING_S)
        for _ in range(CLIENTS // AT_ONCE):
            for _ in range(AT_ONCE // 2):
                fake.script(head(), chunk(chat_role()), stall())
            await asyncio.gather(*(leave(edge, chance) for _ in range(AT_ONCE)))
        await edge.wait(lambda: len(edge.edge.registry) == 1, HANGING_S)
        fake._scripts.clear()
        assert (await ask(edge.port, CHAT, chat_body(), timeout_s=HANGING_S)).clean
        fake.open("end")
    await edge.wait(lambda: len(edge.edge.registry) == 0, HANGING_S)
    assert {record["reader"] for record in edge.records} <= {"gone", "finished"}
