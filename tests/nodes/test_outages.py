"""Redis is killed, hangs or is full: streams go on, what only it knows is a 503, and it is told once."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes.answers import chat_events
from fakes.model_server import FakeModel
from fakes.steps import chunk, end, gate, head
from support.eventsource import parsed
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.redis_server import RedisServer, redis_server
from support.running import Running, Serve
from support.shapes import assert_told, get

RESUME = {"x-edge-resume": "1"}
WORDS = ["one", " two", " three", " four"]
EVENTS = [event for event in chat_events(WORDS) if b'"choices":[]' not in event]
DATAS = [event.removeprefix(b"data: ").strip().decode() for event in EVENTS]

Fault = Callable[[RedisServer], None]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


async def up_again(edge: Running, stream: str) -> None:
    """Ask until the store answers, and has the stream: the other node writes it a moment after its end."""
    async with hang_limit():
        while (await get(edge.port, f"/v1/streams/{stream}")).status in (404, 503):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["kill", "suspend"])
async def test_streams_go_on_without_it_and_are_there_when_it_is_back(
    server: RedisServer, serve: Serve, fake: FakeModel, fault: str
) -> None:
    fake.script(head(), chunk(b"".join(EVENTS[:3])), gate("more"), chunk(b"".join(EVENTS[3:])), end())
    store = {"url": server.url}
    first, second = await serve(store=store), await serve(store=store)
    async with RawClient(first.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await client.until(b" two")
        stream = next(iter(first.edge.registry.streams))
        async with hang_limit():
            while not (await get(second.port, "/v1/streams")).json["data"]:
                await asyncio.sleep(0.01)
        getattr(server, fault)()
        fake.open("more")
        answer = await client.answer()
    assert answer.clean
    assert [event.data for event in parsed(answer.body).events] == DATAS
    there = await get(first.port, f"/v1/streams/{stream}")
    assert there.body == answer.body, "from memory"
    assert_told(await get(second.port, f"/v1/streams/{stream}"), 503, CHAT, "store_unavailable")
    lines = second.lines  # of both: there is one log in a process
    await lines.wait("store down", 2)
    if fault == "kill":
        server.start()
    else:
        server.resume()
    await lines.wait("store back", 2)
    assert len(lines.of("store down")) == 2, "once for each node"
    fresh = await ask(first.port, CHAT, chat_body(), RESUME)
    await up_again(second, fresh.headers["x-stream-id"])
    assert (await get(second.port, f"/v1/streams/{fresh.headers['x-stream-id']}")).body == fresh.body


@pytest.mark.parametrize("fault", ["kill", "suspend"])
async def test_a_session_ends_without_it(server: RedisServer, serve: Serve, fake: FakeModel, fault: str) -> None:
    """What was said cannot be kept now, which holds nobody up for long."""
    fake.script(head(), chunk(b"".join(EVENTS[:3])), gate("more"), chunk(b"".join(EVENTS[3:])), end())
    edge = await serve(store={"url": server.url})
    async with RawClient(edge.port) as client:
        await client.post("/v1/chat/stream", {"message": "hi"})
        await client.until(b" two")
        getattr(server, fault)()
        fake.open("more")
        answer = await client.answer()
    assert answer.clean
    assert b'"done":true' in answer.body
