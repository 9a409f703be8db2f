"""Whoever leaves, in the queue, at the moment of the grant or after it: no slot is lost, and none is given twice."""

import asyncio
from random import Random

import orjson
import pytest
from fakes.model_server import FakeModel, chunk, gate, head, json_answer, stall, turns
from support.faults import every_surface, passing, streamed_or_not
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.shapes import get
from support.slots import ONE, Clients, occupied, queues, taken, until_taken
from support.surfaces import SPOKEN, Spoken

SURFACES = ["chat", "completions", "responses", "messages"]
HOWS = ("close", "reset", "half_close")
every_way = pytest.mark.parametrize("how", HOWS)


async def gone(edge: Running, index: int) -> None:
    record = await edge.record(index)
    assert (record["outcome"], record["reader"]) == ("client_gone", "gone")


@every_way
@streamed_or_not
@every_surface
async def test_in_the_queue(serve: Serve, fake: FakeModel, spoken: Spoken, stream: bool, how: str) -> None:
    """At once, and the server never hears of it."""
    edge = await serve(upstream={"max_concurrency": 1, "surfaces": SURFACES}, queue={"drain_s": 0})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(spoken.path, spoken.asked(stream=stream), waits=True)
        stays = await clients.ask(waits=True)
        getattr(leaves, how)()
        await gone(edge, 0)
        assert (edge.records[0]["status"], edge.records[0]["attempts"]) == (499, 0)
        assert edge.records[0]["queued_s"] > 0
        assert taken(edge) == (1, 0, 1)
        fake.open("first")
        assert (await stays.answer()).clean
    assert len(fake.requests) == 2
    assert taken(edge) == (0, 0, 0)


@every_way
async def test_in_the_queue_after_the_status(serve: Serve, fake: FakeModel, how: str) -> None:
    edge = await serve(**ONE, stream={"commit_after_s": 0.05, "heartbeat_s": 0.05})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(waits=True)
        await leaves.until(b": queued 1")
        getattr(leaves, how)()
        await gone(edge, 0)
        assert edge.records[0]["status"] == 200
        assert taken(edge) == (1, 0, 0)
        fake.open("first")
    assert len(fake.requests) == 1


async def test_in_the_queue_also_where_a_model_at_work_would_be_let_finish(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, stream={"on_disconnect": "drain"})
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        leaves = await clients.ask(waits=True)
        leaves.close()
        await gone(edge, 0)
        first.close()
        await clients.ask(waits=True)
        assert taken(edge)[0] == 1, "that one is at work, and keeps its slot"
        fake.open("first")
        assert (await edge.record(1))["outcome"] == "complete"
    await until_taken(edge, 0, 0, 0)


@pytest.mark.parametrize("order", ["leaves first", "granted first"])
@pytest.mark.parametrize("between", range(8))
@streamed_or_not
async def test_at_the_moment_of_the_grant(
    serve: Serve, fake: FakeModel, stream: bool, between: int, order: str
) -> None:
    """The server, Edge and the client share one loop: so many of its turns lie between the one and the other."""
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(body=chat_body(stream=stream), waits=True)
        stays = await clients.ask(waits=True)
        if order == "leaves first":
            leaves.reset()
            await turns(between)
            fake.open("first")
        else:
            fake.open("first")
            await turns(between)
            leaves.reset()
        assert (await stays.answer()).clean
    await edge.record(2)
    await until_taken(edge, 0, 0, 0)
    assert sorted(record["outcome"] for record in edge.records)[1:] == ["complete", "complete"]
    (queue,) = queues(edge)
    assert queue.slots.grants == sum(record["attempts"] for record in edge.records)


@every_way
@streamed_or_not
@pytest.mark.parametrize("when", ["connected", "headers", "prelude", "tokens"])
async def test_after_the_grant(serve: Serve, fake: FakeModel, when: str, stream: bool, how: str) -> None:
    spoken = SPOKEN[0]
    before = {
        "connected": [],
        "headers": [head()],
        "prelude": [head(), chunk(spoken.prelude)],
        "tokens": [head(), chunk(spoken.prelude + spoken.token)],
    }
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(body=chat_body(stream=stream), waits=True)
        stays = await clients.ask(waits=True)
        fake.script(*before[when], gate("held"), stall())
        fake.open("first")
        await fake.reached("held")
        getattr(leaves, how)()
        assert (await stays.answer()).clean
        await gone(edge, 1)
    assert len(fake.requests) == 3
    assert taken(edge) == (0, 0, 0)


@pytest.mark.parametrize("seed", range(6))
async def test_at_any_time(serve: Serve, fake: FakeModel, seed: int) -> None:
    """Two slots, two hundred clients, and half of them leave whenever they like."""
    random = Random(seed)
    edge = await serve(upstream={"max_concurrency": 2}, queue={"drain_s": 0, "interactive_length": 500})
    statuses: list[int] = []

    async def one() -> None:
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body(stream=random.random() < 0.5))
            if random.random() < 0.5:
                await turns(random.randrange(200))
                getattr(client, random.choice(HOWS))()
                return
            answer = await client.answer()
            assert answer.clean
            statuses.append(answer.status)

    async with hang_limit():
        for _ in range(4):
            await asyncio.gather(*(one() for _ in range(50)))
    await until_taken(edge, 0, 0, 0)
    assert set(statuses) == {200}
    await edge.lines.wait("exchange", len(edge.lines.of("start")))
    assert {record["outcome"] for record in edge.records} <= {"complete", "client_gone"}
    (queue,) = queues(edge)
    assert queue.slots.grants == sum(record["attempts"] for record in edge.records)


# --- a stream that can be come back to -----------------------------------------------------------------------------

RESUME = {"x-edge-resume": "1"}


async def test_one_that_can_be_come_back_to_keeps_its_place(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, stream={"commit_after_s": 0.05, "heartbeat_s": 0.05})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(headers=RESUME, waits=True)
        stream = list(edge.edge.registry.streams)[-1]
        behind = await clients.ask(waits=True)
        leaves.close()
        async with RawClient(edge.port) as back:
            await back.get(f"/v1/streams/{stream}")
            await back.until(b": queued 1\n")
            assert taken(edge) == (1, 0, 2)
            fake.open("first")
            answer = await back.answer()
        assert answer.clean
        assert b"Hel" in answer.body
        assert (await behind.answer()).clean
    assert [request.json["stream"] for request in fake.requests] == [True] * 3


async def test_one_that_nobody_comes_back_to_gives_up_its_place(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, stream={"grace_s": 0.2})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        leaves = await clients.ask(headers=RESUME, waits=True)
        stream = list(edge.edge.registry.streams)[-1]
        leaves.close()
        await gone(edge, 0)
        assert taken(edge) == (1, 0, 0)
        assert (await get(edge.port, f"/v1/streams/{stream}")).status == 410
        fake.open("first")
    assert len(fake.requests) == 1


# --- a slot is free only when the server is ------------------------------------------------------------------------


def llama_cpp(fake: FakeModel, *, busy: bool) -> None:
    """From now on it is recognised as one, with one slot that is busy or not."""
    fake.server_header = "llama.cpp"
    card = {"id": "m", "object": "model", "created": 1, "owned_by": "llamacpp"}
    told = {"/v1/models": {"object": "list", "data": [card]}, "/props": {"total_slots": 1}}
    told["/slots"] = [{"id": 0, "is_processing": busy}]  # type: ignore[assignment]
    headers = {"Content-Type": "application/json"}
    fake.get |= {path: (200, headers, orjson.dumps(body)) for path, body in told.items()}


async def test_the_slot_of_a_request_that_was_cut_off_is_free_when_the_server_says_so(
    serve: Serve, fake: FakeModel
) -> None:
    """The number of slots is the server's own word too."""
    llama_cpp(fake, busy=True)
    edge = await serve()
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        waits = await clients.ask(waits=True)
        first.close()
        await gone(edge, 0)
        assert taken(edge) == (0, 1, 1)
        asked = sum(request.path == "/slots" for request in fake.gets)
        async with hang_limit():
            while sum(request.path == "/slots" for request in fake.gets) < asked + 2:
                await asyncio.sleep(0.01)
        assert taken(edge) == (0, 1, 1)
        assert len(fake.requests) == 1
        llama_cpp(fake, busy=False)
        assert (await waits.answer()).clean
    assert taken(edge) == (0, 0, 0)
    (total,) = edge.edge.fleet.admission.totals(0.0).values()
    assert total.zombie_s > 0


@streamed_or_not
async def test_one_that_ended_by_itself_has_nothing_to_drain(serve: Serve, fake: FakeModel, stream: bool) -> None:
    llama_cpp(fake, busy=True)
    edge = await serve()
    assert (await ask(edge.port, CHAT, chat_body(stream=stream))).clean
    fake.script(*json_answer({"error": {"message": "no"}}, 500))
    await ask(edge.port, CHAT, chat_body(stream=stream))
    fake.script(head(), chunk(SPOKEN[0].token))
    assert taken(edge) == (0, 0, 0)


async def test_a_clock_that_runs_out_leaves_the_slot_draining(serve: Serve, fake: FakeModel) -> None:
    llama_cpp(fake, busy=True)
    fake.script(passing(61), stall())
    edge = await serve(stream={"first_token_s": 60, "commit_after_s": 240}, queue={"drain_s": 1000})
    assert (await ask(edge.port, CHAT, chat_body())).status == 504
    assert taken(edge) == (0, 1, 0)
    llama_cpp(fake, busy=False)
    await until_taken(edge, 0, 0, 0)


async def test_a_request_that_the_server_never_got_leaves_nothing_to_drain(serve: Serve, fake: FakeModel) -> None:
    llama_cpp(fake, busy=True)
    fake.close_after_answer = True  # no connection is kept
    edge = await serve()
    await fake.refuse()
    assert (await ask(edge.port, CHAT, chat_body())).status == 502
    assert taken(edge) == (0, 0, 0)
