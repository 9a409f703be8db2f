"""Many readers of one stream, each at its own pace: none waits for another, and what they lag by is bounded."""

import asyncio

from fakes.model_server import FakeModel, chat_token, chunk, end, flood, gate
from support.hanging import hang_limit
from support.raw import Answer, RawClient, parse
from support.resumed import CHAT_CASE, RESUME, bare, ended, opened, pieces, readers, resumed, sequences
from support.running import Running, Serve

TOKEN = chat_token("x" * 200)
MANY = 50


async def attached(edge: Running, stream: str, client: RawClient, after: int = 0) -> None:
    count = edge.edge.registry.streams[stream].generation.readers
    await client.get(f"/v1/streams/{stream}?starting_after={after}")
    await readers(edge, stream, count + 1)


async def all_of(client: RawClient) -> Answer:
    """A long answer to its end; ``RawClient.answer`` looks at all of it again with each read."""
    got = bytearray(client.buffer)
    loop = asyncio.get_running_loop()
    async with hang_limit():
        while not got.endswith(b"\r\n0\r\n\r\n"):
            data = await loop.sock_recv(client.sock, 1 << 18)
            assert data
            got += data
    answer = parse(bytes(got))
    assert answer is not None
    return answer


async def test_many_readers_get_the_same_at_once(serve: Serve, fake: FakeModel) -> None:
    """Each token is with all of them before the next one is there."""
    names = [f"token-{number}" for number in range(10)]
    steps = [step for name in names for step in (gate(name), chunk(chat_token(name)))]
    fake.script(*CHAT_CASE.begins(*steps, chunk(CHAT_CASE.says.ending), end()))
    edge = await serve()
    async with RawClient(edge.port) as first:
        stream = await opened(edge, CHAT_CASE, first)
        clients = [await RawClient(edge.port).__aenter__() for _ in range(MANY)]
        for number, client in enumerate(clients):
            await attached(edge, stream, client, number % 3)
        for name in names:
            fake.open(name)
            await asyncio.gather(*(client.until(name.encode()) for client in (first, *clients)))
        whole = await first.answer()
        rests = await asyncio.gather(*(client.answer() for client in clients))
    events = pieces(CHAT_CASE, whole.body)
    for number, rest in enumerate(rests):
        assert rest.body == b"".join(events[number % 3 :])
    assert (await edge.record())["reconnections"] == MANY
    for client in clients:
        client.close()


async def test_one_that_reads_nothing_delays_nobody_and_is_cut_when_what_it_lacks_is_gone(
    serve: Serve, fake: FakeModel
) -> None:
    """And the memory that it costs is bounded meanwhile."""
    kept, buffer = 256 * 1024, 64 * 1024
    fake.script(*CHAT_CASE.begins(gate("more"), flood(3 * 2**20, TOKEN), chunk(CHAT_CASE.says.ending), end()))
    edge = await serve(stream={"journal_bytes": kept, "buffer_bytes": buffer, "client_stall_s": 30})
    async with RawClient(edge.port) as quick, RawClient(edge.port, receive_buffer=4096) as slow:
        stream = await opened(edge, CHAT_CASE, quick)
        await attached(edge, stream, slow)
        await slow.until(b"tok")
        generation = edge.edge.registry.streams[stream].generation
        fake.open("more")
        whole = await all_of(quick)
        peak = generation.journal.statistics().peak
        cut = await slow.answer()
    assert whole.clean
    assert (cut.clean, cut.ending) == (False, "reset")
    seen = sequences(cut.body)
    assert seen == list(range(1, len(seen) + 1))
    assert len(cut.body) < 2**20
    assert peak < kept + 2 * buffer + 64 * 1024
    assert (await resumed(edge, stream, len(seen))).status == 410
    (line,) = await edge.lines.wait("returned")
    assert line["reader"] == "stalled"


async def test_all_that_lag_hold_the_model_back_and_one_that_catches_up_lets_it_go_on(
    serve: Serve, fake: FakeModel
) -> None:
    """As with one reader: no more is read from the model server than the furthest of them can be told."""
    fake.script(*CHAT_CASE.begins(flood(3 * 2**20, TOKEN), chunk(CHAT_CASE.says.ending), end()))
    edge = await serve(stream={"buffer_bytes": 64 * 1024, "journal_bytes": 2**20, "client_stall_s": 30})
    async with RawClient(edge.port, receive_buffer=4096) as first, RawClient(edge.port, receive_buffer=4096) as second:
        stream = await opened(edge, CHAT_CASE, first)
        await attached(edge, stream, second)
        generation = edge.edge.registry.streams[stream].generation
        await edge.wait(lambda: generation._paused)
        held = generation.journal.statistics().held
        assert held < 2 * 2**20
        whole = await all_of(first)
        assert whole.clean
    await ended(edge, stream)
    record = await edge.record()
    assert record["pauses"] > 0
    assert record["outcome"] == "complete"


async def test_one_that_nobody_reads_is_not_held_back(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.begins(gate("more"), flood(4 * 2**20, TOKEN), chunk(CHAT_CASE.says.ending), end()))
    edge = await serve(stream={"buffer_bytes": 64 * 1024, "journal_bytes": 64 * 1024})
    async with RawClient(edge.port) as client:
        stream = await opened(edge, CHAT_CASE, client)
    await readers(edge, stream, 0)
    generation = edge.edge.registry.streams[stream].generation
    fake.open("more")
    await ended(edge, stream)
    record = await edge.record()
    assert (record["outcome"], record["pauses"]) == ("complete", 0)
    assert generation.journal.statistics().peak < 320 * 1024
    assert (await resumed(edge, stream)).status == 410
    last = generation.journal.last
    assert bare((await resumed(edge, stream, last - 2)).body).endswith(b"data: [DONE]\n\n")


async def test_a_reader_that_stalled_may_come_back_where_it_was(serve: Serve, fake: FakeModel) -> None:
    """Cut for taking nothing: the stream goes on for its grace, and nothing of what is kept is lost."""
    fake.script(*CHAT_CASE.begins(flood(300_000, TOKEN), gate("more"), chunk(CHAT_CASE.says.ending), end()))
    edge = await serve(stream={"client_stall_s": 60, "inter_token_s": 10_000})
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT_CASE.path, CHAT_CASE.body, RESUME)
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
        generation = edge.edge.registry.streams[stream].generation
        await edge.later(lambda: not generation.readers, 15)
        cut = await client.answer()
    assert cut.ending == "reset"
    seen = sequences(cut.body[: cut.body.rfind(b"\n\n") + 2])
    async with RawClient(edge.port) as client:
        await attached(edge, stream, client, seen[-1])
        fake.open("more")
        rest = await client.answer()
    assert rest.clean
    assert sequences(rest.body)[0] == seen[-1] + 1
    record = await edge.record()
    assert (record["outcome"], record["reader"]) == ("complete", "stalled")
