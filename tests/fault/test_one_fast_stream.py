"""One stream at full speed, or one big body, delays nobody else."""

import asyncio
import contextlib
import os
import signal
import sys

import orjson
import pytest
from fakes.model_server import FakeModel, Request, chat_answer, chat_role, chat_token, chunk, end, flood, gate, head
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve
from support.shapes import get
from support.surfaces import SPOKEN

# What each stream may bring while somebody else waits for a few turns of the loop, which fake, Edge and clients share:
# measured are 0.2 to 1.5 MB, as in each turn it is one read's worth.
SHARE = 8_000_000
ENDING = SPOKEN[0].ending


def written(requests: list[Request]) -> int:
    """Bytes that their answers have had so far."""
    return sum(request.written for request in requests)


async def swallow(client: RawClient) -> None:
    """A reader that keeps up."""
    loop = asyncio.get_running_loop()
    buffer = bytearray(1 << 18)
    while await loop.sock_recv_into(client.sock, buffer):
        pass


@pytest.mark.parametrize("streams", [1, 8])
async def test_streams_at_full_speed_leave_room_for_others(serve: Serve, fake: FakeModel, streams: int) -> None:
    for _ in range(streams):
        fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    fake.script(head(), chunk(chat_role()), gate("prefill"), chunk(chat_token("tok") + ENDING), end())
    edge = await serve(stream={"heartbeat_s": 0.1, "commit_after_s": 0.1})
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(streams)]
        for client in clients:
            await client.post(CHAT, chat_body())
            await client.until(b"tok")
        reading = [asyncio.create_task(swallow(client)) for client in clients]
        floods = fake.requests[:streams]
        begun = written(floods)
        prober = await stack.enter_async_context(RawClient(edge.port))
        for _ in range(5):
            before = written(floods)
            await prober.get("/health")
            assert (await prober.answer()).status == 200
            prober.buffer = b""
            assert written(floods) - before < SHARE * streams
        async with RawClient(edge.port) as other:
            await other.post(CHAT, chat_body())
            while other.buffer.count(b": ping") < 2:
                await other.receive()
            before = written(floods)
            fake.open("prefill")
            await other.until(b'"tok"')
            assert written(floods) - before < SHARE * streams
            assert (await other.answer()).clean
        assert written(floods) > begun  # whichever had its turn
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    records = await edge.lines.wait("exchange", streams + 1)
    assert sorted(record["outcome"] for record in records) == ["client_gone"] * streams + ["complete"]


async def test_a_fast_stream_arrives_whole(serve: Serve, fake: FakeModel) -> None:
    size = len(chat_token("00000000"))
    tokens = b"".join(chat_token(f"{number:08}") for number in range(20_000_000 // size))
    fake.script(head(), chunk(chat_role()), chunk(tokens, every=65536), chunk(ENDING), end())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream_options={"include_usage": True}))
        received = bytearray()
        loop = asyncio.get_running_loop()
        async with hang_limit():
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += await loop.sock_recv(client.sock, 1 << 18)
    record = await edge.record()
    assert record["bytes_out"] == len(chat_role() + tokens + ENDING)
    assert record["tokens_out"] == 3  # as reported


@pytest.mark.skipif(sys.platform != "linux", reason="needs a process that can be looked for")
@pytest.mark.parametrize("shape", ["image", "messages"])
async def test_a_big_body_is_parsed_beside_the_loop(serve: Serve, fake: FakeModel, shape: str) -> None:
    """24 MiB or 9; written in one go, they would stop everybody for as long as parsing and writing them takes."""
    if shape == "image":
        messages = [{"role": "user", "content": "x" * (24 * 2**20)}]
    else:
        messages = [{"role": "user", "content": "hello " * 10}] * 100_000
    body = orjson.dumps(chat_body(messages=messages))
    edge = await serve()
    await ask(edge.port, CHAT, chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}]))  # the process starts
    parser = edge.edge.bodies._parser.pid
    assert parser is not None
    fake.script(*chat_answer())  # the fake would parse it on this very loop to find one
    os.kill(parser, signal.SIGSTOP)
    try:
        asking = asyncio.create_task(ask(edge.port, CHAT, body))
        await edge.wait(lambda: edge.edge.bodies.budget.used >= len(body))
        for _ in range(10):
            assert (await get(edge.port, "/health")).status == 200
        assert not asking.done()
        assert len(fake.requests) == 1
    finally:
        os.kill(parser, signal.SIGCONT)
    others = 0
    while not asking.done():  # it is read back and passed on, a piece at a time: everybody has a turn in between
        assert (await get(edge.port, "/health")).status == 200
        others += 1
    assert (await asking).status == 200
    assert len(fake.requests[1].body) > 0.9 * len(body)
    assert others > 20
