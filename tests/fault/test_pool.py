"""Connections to an upstream are used again; one that turns out to be dead never reaches the user."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from fakes.model_server import FakeModel, chat_answer, chat_events, chunk, end, fin, gate, head, json_answer, rst, send
from support.faults import SURFACES, assert_gone, every_surface, streamed_or_not, told_by_status
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

Ending = Literal["fin", "rst"]
every_ending = pytest.mark.parametrize("ending", ["fin", "rst"])


async def assert_served(edge: Running, spoken: Spoken, *, stream: bool = True) -> None:
    """One answer, whole, at the first attempt that anybody can see."""
    before = len(edge.records)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert (answer.status, answer.clean) == (200, True)
    record = await edge.record(before)
    assert (record["outcome"], record["attempts"]) == ("complete", 1)


async def used_alone(edge: Running, fake: FakeModel) -> None:
    """One connection is in the pool and has been used: the one that the look at the models was made on."""
    assert len(fake.connections) == 1
    assert (fake.gets[0].connection, fake.requests) == (0, [])
    assert edge.edge.fleet.members[0].up


@asynccontextmanager
async def pool_in_use(edge: Running, fake: FakeModel) -> AsyncIterator[None]:
    """The pooled connection is busy, so that the next request makes a fresh one."""
    fake.script(gate("busy"))
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await fake.reached("busy")
        yield
    await assert_gone(fake)


async def body_ended() -> None:
    """What was written to Edge has been read: nothing else turns this loop."""
    for _ in range(10):
        await asyncio.sleep(0)


@every_surface
@streamed_or_not
async def test_a_healthy_connection_is_used_again(
    serve: Serve, fake: FakeModel, spoken: Spoken, *, stream: bool
) -> None:
    """Though the terminator comes before the end of the body, in a segment of its own."""
    edge = await serve(upstream=SURFACES)
    for _ in range(3):
        await assert_served(edge, spoken, stream=stream)
        await body_ended()
    assert [request.connection for request in fake.requests] == [0, 0, 0]


async def test_a_connection_is_used_again_after_an_error_answer(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    fake.script(*json_answer({"error": {"message": "no"}}, 400))
    assert (await ask(edge.port, CHAT, chat_body())).status == 400
    await assert_served(edge, SPOKEN[0])
    assert [request.connection for request in fake.requests] == [0, 0]


async def test_a_connection_whose_body_does_not_end_is_given_up(serve: Serve, fake: FakeModel) -> None:
    """The client does not wait for it."""
    fake.script(head(), *map(chunk, chat_events()), gate("never"), end())
    edge = await serve()
    await assert_served(edge, SPOKEN[0])
    assert await fake.requests[0].left() in ("fin", "reset")
    await assert_served(edge, SPOKEN[0])
    assert [request.connection for request in fake.requests] == [0, 1]


async def test_a_server_that_promises_keep_alive_and_closes_is_served_from(serve: Serve, fake: FakeModel) -> None:
    """llama.cpp does so after each stream; some requests meet the closing, some the closed connection."""
    fake.close_after_answer = True
    edge = await serve()
    for _ in range(10):
        await assert_served(edge, SPOKEN[0])
    assert len(fake.requests) == 10


@every_ending
@every_surface
@streamed_or_not
async def test_a_dead_connection_is_replaced(
    serve: Serve, fake: FakeModel, spoken: Spoken, ending: Ending, *, stream: bool
) -> None:
    """It dies when the request arrives; the request is sent again on a fresh one, which nobody notices."""
    edge = await serve(upstream=SURFACES)
    fake.reuse = ending
    await used_alone(edge, fake)
    await assert_served(edge, spoken, stream=stream)
    assert (fake.hung_up, [request.connection for request in fake.requests]) == (1, [1])


@every_ending
async def test_a_pool_full_of_dead_connections_is_gone_through(serve: Serve, fake: FakeModel, ending: Ending) -> None:
    """All of them go before a fresh one is made; the user notices nothing of that either."""
    edge = await serve()
    for _ in range(3):
        fake.script(gate("together"), *chat_answer())
    asking = [asyncio.create_task(ask(edge.port, CHAT, chat_body())) for _ in range(3)]
    await fake.request(2)
    fake.open("together")
    assert [answer.status for answer in await asyncio.gather(*asking)] == [200, 200, 200]
    await body_ended()
    fake.reuse = ending
    answer = await ask(edge.port, CHAT, chat_body())
    assert (answer.status, answer.clean) == (200, True)
    assert (fake.hung_up, fake.requests[-1].connection) == (3, 3)


@every_ending
async def test_a_dead_connection_and_then_nobody(serve: Serve, fake: FakeModel, ending: Ending) -> None:
    edge = await serve()
    fake.reuse = ending
    await fake.refuse()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.status == 502
    assert told_by_status(SPOKEN[0], answer)["code"] == "upstream_unreachable"


@every_ending
async def test_a_fresh_connection_that_dies_is_not_replaced(serve: Serve, fake: FakeModel, ending: Ending) -> None:
    """The request may have been begun: that another upstream is tried is routing's to decide."""
    edge = await serve()
    async with pool_in_use(edge, fake):
        fake.script({"fin": fin(), "rst": rst()}[ending])
        answer = await ask(edge.port, CHAT, chat_body())
    assert answer.status == 502
    assert told_by_status(SPOKEN[0], answer)["code"] == "upstream_cut"
    assert [request.connection for request in fake.requests] == [0, 1]


@every_ending
@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\nContent-Type: text/ev"])
async def test_no_request_is_repeated_after_a_byte_of_its_response(
    serve: Serve, fake: FakeModel, ending: Ending, said: bytes
) -> None:
    edge = await serve()
    await used_alone(edge, fake)
    fake.script(send(said), {"fin": fin(), "rst": rst()}[ending])
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.status == 502
    assert told_by_status(SPOKEN[0], answer)["code"] == "upstream_cut"
    assert [request.connection for request in fake.requests] == [0]
