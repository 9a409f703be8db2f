"""One stream at full speed, or one big body, delays nobody else."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest
from fakes.model_server import FakeModel, chat_answer, chat_role, chat_token, chunk, end, flood, gate, head
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve
from support.surfaces import SPOKEN

# Fake, Edge and clients share one loop here, on a machine that may be busy; what is bounded is the order of magnitude.
SOON_S = 1.0
ENDING = SPOKEN[0].ending


class Lag:
    """How late the loop is, at the worst."""

    worst = 0.0

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.01
            await asyncio.sleep(0.01)
            self.worst = max(self.worst, loop.time() - due)


@contextlib.asynccontextmanager
async def watched() -> AsyncIterator[Lag]:
    lag = Lag()
    task = asyncio.create_task(lag.watch())
    try:
        yield lag
    finally:
        task.cancel()


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
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(streams)]
        for client in clients:
            await client.post(CHAT, chat_body())
            await client.until(b"tok")
        reading = [asyncio.create_task(swallow(client)) for client in clients]
        before = sum(request.written for request in fake.requests)
        prober = await stack.enter_async_context(RawClient(edge.port))
        for _ in range(5):
            asked = loop.time()
            await prober.get("/health")
            assert (await prober.answer()).status == 200
            prober.buffer = b""
            assert loop.time() - asked < SOON_S
        async with RawClient(edge.port) as other:
            asked = loop.time()
            await other.post(CHAT, chat_body())
            while other.buffer.count(b": ping") < 2:
                await other.receive()
            assert loop.time() - asked < 0.3 + SOON_S
            fake.open("prefill")
            asked = loop.time()
            await other.until(b'"tok"')
            assert loop.time() - asked < SOON_S
            assert (await other.answer()).clean
        assert sum(request.written for request in fake.requests[:streams]) > before  # whichever had its turn
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


@pytest.mark.parametrize("shape", ["image", "messages"])
async def test_a_big_body_is_parsed_beside_the_loop(serve: Serve, fake: FakeModel, shape: str) -> None:
    """24 MiB; written in one go, they would stop everybody for as long as parsing and writing them takes."""
    if shape == "image":
        content = "x" * (24 * 2**20)
        messages = [{"role": "user", "content": content}]
    else:
        messages = [{"role": "user", "content": "hello " * 10}] * 250_000
    body = orjson.dumps(chat_body(messages=messages))
    edge = await serve()
    await ask(edge.port, CHAT, chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}]))  # the process starts
    lags = []
    for number in range(1, 4):  # a stop of ours would be there each time; the machine's own are not
        fake.script(*chat_answer())  # the fake would parse it on this very loop to find one
        async with watched() as lag:
            answer = await ask(edge.port, CHAT, body)
        assert answer.status == 200
        assert len(fake.requests[number].body) > 0.9 * len(body)
        lags.append(lag.worst)
    assert min(lags) < 0.25
