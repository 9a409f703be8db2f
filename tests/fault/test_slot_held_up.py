"""A reader that takes too little holds up a slot: it is cut when others want that, and only then."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, flood, gate, head
from support.merged import path_of
from support.raw import CHAT, RawClient, chat_body
from support.resumed import RESUME, stream_id
from support.running import Running, Serve
from support.slots import ONE, REST, Clients, held, taken

SMALL_WINDOW = 4096
LAG_S = 0.3
HANG_S = 120.0
LIMITS = {"client_lag_s": LAG_S, "buffer_bytes": 65_536, "journal_bytes": 65_536}


def endless(fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))


async def paused(edge: Running, count: int = 1) -> None:
    """Wait until the upstream is paused, of so many readers all of whom lag."""
    await edge.wait(lambda: any(one.generation._paused and one.generation.readers == count for one in exchanges(edge)))


def exchanges(edge: Running) -> list[object]:
    return list(edge.edge.registry.streams.values())


async def drip(client: RawClient) -> None:
    """A byte at a time, for ever: it makes progress, and is no stalled reader."""
    while await asyncio.get_running_loop().sock_recv(client.sock, 1):
        await asyncio.sleep(0.02)


async def the_next_is_served(edge: Running, fake: FakeModel, clients: Clients) -> None:
    fake.script(*held("second"))
    fake.open("second")
    second = await clients.enter_async_context(RawClient(edge.port))
    await second.post(CHAT, chat_body())  # whether it waits, or has the slot at once, is a matter of a tick
    assert (await second.answer(HANG_S)).clean


async def test_a_reader_that_holds_up_a_wanted_slot_is_cut(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve(**ONE, stream=LIMITS)
    async with Clients(edge) as clients, RawClient(edge.port, SMALL_WINDOW) as slow:
        await slow.post(CHAT, chat_body())
        await slow.until(b"tok")
        dripping = asyncio.create_task(drip(slow))
        await paused(edge)
        await the_next_is_served(edge, fake, clients)
        dripping.cancel()  # or it would take what the kernel still has for it at 20 ms a byte, which is two minutes
        (how,) = await asyncio.gather(dripping, return_exceptions=True)
        assert isinstance(how, ConnectionResetError) or await slow.ending() == "reset"
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("client_stall", "stalled", 200)
    await fake.requests[0].left()


async def test_while_nobody_waits_for_its_slot_it_may_be_slow(serve: Serve, fake: FakeModel) -> None:
    """Until somebody does."""
    endless(fake)
    edge = await serve(**ONE, stream=LIMITS)
    async with Clients(edge) as clients, RawClient(edge.port, SMALL_WINDOW) as slow:
        await slow.post(CHAT, chat_body())
        await slow.until(b"tok")
        await paused(edge)
        await asyncio.sleep(4 * LAG_S)  # it is the passing of time that is under test
        assert (edge.records, taken(edge)) == ([], (1, 0, 0))
        await the_next_is_served(edge, fake, clients)
    assert (await edge.record())["outcome"] == "client_stall"


async def come_back(client: RawClient, stream: str) -> None:
    await client.get(f"/v1/streams/{stream}")


async def come_back_to_several(client: RawClient, stream: str) -> None:
    await client.get(path_of([stream]))


@pytest.mark.parametrize("again", [come_back, come_back_to_several], ids=["one stream", "several"])
async def test_a_reader_that_came_back_is_cut_too(
    serve: Serve, fake: FakeModel, again: Callable[[RawClient, str], Awaitable[None]]
) -> None:
    """The stream goes on for one that comes back again, and is not paused while there is none."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("read"), flood(10**12, chat_token("tok")))
    edge = await serve(**ONE, stream={**LIMITS, "on_disconnect": "grace", "grace_s": 0.3})
    async with Clients(edge) as clients, RawClient(edge.port, SMALL_WINDOW) as slow:
        async with RawClient(edge.port, SMALL_WINDOW) as first:
            await first.post(CHAT, chat_body(), RESUME)
            await first.until(b"tok")
            stream = await stream_id(first)
            await again(slow, stream)
            await slow.until(b"\r\n\r\n")
            await edge.wait(lambda: edge.edge.registry.streams[stream].generation.readers == 2)
            fake.open("read")
        await paused(edge)
        await the_next_is_served(edge, fake, clients)
        assert await slow.ending() == "reset"
    (returned,) = await edge.lines.wait("returned")
    assert returned["reader"] == "stalled"


async def test_the_replay_of_a_stream_that_has_ended_holds_no_slot(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("x" * 500_000) + REST))
    edge = await serve(**ONE, stream={**LIMITS, "journal_bytes": 2_000_000})
    async with Clients(edge) as clients:
        first = await clients.ask(headers=RESUME)
        await first.answer()
        stream = await stream_id(first)
        await edge.record()
        async with RawClient(edge.port, SMALL_WINDOW) as slow:
            await come_back(slow, stream)
            await slow.until(b"xxx")
            fake.script(*held("other"))
            other = await clients.ask()
            fake.script(*held("second"))
            await clients.ask(waits=True)
            await asyncio.sleep(4 * LAG_S)  # it is the passing of time that is under test
            assert taken(edge)[2] == 1
            assert edge.lines.of("returned") == []
            answer = await slow.answer(HANG_S)
        assert answer.clean
        assert b"[DONE]" in answer.body
        fake.open("other")
        await other.answer()
        fake.open("second")
        await edge.record(2)
