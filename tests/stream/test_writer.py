"""The writer over real sockets: waits that can be repeated, whole answers in pieces, and their send buffers."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from support.hanging import hang_limit
from support.raw import RawClient

from edge.stream.writer import SEND_BUFFER, Writer, deliver

LARGE = b"x" * 3_000_000
SMALL_WINDOW = 4096
HANG_S = 120.0
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    """A server of one handler, with the send buffers that Edge's connections have; its port."""
    runner = web.ServerRunner(web.Server(handler, handler_cancellation=True))
    await runner.setup()
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    sock.bind(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    try:
        yield sock.getsockname()[1]
    finally:
        await runner.cleanup()


def send_buffer(request: web.BaseRequest) -> int:
    assert request.transport is not None
    return int(request.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))


async def test_a_wait_that_ran_out_or_was_cancelled_can_be_repeated() -> None:
    """Of one connection: who waits next waits too, and is told when there is room."""
    waited: list[object] = []
    blocked = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        writer = Writer(request)
        response = await writer.open(200, {})
        while not writer.write_nowait(LARGE):
            pass
        waited.append(await writer.drain(0.01))
        task = asyncio.create_task(writer.drain())
        other = asyncio.create_task(writer.drain())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        waited.append(await writer.drain(0.01))
        blocked.set()
        waited.extend([await writer.drain(), await other])
        await writer.finish()
        return response

    async with serving(handler) as port, RawClient(port, SMALL_WINDOW) as client:
        await client.get("/")
        async with hang_limit():
            await blocked.wait()
        answer = await client.answer(HANG_S)
    assert (answer.clean, waited) == (True, [False, False, True, True])


async def test_a_slow_reader_of_a_whole_answer_is_not_cut_while_it_makes_progress() -> None:
    """It takes many times the limit in all: each wait of the writer runs out, and is followed by another."""
    delivered = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=LARGE)
        await deliver(request, response, 0.5)
        delivered.set()
        return response

    async with serving(handler) as port, RawClient(port, SMALL_WINDOW) as client:
        await client.get("/")
        loop = asyncio.get_running_loop()
        until = loop.time() + 2
        while loop.time() < until:
            await client.receive(HANG_S)
            await asyncio.sleep(0.02)  # the pace is what is tested
        answer = await client.answer(HANG_S)
        async with hang_limit():
            await delivered.wait()
    assert (answer.clean, answer.body) == (True, LARGE)


async def test_a_reader_that_takes_nothing_of_a_whole_answer_is_reset() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=LARGE)
        await deliver(request, response, 0.2)
        return response

    async with serving(handler) as port, RawClient(port, SMALL_WINDOW) as client:
        await client.get("/")
        await client.until(b"xxx", HANG_S)
        await asyncio.sleep(1)  # it is the passing of time that is under test
        assert await client.ending() == "reset"
    assert len(client.buffer) < len(LARGE)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "stream"])
async def test_a_large_write_has_a_wide_send_buffer_until_it_is_out(*, whole: bool) -> None:
    """With the usual one, a reader on the same host gets 2 MB/s."""
    widths: list[int] = []
    asked = asyncio.Event()

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        widths.append(send_buffer(request))
        writer = Writer(request)
        if whole:
            looking = asyncio.create_task(look(request, writer))
            response = await writer.answer(200, {}, LARGE)
            await looking
        else:
            response = await writer.open(200, {})
            writer.write_nowait(LARGE)
            await look(request, writer)
            await writer.drain()
            await writer.finish()
        widths.append(send_buffer(request))
        return response

    async def look(request: web.BaseRequest, writer: Writer) -> None:
        while not writer.blocked:
            await asyncio.sleep(0.001)
        widths.append(send_buffer(request))
        asked.set()

    async with serving(handler) as port, RawClient(port, SMALL_WINDOW) as client:
        await client.get("/")
        async with hang_limit():
            await asked.wait()
        answer = await client.answer(HANG_S)
    assert (answer.clean, answer.body) == (True, LARGE)
    before, meanwhile, after = widths
    assert before == after < meanwhile


@pytest.mark.parametrize("body", [b"", b"x", b"x" * SEND_BUFFER, b"x" * (SEND_BUFFER + 1), LARGE], ids=len)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_whole_answers_of_every_length(method: str, body: bytes) -> None:
    """One after the other over one connection."""

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=body)
        await deliver(request, response, HANG_S)
        return response

    async with serving(handler) as port, RawClient(port) as client:
        for _ in range(2):
            client.buffer = b""
            await client.get("/", method=method)
            if method == "HEAD":
                await client.until(b"\r\n\r\n", HANG_S)
                assert client.buffer.endswith(b"\r\n\r\n")
            else:
                assert (await client.answer(HANG_S)).body == body


async def test_an_answer_that_has_no_body_has_none() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(status=204)
        await deliver(request, response, HANG_S)
        return response

    async with serving(handler) as port, RawClient(port) as client:
        await client.get("/")
        answer = await client.answer(HANG_S)
    assert (answer.status, answer.body, answer.clean) == (204, b"", True)
