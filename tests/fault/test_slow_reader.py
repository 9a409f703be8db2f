"""A reader that is slow slows nobody, holds little, loses nothing; one that has stopped is let go."""

import asyncio
import contextlib
import hashlib
from pathlib import Path

import pytest
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, end, flood, gate, head
from support.edge_process import EdgeProcess
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, chat_body, dechunk
from support.running import Line, Running, Serve, time_passes
from support.surfaces import SPOKEN

BUFFER = 256 * 1024
# What the kernel takes between a server that floods and Edge, and between Edge and a client: about 4.7 MB as measured.
KERNEL = 6_000_000
SMALL_WINDOW = 4096
STALL_S = 60  # in the time that the tests let pass
ENDING = SPOKEN[0].ending
FRAME = 64 * 1024
SLACK = 128 * 1024  # one read from upstream more, and what a transport holds


def numbered(total: int) -> bytes:
    """Distinct tokens: one that is lost, doubled or misplaced changes the whole."""
    size = len(chat_token("00000000"))
    return b"".join(chat_token(f"{number:08}") for number in range(total // size))


async def read_on(client: RawClient, timeout_s: float = 20.0) -> bytes:
    """Read to the last chunk; the body without its head and framing."""
    received = bytearray(client.buffer)
    async with hang_limit(timeout_s):
        while not received.endswith(b"\r\n0\r\n\r\n"):
            data = await asyncio.get_running_loop().sock_recv(client.sock, 1 << 18)
            assert data, "cut"
            received += data
    body, clean = dechunk(bytes(received).partition(b"\r\n\r\n")[2])
    assert clean
    return body


def held(edge: Running) -> int:
    """Bytes in the journal of the only stream."""
    (exchange,) = edge.edge.registry
    return exchange.generation.journal.statistics().held  # type: ignore[attr-defined]


def assert_phases_add_up(record: Line) -> None:
    phases = ("queued_s", "connecting_s", "upstream_s", "client_blocked_s", "edge_s")
    assert sum(record[phase] for phase in phases) == pytest.approx(record["total_s"], abs=1e-5)


async def test_the_upstream_is_paused_when_the_buffer_is_full_and_nothing_is_lost(
    serve: Serve, fake: FakeModel
) -> None:
    tokens = numbered(12_000_000)
    fake.script(head(), chunk(chat_role()), chunk(tokens, every=FRAME), chunk(ENDING), end())
    edge = await serve(stream={"buffer_bytes": BUFFER})
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"00000000")
        written = await fake.requests[0].settled()
        assert BUFFER < written < BUFFER + KERNEL
        assert BUFFER - SLACK < held(edge) <= BUFFER
        body = await read_on(client)
    whole = chat_role() + tokens + ENDING.replace(b"".join(_usage()), b"")
    assert hashlib.sha256(body).digest() == hashlib.sha256(whole).digest()
    record = await edge.record()
    assert (record["outcome"], record["reader"]) == ("complete", "finished")
    assert BUFFER - SLACK < record["peak_buffer_bytes"] < BUFFER + SLACK
    assert record["client_blocked_s"] > 0.3  # at least while nothing moved
    assert_phases_add_up(record)


def _usage() -> list[bytes]:
    """The chunk that this client did not ask for."""
    return [event + b"\n\n" for event in ENDING.split(b"\n\n") if b'"usage"' in event]


async def test_the_model_finishes_ahead_of_a_reader_within_the_buffer(serve: Serve, fake: FakeModel) -> None:
    """The slot is free while the reader still has bytes to take."""
    tokens = numbered(400_000)
    fake.close_after_answer = True
    fake.script(head(), chunk(chat_role()), chunk(tokens), chunk(ENDING), end())
    edge = await serve(stream={"buffer_bytes": 1_000_000})
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"00000000")
        await fake.requests[0].left()
        async with hang_limit():
            while edge.edge.fleet.members[0].active:
                await asyncio.sleep(0.005)
        assert edge.records == []
        assert tokens in await read_on(client)
    assert (await edge.record())["outcome"] == "complete"


async def test_a_reader_without_progress_is_cut(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    edge = await serve(stream={"client_stall_s": STALL_S})
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        await edge.later(lambda: edge.records, STALL_S / 4)
        record = await edge.record()
        await fake.requests[0].left()
        assert await client.ending() == "reset"
    assert (record["outcome"], record["reader"], record["status"]) == ("client_stall", "stalled", 200)
    assert STALL_S / 2 < record["client_blocked_s"] <= record["total_s"]
    assert_phases_add_up(record)


async def test_a_slow_but_steady_reader_is_never_cut(serve: Serve, fake: FakeModel) -> None:
    """Four times as long as the stall clock: in smaller steps than those in which the kernel asks for more."""
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    edge = await serve(stream={"client_stall_s": STALL_S})
    loop = asyncio.get_running_loop()
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        for _ in range(40):
            assert await loop.sock_recv(client.sock, 1024)
            await asyncio.sleep(0.01)
            time_passes(STALL_S / 10)  # the pace is what is tested
        assert edge.records == []


async def test_a_reader_that_has_all_there_is_is_not_stalled(serve: Serve, fake: FakeModel) -> None:
    """Silence from the model is not the reader's fault."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("rest"), chunk(ENDING), end())
    edge = await serve(stream={"client_stall_s": STALL_S, "inter_token_s": 10 * STALL_S, "heartbeat_s": 10 * STALL_S})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        for _ in range(8):
            time_passes(STALL_S / 2)
            await asyncio.sleep(0.01)
        fake.open("rest")
        assert (await client.answer()).clean
    assert (await edge.record())["client_blocked_s"] < STALL_S


async def test_a_whole_answer_that_is_not_read_is_cut(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role()), chunk(chat_token("x" * 800_000)), chunk(ENDING), end())
    edge = await serve(stream={"client_stall_s": STALL_S})
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body(stream=False))
        await client.until(b"HTTP/1.1 200")
        await edge.later(lambda: edge.records, STALL_S / 4)
        record = await edge.record()
        assert await client.ending() == "reset"
    assert (record["outcome"], record["reader"], record["status"]) == ("complete", "stalled", 200)
    assert record["client_blocked_s"] > STALL_S / 2
    assert_phases_add_up(record)


@pytest.mark.parametrize("last", [2_000, 60_000], ids=["in-the-kernel", "in-edge"])
async def test_the_last_bytes_of_a_stream_are_not_waited_for_without_end(
    serve: Serve, fake: FakeModel, last: int
) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok") + chat_token("x" * last) + ENDING), end())
    edge = await serve(stream={"client_stall_s": 2}, server={"keepalive_s": 2})  # both also before the answer begins
    async with RawClient(edge.port, receive_buffer=SMALL_WINDOW) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        assert (await edge.record())["outcome"] == "complete"
        await no_connections(edge)


async def test_clients_that_never_read_error_answers_do_not_stay(serve: Serve) -> None:
    edge = await serve(stream={"client_stall_s": 0.4}, server={"keepalive_s": 60})
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            client = await stack.enter_async_context(RawClient(edge.port, receive_buffer=SMALL_WINDOW))
            client.sock.setblocking(False)
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(0.2):  # until the kernel takes no more
                    while True:
                        await client.send(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
        await no_connections(edge)


async def no_connections(edge: Running, timeout_s: float = 3.0) -> None:
    server = edge.edge.listener._runner.server
    assert server is not None
    async with hang_limit(timeout_s):
        while server.connections:
            await asyncio.sleep(0.01)


async def test_twenty_stopped_readers_cost_little_memory(fake: FakeModel, tmp_path: Path) -> None:
    """Upstream offers each 200 MB; each may cost its buffer and 256 KiB."""
    readers = 20
    for _ in range(2 * readers):
        fake.script(head(), chunk(chat_role()), flood(200_000_000, chat_token("tok")))
    config = {"stream": {"buffer_bytes": BUFFER, "on_disconnect": "cancel"}}
    async with EdgeProcess(tmp_path, fake.url, **config) as edge, contextlib.AsyncExitStack() as stack:
        await edge.ready()
        await (await _stop_after_a_token(edge, stack, warm := 1))[0].__aexit__()  # what is loaded only with the first
        await edge.lines.wait("exchange")
        before = edge.memory()
        clients = await _stop_after_a_token(edge, stack, readers)
        await asyncio.gather(*(request.settled(1.0) for request in fake.requests[warm:]))
        grown = edge.memory() - before
        assert all(request.written < 200_000_000 for request in fake.requests[warm:])
        for client in clients:
            client.reset()
        records = (await edge.lines.wait("exchange", warm + readers))[warm:]
    assert grown <= readers * (BUFFER + 256 * 1024), f"{grown / readers / 1024:.0f} KiB for each reader"
    peaks = [record["peak_buffer_bytes"] for record in records]
    assert min(peaks) > BUFFER - SLACK
    assert max(peaks) < BUFFER + SLACK


async def _stop_after_a_token(edge: EdgeProcess, stack: contextlib.AsyncExitStack, count: int) -> list[RawClient]:
    clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in range(count)]
    for client in clients:
        await client.post(CHAT, chat_body())
    for client in clients:
        await client.until(b"tok")
    return clients
