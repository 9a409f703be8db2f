"""Cancelled at any await, an exchange leaves nothing behind and is recorded once.

What is left (tasks, slots, streams, bytes of the budget) the ``serve`` fixture looks for at the end of each test.
"""

import asyncio
from random import Random

import pytest
from fakes.model_server import (
    FakeModel,
    chat_answer,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    flood,
    gate,
    head,
    json_answer,
    no_read,
    rst,
    stall,
)
from fakes.steps import Step
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN

ENDING = SPOKEN[0].ending
SURFACES = {"surfaces": ["chat", "completions", "responses", "messages", "embeddings"]}
ROUNDS = 150
TURNS = 60  # from sent to answered it takes about 25

SCRIPTS: dict[str, list[Step]] = {
    "answers": chat_answer(["tok"] * 4),
    "silent": [stall()],
    "prelude": [head(), chunk(chat_role()), stall()],
    "tokens": [head(), chunk(chat_role() + chat_token("tok")), stall()],
    "flood": [head(), chunk(chat_role()), flood(10**12, chat_token("tok"))],
    "cut": [head(), chunk(chat_role() + chat_token("tok")), fin()],
    "reset": [rst()],
    "refuses": json_answer({"error": {"message": "busy"}}, 503),
    "refuses to stream": json_answer({"error": {"message": "no stream"}}, 400),
    "deaf": [no_read(), stall()],
}
ENDLESS = ("silent", "prelude", "tokens", "flood", "deaf")  # these end only because Edge leaves


def server_of(edge: Running):
    server = edge.edge.listener._runner.server
    assert server is not None
    return server


async def nothing_under_way(edge: Running) -> None:
    async with hang_limit():
        while len(edge.edge.registry) or server_of(edge).connections:
            await asyncio.sleep(0.002)


def assert_recorded_once_each(edge: Running) -> None:
    started = [line["stream_id"] for line in edge.lines.of("start")]
    assert sorted(record["stream_id"] for record in edge.records) == sorted(started)


async def turn(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("script", SCRIPTS)
async def test_cancelled_after_any_number_of_turns(serve: Serve, fake: FakeModel, script: str, stream: bool) -> None:
    """As the server cancels it when the process ends, or a connection is lost."""
    edge = await serve(stream={"buffer_bytes": 4096})
    for turns in range(TURNS):
        fake.script(*SCRIPTS[script])
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body(stream=stream))
            await turn(turns)
            for handler in tuple(server_of(edge).connections):
                if handler._task_handler is not None:
                    handler._task_handler.cancel()
            await turn(2)
        await nothing_under_way(edge)
        assert [member.active for member in edge.edge.fleet.members] == [0]
        assert edge.edge.bodies.budget.used == 0
        fake._scripts.clear()
    assert_recorded_once_each(edge)
    for request in fake.requests if script in ENDLESS else ():
        await request.left()


async def test_clients_that_leave_at_random_moments(serve: Serve, fake: FakeModel) -> None:
    rng = Random(20_000)
    edge = await serve(stream={"buffer_bytes": 4096, "heartbeat_s": 0.05, "commit_after_s": 0.05}, upstream=SURFACES)
    loop = asyncio.get_running_loop()

    async def visit(number: int) -> None:
        spoken, stream = rng.choice(SPOKEN), rng.random() < 0.5
        how, turns, pause = rng.choice(["close", "reset", "half_close"]), rng.randrange(80), rng.random() * 0.1
        async with RawClient(edge.port, receive_buffer=rng.choice([None, 4096])) as client:
            if rng.random() < 0.1:
                await client.post(spoken.path, b"{", {"Content-Length": "1000"})
            else:
                await client.post(spoken.path, spoken.asked(stream=stream))
            await turn(turns)
            if number % 2:
                await asyncio.sleep(pause)
            getattr(client, how)()
            if how == "half_close":
                while await loop.sock_recv(client.sock, 1 << 16):
                    pass

    for _ in range(ROUNDS):
        fake.script(*SCRIPTS[rng.choice(list(SCRIPTS))])
    for start in range(0, ROUNDS, 30):
        visits = [visit(number) for number in range(start, start + 30)]
        async with hang_limit():
            for left in await asyncio.gather(*visits, return_exceptions=True):
                assert left is None or isinstance(left, OSError), left
    await nothing_under_way(edge)
    assert_recorded_once_each(edge)
    await edge.edge.stop()
    for request in fake.requests:
        await request.left()


async def test_a_stop_in_the_middle_of_everything(serve: Serve, fake: FakeModel) -> None:
    """Every script at once, then the process ends."""
    edge = await serve(stream={"buffer_bytes": 4096, "flush_s": 0.2}, server={"drain_s": 0.1})
    clients = [RawClient(edge.port) for _ in range(2 * len(SCRIPTS))]
    for number, client in enumerate(clients):
        fake.script(*list(SCRIPTS.values())[number // 2])
        await client.__aenter__()
        await client.post(CHAT, chat_body(stream=number % 2 == 0))
    await edge.lines.wait("start", len(clients))
    await edge.edge.stop()
    for client in clients:
        client.close()
    assert len(edge.records) == len(clients)
    assert_recorded_once_each(edge)
    for request in fake.requests:
        await request.left()


async def test_a_handler_that_is_cancelled_twice(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("held"), chunk(ENDING), end())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        (handler,) = server_of(edge).connections
        task = handler._task_handler
        task.cancel()
        await turn(1)
        task.cancel()
        await nothing_under_way(edge)
    assert (await edge.record())["outcome"] == "client_gone"
    assert len(edge.records) == 1
