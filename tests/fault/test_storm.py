"""A storm of clients that leave, at any point and in any way: whoever stays is served, and nothing is left."""

import asyncio
import random

from fakes.model_server import DONE, FakeModel, chat_finish, chat_role, chat_token, chunk, end, gate, head, stall
from support.raw import CHAT, RawClient, ask, chat_body
from support.resumed import RESUME
from support.running import Running, Serve
from support.sessions import STREAM
from support.shapes import EVERY_SURFACE
from support.surfaces import SPOKEN

CLIENTS = 2000
AT_ONCE = 100
SLOTS = 16
BODIES = {**{spoken.path: {**spoken.request, "stream": True} for spoken in SPOKEN}, STREAM: {"message": "hi"}}


async def leave(edge: Running, chance: random.Random) -> None:
    """Connect, get as far as chance will have it, and go."""
    path = chance.choice(list(BODIES))
    body = {"model": "m", **BODIES[path]}
    async with RawClient(edge.port) as client:
        match chance.choice(["nothing", "half a line", "half a body", "chunks", "all", "twice", "resumable"]):
            case "half a line":
                await client.send(b"POST /v1/chat/comp")
            case "half a body":
                await client.post(path, b'{"model":', {"Content-Length": "1000"})
            case "chunks":
                head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                await client.send(head.encode() + b'9\r\n{"model":\r\n')
            case "all":
                await client.post(path, body)
            case "twice":  # the second before there is an answer to the first
                await client.post(path, body)
                await client.post(path, body)
            case "resumable":
                await client.post(path, body, RESUME)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        match chance.choice(["close", "reset", "half close"]):
            case "reset":
                client.reset()
            case "half close":
                client.half_close()
                await asyncio.sleep(0)


async def test_whoever_stays_is_served(serve: Serve, fake: FakeModel) -> None:
    """Also of those who leave the queue, which is never empty: there are far fewer slots than clients."""
    edge = await serve(upstream={**EVERY_SURFACE, "max_concurrency": SLOTS}, stream={"grace_s": 0.05})
    chance = random.Random(13)
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("end"), chunk(chat_finish() + DONE), end())
    async with RawClient(edge.port) as stays:
        await stays.post(CHAT, chat_body())
        await stays.until(b"tok")
        for _ in range(CLIENTS // AT_ONCE):
            fake._scripts.clear()
            for _ in range(AT_ONCE):
                fake.script(head(), stall())
            await asyncio.gather(*(leave(edge, chance) for _ in range(AT_ONCE)))
        await edge.wait(lambda: len(edge.edge.registry) == 1)
        fake._scripts.clear()
        answers = await asyncio.gather(*(ask(edge.port, CHAT, chat_body()) for _ in range(SLOTS - 1)))
        assert all(answer.clean and b"[DONE]" in answer.body for answer in answers), "no slot is lost"
        fake.open("end")
        assert (await stays.answer()).clean
    await edge.wait(lambda: len(edge.edge.registry) == 0)
    # Of the model server's connections only those are left on which an answer has come to its end.
    await edge.wait(lambda: sum(not connection.left.done() for connection in fake.connections) <= SLOTS)
    assert {record["reader"] for record in edge.records} <= {"gone", "finished"}
    assert len(edge.records) > CLIENTS // 4
