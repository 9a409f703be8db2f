"""Cancelled at any await, whoever comes back leaves nothing behind, and what it came back to goes on.

What is left (tasks, slots, streams, bytes of the budget) the ``serve`` fixture looks for at the end of each test.
"""

import asyncio
import time
from random import Random

import pytest
from fakes.model_server import FakeModel, chunk, end, flood, gate, stall
from fakes.steps import Step
from support.hanging import hang_limit
from support.raw import RawClient
from support.resumed import CHAT_CASE, NATIVE, RESUME, Case, ended, finished, left, opened, readers, resumed
from support.running import Running, Serve

from edge.store.ports import StreamMeta

TURNS = 40  # from sent to answered it takes about 15
ROUNDS = 120
FOLLOWED = "st_" + "cd" * 16


def server_of(edge: Running):
    server = edge.edge.listener._runner.server
    assert server is not None
    return server


async def turn(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(edge: Running, stream: str, turns: int, times: int) -> None:
    """Come back, and be cancelled after so many turns of the loop, as the server does it."""
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}?starting_after=1")
        await turn(turns)
        for _ in range(times):
            for handler in tuple(server_of(edge).connections):
                if handler._task_handler is not None:
                    handler._task_handler.cancel()
            await turn(1)
    await edge.wait(lambda: not server_of(edge).connections)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["running", "finished", "elsewhere"])
async def test_cancelled_after_any_number_of_turns(serve: Serve, fake: FakeModel, kind: str, times: int) -> None:
    edge = await serve()
    if kind == "elsewhere":  # as another process would write into a common store
        stream = FOLLOWED
        meta = StreamMeta(stream, "anonymous", "chat", "m", None, "req_1", time.time(), 2**20)
        edge.edge.archive.memory.begin(meta).append(CHAT_CASE.says.token, 1)
    else:
        stream = await left(edge, fake)
        if kind == "finished":
            fake.open("more")
            await ended(edge, stream)
    for turns in range(TURNS):
        await cancelled(edge, stream, turns, times)
        assert len(edge.edge.registry) == int(kind == "running")
        if kind == "running":
            assert edge.edge.registry.streams[stream].generation.readers == 0
            assert edge.edge.registry.streams[stream].generation.detached
        if kind == "elsewhere":
            assert not edge.edge.archive.memory._live[stream].waiting
    if kind == "running":
        fake.open("more")
        await ended(edge, stream)
        assert (await edge.record())["outcome"] == "complete"
    if kind != "elsewhere":
        assert (await resumed(edge, stream)).clean
    assert "finished" in {line["reader"] for line in edge.lines.of("returned")} or kind == "elsewhere"
    returned = [line["request_id"] for line in edge.lines.of("returned")]
    assert returned
    assert len(returned) == len(set(returned))


class Visitors:
    """Clients that begin streams, come back to any of them, stop them or look at the list, and leave at any moment."""

    def __init__(self, edge: Running, fake: FakeModel) -> None:
        self.edge = edge
        self.fake = fake
        self.rng = Random(6_000)
        self.known: list[str] = []

    async def visit(self, number: int) -> None:
        rng = self.rng
        async with RawClient(self.edge.port, receive_buffer=rng.choice([None, 4096])) as client:
            await self.ask(client)
            await turn(rng.randrange(60))
            self.known.extend(self.edge.edge.registry.streams)
            if number % 2:
                await asyncio.sleep(rng.random() * 0.05)
            getattr(client, rng.choice(["close", "reset"]))()

    async def ask(self, client: RawClient) -> None:
        rng, what = self.rng, self.rng.random()
        if what < 0.35 or not self.known:
            case = rng.choice(NATIVE)
            self.fake.script(*self.script(case), path=case.path)
            await client.post(case.path, case.body, RESUME)
        elif what < 0.85:
            await client.get(f"/v1/streams/{rng.choice(self.known)}?starting_after={rng.randrange(4)}")
        elif what < 0.95:
            await client.get(f"/v1/streams/{rng.choice(self.known)}", method="DELETE")
        else:
            await client.get("/v1/streams")

    def script(self, case: Case) -> list[Step]:
        token = chunk(case.says.token)
        endings: list[list[Step]] = [
            [chunk(case.says.ending), end()], [stall()], [flood(10**12, case.says.token)], [token, token],
        ]  # fmt: skip
        return case.begins(token, *self.rng.choice(endings))


def reconnections(edge: Running) -> int:
    return sum(record["reconnections"] for record in edge.records)


async def test_readers_that_come_and_go_at_random_moments(serve: Serve, fake: FakeModel) -> None:
    """While streams begin, run, fail, finish and are stopped."""
    edge = await serve(
        stream={
            "buffer_bytes": 4096, "journal_bytes": 8192, "heartbeat_s": 0.05, "commit_after_s": 0.05, "grace_s": 0.1,
        },
        upstream={"surfaces": [case.surface for case in NATIVE]},
    )  # fmt: skip
    visitors = Visitors(edge, fake)
    start = 0
    async with hang_limit():
        while start < ROUNDS or not reconnections(edge):  # who comes back in time is up to the machine
            visits = map(visitors.visit, range(start, start + 30))
            for gone in await asyncio.gather(*visits, return_exceptions=True):
                assert gone is None or isinstance(gone, OSError), gone
            start += 30
    await edge.wait(lambda: not edge.edge.registry)
    await edge.wait(lambda: not server_of(edge).connections)
    started = sorted(line["stream_id"] for line in edge.lines.of("start"))
    assert sorted(record["stream_id"] for record in edge.records) == started
    assert edge.edge.fleet.members[0].active == 0


async def test_a_stop_of_edge_while_readers_come_back(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"flush_s": 0.2}, server={"drain_s": 0.1})
    streams = [await finished(edge, fake)]
    for _ in range(3):
        fake.script(*CHAT_CASE.begins(gate("held"), stall()))
    clients = [RawClient(edge.port) for _ in range(3)]
    for client in clients:
        await client.__aenter__()
        streams.append(await opened(edge, CHAT_CASE, client))
    others = [RawClient(edge.port) for _ in range(12)]
    for number, client in enumerate(others):
        await client.__aenter__()
        await client.get(f"/v1/streams/{streams[number % 4]}?starting_after={number % 2}")
    await readers(edge, streams[1], 4)
    await edge.edge.stop()
    for client in (*clients, *others):
        client.close()
    assert len(edge.records) == 4
    assert len(edge.lines.of("returned")) == 12
