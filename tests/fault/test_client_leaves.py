"""A client that leaves stops the model, whenever and however it leaves, streaming or not."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

import pytest
from fakes.model_server import FakeModel, Request, chat_role, chat_token, chunk, end, flood, gate, head, no_read, stall
from support.hanging import hang_limit
from support.raw import CHAT, EMBEDDINGS, RawClient, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

How = Literal["close", "reset", "half_close"]
HOWS: tuple[How, ...] = ("close", "reset", "half_close")
every_way = pytest.mark.parametrize("how", HOWS)
every_surface = pytest.mark.parametrize("spoken", SPOKEN, ids=str)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
ALL_SURFACES = ["chat", "completions", "responses", "messages", "embeddings"]


async def assert_stopped(edge: Running, request: Request, status: int) -> None:
    """The upstream connection is closed at once, and the one record says who left."""
    await request.left()
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("client_gone", "gone", status)
    assert len(edge.records) == 1


@every_way
@streamed_or_not
@every_surface
@pytest.mark.parametrize("when", ["headers", "prelude", "tokens"])
async def test_leaving_stops_the_model(
    serve: Serve, fake: FakeModel, spoken: Spoken, stream: bool, when: str, how: How
) -> None:
    before = {
        "headers": [],
        "prelude": [head(), chunk(spoken.prelude)],
        "tokens": [head(), chunk(spoken.prelude + spoken.token)],
    }
    fake.script(*before[when], gate("held"), stall())
    edge = await serve(upstream={"surfaces": ALL_SURFACES})
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=stream))
        await fake.reached("held")
        committed = stream and when == "tokens"
        if committed:
            await client.until(b"tok")
        getattr(client, how)()
        await assert_stopped(edge, fake.requests[0], 200 if committed else 499)


@every_way
@pytest.mark.parametrize("begun", [False, True], ids=["headers", "body"])
async def test_leaving_closes_a_call_that_cannot_be_streamed(
    serve: Serve, fake: FakeModel, how: How, begun: bool
) -> None:
    half = [head(200, {"Content-Type": "application/json", "Content-Length": "99"}), chunk(b'{"object":')]
    fake.script(*(half if begun else []), gate("held"), stall())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(EMBEDDINGS, {"model": "m", "input": "hi"})
        await fake.reached("held")
        getattr(client, how)()
        await assert_stopped(edge, fake.requests[0], 499)


@every_way
@streamed_or_not
async def test_leaving_ends_an_upload_that_the_upstream_does_not_read(
    serve: Serve, fake: FakeModel, stream: bool, how: How
) -> None:
    fake.script(no_read(), stall())
    edge = await serve()
    body = chat_body(stream=stream, messages=[{"role": "user", "content": "x" * 900_000}])
    async with RawClient(edge.port) as client:
        await client.post(CHAT, body)
        request = await fake.request(0)
        getattr(client, how)()
        await assert_stopped(edge, request, 499)


@contextmanager
def mute(port: int) -> Iterator[None]:
    """A listener on ``port`` that neither accepts nor refuses."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield


@every_way
@streamed_or_not
async def test_leaving_gives_up_connecting(serve: Serve, fake: FakeModel, stream: bool, how: How) -> None:
    fake.close_after_answer = True  # so that no pooled connection is left to send on
    edge = await serve(stream={"connect_s": 30})
    await fake.refuse()
    with mute(fake.port):
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body(stream=stream))
            await edge.lines.wait("start")
            getattr(client, how)()
            record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("client_gone", "gone", 499)
    assert record["upstream_s"] == 0


@every_way
async def test_leaving_between_two_tokens_of_a_running_stream(serve: Serve, fake: FakeModel, how: How) -> None:
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        getattr(client, how)()
        await assert_stopped(edge, fake.requests[0], 200)


@every_way
async def test_leaving_with_unread_bytes_pending(serve: Serve, fake: FakeModel, how: How) -> None:
    """Also a client that only half-closes, whose end lies behind bytes that it does not take."""
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    edge = await serve()
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        await fake.requests[0].settled(0.2)
        getattr(client, how)()
        await assert_stopped(edge, fake.requests[0], 200)


@every_way
async def test_leaving_during_the_answer_of_a_whole_reply_ends_it(serve: Serve, fake: FakeModel, how: How) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok" * 200_000) + SPOKEN[0].ending), end())
    edge = await serve()
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT, chat_body(stream=False))
        await client.until(b"tok")
        getattr(client, how)()
        record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("complete", "gone", 200)


@every_way
@streamed_or_not
async def test_draining_reads_the_upstream_to_its_end(serve: Serve, fake: FakeModel, stream: bool, how: How) -> None:
    """With ``on_disconnect = "drain"`` the model finishes although nobody reads."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(SPOKEN[0].ending), end())
    edge = await serve(stream={"on_disconnect": "drain"})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=stream))
        await fake.reached("more")
        if stream:
            await client.until(b"tok")
        getattr(client, how)()
        await _connections(edge, 0)
        assert edge.records == []
        fake.open("more")
        record = await edge.record()
    assert (record["outcome"], record["reader"]) == ("complete", "gone")
    assert record["status"] == (200 if stream else 499)
    assert (record["tokens_out"], record["tokens_from"]) == (3, "reported")
    assert len(edge.records) == 1


async def test_draining_ends_a_stream_whose_reader_had_stopped_reading(serve: Serve, fake: FakeModel) -> None:
    """The pause that the lagging reader had caused does not outlive it."""
    fake.script(head(), chunk(chat_role()), flood(20_000_000, chat_token("tok")), chunk(SPOKEN[0].ending), end())
    edge = await serve(stream={"on_disconnect": "drain"})
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        assert await fake.requests[0].settled(0.2) < 20_000_000
        client.reset()
        record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("complete", "gone", 200)


async def _connections(edge: Running, count: int) -> None:
    """Wait until Edge has noticed that connections are gone."""
    server = edge.edge.listener._runner.server
    assert server is not None
    async with hang_limit():
        while len(server.connections) > count:
            await asyncio.sleep(0.005)
