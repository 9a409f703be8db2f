"""Ending: nothing new is taken, what runs may finish, the rest is told the truth; nothing delays the exit."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import orjson
import pytest
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, end, flood, gate, head, stall
from support.dispositions import ignoring
from support.edge_process import EdgeProcess
from support.faults import ended_by_error
from support.forms import TRANSCRIPTIONS, begin
from support.hanging import HANG_S, hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

EDGES_OWN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)  # what Edge itself acts upon
ENDING = SPOKEN[0].ending
SURFACES = {"surfaces": ["chat", "completions", "responses", "messages", "embeddings"]}


@contextlib.asynccontextmanager
async def stopping(edge: Running):
    """Stop it meanwhile, and wait for that at the end."""
    task = asyncio.create_task(edge.edge.stop())
    try:
        await edge.lines.wait("draining")
        yield task
    finally:
        async with hang_limit():
            await task


async def test_a_running_stream_finishes_and_nothing_new_is_taken(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    edge = await serve(server={"drain_s": HANG_S})
    async with RawClient(edge.port) as client, RawClient(edge.port) as idle:
        await idle.get("/health")
        assert (await idle.answer()).status == 200
        idle.buffer = b""
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        async with stopping(edge) as stopped:
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", edge.port)
            await idle.post(CHAT, chat_body())
            answer = await idle.answer()
            assert (answer.status, answer.headers["connection"].lower()) == (503, "close")
            assert answer.json["error"]["code"] == "shutting_down"
            assert await idle.receive() == b""
            assert not stopped.done()
            fake.open("more")
            answer = await client.answer()
            assert answer.clean
            assert answer.body.endswith(b"data: [DONE]\n\n")
    assert [record["outcome"] for record in edge.records] == ["complete"]


async def test_ready_tells_while_draining(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    edge = await serve(server={"drain_s": HANG_S})
    async with RawClient(edge.port) as client, RawClient(edge.port) as probe:
        await probe.get("/health")
        await probe.answer()
        probe.buffer = b""
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        async with stopping(edge):
            await probe.get("/ready")
            answer = await probe.answer()
            assert (answer.status, answer.json["reason"]) == (503, "shutting down")
            fake.open("more")


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("spoken", SPOKEN, ids=str)
async def test_a_stream_that_does_not_finish_is_told_and_reset(
    serve: Serve, fake: FakeModel, spoken: Spoken, version: str
) -> None:
    fake.script(head(), chunk(spoken.prelude + spoken.token), stall())
    edge = await serve(server={"drain_s": 0.1}, upstream=SURFACES)
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True), version=version)
        await client.until(b"tok")
        async with stopping(edge):
            answer = await client.answer()
    closes = ended_by_error(spoken.path) and version == "1.1"
    assert (answer.status, answer.clean, answer.ending) == (200, *((True, "framed") if closes else (False, "reset")))
    last = answer.body.strip().rpartition(b"data: ")[2]
    assert b"shutting down" in last
    assert orjson.loads(last)
    (record,) = edge.records
    assert (record["outcome"], record["reader"], record["error"]) == ("shutdown", "finished", "shutting_down")
    await fake.requests[0].left()


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_one_whose_status_has_not_gone_out_gets_a_503(serve: Serve, fake: FakeModel, stream: bool) -> None:
    fake.script(head(), chunk(chat_role()), gate("held"), stall())
    edge = await serve(server={"drain_s": 0.1})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=stream))
        await fake.reached("held")
        async with stopping(edge):
            answer = await client.answer()
    assert (answer.status, answer.clean) == (503, True)
    assert answer.json["error"]["code"] == "shutting_down"
    (record,) = edge.records
    assert (record["outcome"], record["status"]) == ("shutdown", 503)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_reader_that_does_not_read_neither_delays_the_end_nor_takes_it_for_a_clean_one(
    serve: Serve, fake: FakeModel, version: str
) -> None:
    fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    edge = await serve(server={"drain_s": 0.1}, stream={"flush_s": 0.2})
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT, chat_body(), version=version)
        await client.until(b"tok")
        await fake.requests[0].settled(0.1)
        async with stopping(edge):
            pass
        assert await client.ending() == "reset"
    (record,) = edge.records
    assert (record["outcome"], record["reader"]) == ("shutdown", "gone")


async def test_a_stream_that_nobody_reads_any_more_is_drained_or_ended(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), stall())
    edge = await serve(server={"drain_s": 0.1}, stream={"on_disconnect": "drain"})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
    async with stopping(edge):
        pass
    (record,) = edge.records
    assert (record["outcome"], record["reader"]) == ("shutdown", "gone")
    await fake.requests[0].left()


async def test_a_request_whose_body_was_under_way_is_refused(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    edge = await serve(server={"drain_s": HANG_S})
    body = orjson.dumps(chat_body())
    async with RawClient(edge.port) as client, RawClient(edge.port) as late:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        await late.post(CHAT, body[:10], {"Content-Length": str(len(body))})
        await _connections(edge, 2)
        async with stopping(edge):
            await late.send(body[10:])
            answer = await late.answer()
            assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
            fake.open("more")
            assert (await client.answer()).clean
    assert len(fake.requests) == 1


@pytest.mark.parametrize("upload", [False, True], ids=["json", "upload"])
async def test_a_body_that_is_still_arriving_is_told_at_once(serve: Serve, fake: FakeModel, *, upload: bool) -> None:
    """Nothing of it would be served: whoever sends it can send it elsewhere."""
    edge = await serve(server={"drain_s": 120}, upstream={"relay": [TRANSCRIPTIONS]})
    async with RawClient(edge.port) as client:
        if upload:
            await begin(client, 1_000_000)
        else:
            await client.post(CHAT, b'{"model":', {"Content-Length": "1000000"})
        await edge.wait(lambda: len(edge.edge.bodies.arrivals) == 1)
        stopping = asyncio.create_task(edge.edge.stop())
        answer = await client.answer()
        await stopping
    assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
    assert fake.requests == []


async def _connections(edge: Running, count: int) -> None:
    server = edge.edge.listener._runner.server
    assert server is not None
    async with hang_limit():
        while sum(handler._current_request is not None for handler in server.connections) < count:
            await asyncio.sleep(0.005)


async def test_idle_connections_do_not_delay_the_end(serve: Serve) -> None:
    edge = await serve(server={"drain_s": 10 * HANG_S})
    async with RawClient(edge.port) as used, RawClient(edge.port) as fresh, RawClient(edge.port) as half:
        await used.get("/health")
        await used.answer()
        await half.send(b"POST /v1/chat/comp")
        async with hang_limit():
            await edge.edge.stop()
        for client in (used, fresh, half):
            assert await client.receive() == b""


async def test_sigterm_lets_a_stream_finish_and_exits_with_0(fake: FakeModel, tmp_path: Path) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    async with EdgeProcess(tmp_path, fake.url, server={"drain_s": HANG_S}) as edge:
        await edge.ready()
        async with RawClient(edge.port) as client, RawClient(edge.port):
            await client.post(CHAT, chat_body())
            await client.until(b"tok")
            edge.send_signal(signal.SIGTERM)
            await edge.lines.wait("draining")
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", edge.port)
            fake.open("more")
            assert (await client.answer()).clean
            assert await edge.wait() == 0
    assert [line["outcome"] for line in edge.lines.of("exchange")] == ["complete"]
    assert edge.lines.of("stopped")


async def test_sigterm_ends_what_does_not_finish_and_exits_with_0(fake: FakeModel, tmp_path: Path) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    async with EdgeProcess(tmp_path, fake.url, server={"drain_s": 0.2}) as edge:
        await edge.ready()
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body())
            await client.until(b"tok")
            edge.send_signal(signal.SIGTERM)
            answer = await client.answer()
            assert (answer.ending, b"shutting down" in answer.body) == ("reset", True)
            assert await edge.wait() == 0
    assert [line["outcome"] for line in edge.lines.of("exchange")] == ["shutdown"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_at_once(fake: FakeModel, tmp_path: Path, number: signal.Signals) -> None:
    """And leaves no process behind."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    async with EdgeProcess(tmp_path, fake.url, server={"drain_s": 60}) as edge:
        await edge.ready()
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}]))
            await client.until(b"tok")
            children = edge.children()
            assert children
            edge.send_signal(number)
            await edge.lines.wait("draining")
            edge.send_signal(number)
            assert await edge.wait() == 128 + number
        await _gone(children)


async def test_the_process_that_parses_ends_with_edge(fake: FakeModel, tmp_path: Path) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        body = chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}])
        assert (await ask(edge.port, CHAT, body)).status == 200
        children = edge.children()
        assert children
        edge.send_signal(signal.SIGTERM)
        assert await edge.wait() == 0
    await _gone(children)


async def test_the_process_that_parses_ends_only_with_edge(fake: FakeModel, tmp_path: Path) -> None:
    """A stop of the service is told to all of its processes, and a large request may just have come."""
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        body = chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}])
        assert (await ask(edge.port, CHAT, body)).status == 200
        children = edge.children()
        for child in children:
            for number in EDGES_OWN:
                os.kill(child, number)
        assert (await ask(edge.port, CHAT, body)).status == 200
        assert edge.children() == children


@pytest.mark.parametrize("prefix", [[], ignoring([])], ids=["usual", "signals-ignored"])
async def test_no_signal_ends_the_process_that_parses_while_it_starts(
    fake: FakeModel, tmp_path: Path, prefix: list[str]
) -> None:
    """It takes a while to be there, in which a signal to all of the service's processes must not end it."""
    edge = EdgeProcess(tmp_path, fake.url)
    edge.prefix = prefix
    async with edge:
        await edge.ready()
        body = chat_body(messages=[{"role": "user", "content": "x" * 2_000_000}])
        asking = asyncio.create_task(ask(edge.port, CHAT, body))
        signalled = set()
        while not asking.done():
            for child in edge.children():
                signalled.add(child)
                for number in EDGES_OWN:
                    os.kill(child, number)
            await asyncio.sleep(0.002)
        assert (await asking).status == 200, edge.lines.lines
        assert signalled
        assert edge.children() == signalled


async def _gone(pids: set[int]) -> None:
    async with hang_limit():
        while any(_alive(pid) for pid in pids):
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
