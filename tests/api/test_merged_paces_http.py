"""Readers of several streams: they count as readers of each, and a slow one delays nobody."""

import asyncio

from fakes.model_server import FakeModel, chat_answer, chat_events, chat_role, chat_token
from fakes.steps import chunk, end, flood, gate, head
from support.hanging import hang_limit
from support.merged import Merged, begun, merged, path_of, whole
from support.raw import RawClient, parse
from support.running import Serve

TOKEN = chat_token("tok")


async def test_whoever_reads_it_keeps_a_stream_alive(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"grace_s": 0.1})
    fake.script(head(), chunk(chat_role() + TOKEN), gate("more"), *chat_answer()[1:])
    async with RawClient(edge.port) as reader:
        async with RawClient(edge.port) as client:
            stream = await begun(client)
            await reader.get(path_of([stream]))
            await reader.until(b"tok")
        exchange = edge.edge.registry.streams[stream]
        while exchange.generation.readers > 1:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # only time can show that nothing happens
        fake.open("more")
        answer = await reader.answer()
    assert answer.clean
    record = await edge.record()
    assert (record["outcome"], record["reconnections"]) == ("complete", 1)
    (returned,) = await edge.lines.wait("returned")
    assert (returned["stream_id"], returned["reader"], returned["source"]) == (stream, "finished", "live")
    assert returned["bytes_out"] > 0


async def test_once_it_has_gone_as_well_the_grace_runs_out(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"grace_s": 0.1})
    fake.script(head(), chunk(chat_role() + TOKEN), gate("never"))
    async with RawClient(edge.port) as reader, RawClient(edge.port) as client:
        stream = await begun(client)
        await reader.get(path_of([stream]))
        await reader.until(b"tok")
    assert (await edge.record())["outcome"] == "client_gone"
    assert (await edge.lines.wait("returned"))[0]["reader"] == "gone"


async def test_silence_is_filled_with_heartbeats(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"heartbeat_s": 0.05})
    fake.script(head(), chunk(chat_role() + TOKEN), gate("more"), *chat_answer()[1:])
    async with RawClient(edge.port) as client, RawClient(edge.port) as reader:
        stream = await begun(client)
        await reader.get(path_of([stream]))
        while reader.buffer.count(b": ping\n") < 3:
            await reader.receive()
        fake.open("more")
        answer = await reader.answer()
    read = Merged()
    read.read(answer.body)
    assert answer.clean
    assert read.data[stream] == await whole(edge, stream)


async def test_a_slow_reader_of_a_fast_stream_delays_nobody(serve: Serve, fake: FakeModel) -> None:
    """It is told that it lost the fast one, and gets all of the other."""
    bounds = {"buffer_bytes": 65536, "journal_bytes": 65536}
    edge = await serve(stream=bounds)
    size = 12_000_000
    fake.script(head(), chunk(chat_role()), flood(size, TOKEN), *(chunk(event) for event in chat_events(())[1:]), end())
    fake.script(head(), chunk(chat_role() + TOKEN), gate("more"), *chat_answer()[1:])
    async with RawClient(edge.port) as fast, RawClient(edge.port) as calm, RawClient(edge.port, 4096) as slow:
        fast_one = await begun(fast)
        calm_one = await begun(calm)
        await slow.get(path_of([fast_one, calm_one]))
        await slow.until(b"\r\n\r\n")  # and reads no more
        got = 0
        async with hang_limit():
            while b"[DONE]" not in (data := await asyncio.get_running_loop().sock_recv(fast.sock, 1 << 18)):
                got += len(data)
        assert got > size
        merging = next(owned for owned in edge.edge.registry if "ResumeMany" in repr(owned))
        assert merging._mux.journal.statistics().peak < 4 * bounds["buffer_bytes"]  # type: ignore[attr-defined]
        fake.open("more")
        assert (await calm.answer()).clean
        await edge.lines.wait("exchange", 2)
        told = await slow.answer()
    assert told.clean
    read = Merged()
    read.read(told.body)
    assert read.errors[fast_one]["error"]["code"] == "stream_gone"
    assert read.data[calm_one] == await whole(edge, calm_one)
    assert read.done == 1


async def test_streams_at_full_speed_take_turns(serve: Serve, fake: FakeModel) -> None:
    """A reader that cannot keep up with any of them still hears of all."""
    edge = await serve(stream={"buffer_bytes": 65536})
    for _ in range(3):
        fake.script(head(), chunk(chat_role()), flood(10**12, TOKEN))
    async with RawClient(edge.port) as one, RawClient(edge.port) as two, RawClient(edge.port) as three:
        streams = [await begun(client) for client in (one, two, three)]
        for client in (one, two, three):
            client.reset()
        async with RawClient(edge.port) as reader:
            await reader.get(path_of(streams))
            while len(reader.buffer) < 3_000_000:
                await reader.receive()
            read = Merged()
            answer = parse(reader.buffer)
            assert answer is not None
            read.read(answer.body)
    counts = [len(read.data[stream]) for stream in streams]
    assert min(counts) > sum(counts) / 10
    for stream in streams:
        edge.edge.registry.streams[stream].shut_down()


async def test_many_are_read_at_once(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    clients = [RawClient(edge.port) for _ in range(64)]
    streams = []
    for client in clients:
        fake.script(*chat_answer())
        async with client:
            streams.append(await begun(client))
    read, answer = await merged(edge, streams)
    assert answer.clean
    assert set(read.ends) == set(streams)
    assert {tuple(read.texts(stream)) for stream in streams} == {
        tuple(data for _, data in await whole(edge, streams[0]))
    }
