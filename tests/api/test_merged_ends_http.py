"""What is told of streams that cannot be read, or not any further, over a connection that they share with others."""

import re

import pytest
from fakes.model_server import FakeModel, chat_answer, chat_role, chat_token
from fakes.steps import chunk, gate, head
from support.merged import RESUME, Merged, begun, finished, merged, path_of
from support.raw import CHAT, RawClient, chat_body
from support.running import Running, Serve
from support.shapes import assert_told, get

from edge.protocol.mux_events import MuxFormat
from edge.store.memory.streams import MemoryStreams
from edge.store.ports import LOST, StoreDown, StreamMeta, Stretch, lost

UNKNOWN = f"st_{'0' * 32}"
KEYS = {"keys": ["one-long-enough-key-0001", "two-long-enough-key-0002"]}
TOKEN = b'data: {"n":1}\n\n'


def elsewhere(edge: Running, stream: str = f"st_{'e' * 32}") -> StreamMeta:
    """That of a stream which another process generates."""
    return StreamMeta(stream, "anonymous", "chat", "m", None, "req_e", edge.edge.archive.clock(), 100_000)


async def test_unknown_and_foreign_streams_are_told_alike_and_before_the_status(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    mine, other = ({"Authorization": f"Bearer {key}"} for key in KEYS["keys"])
    fake.script(*chat_answer())
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), {**RESUME, **mine})
        stream = (await client.answer()).headers["x-stream-id"]
    await edge.record()
    foreign = await get(edge.port, path_of([stream]), other)
    assert_told(foreign, 404, CHAT, "stream_not_found")
    unknown = await get(edge.port, path_of([UNKNOWN]), other)
    assert unknown.body == foreign.body.replace(stream.encode(), UNKNOWN.encode())
    assert (await get(edge.port, path_of([stream, UNKNOWN]), mine)).status == 404
    assert (await get(edge.port, path_of([stream]), mine)).status == 200


async def test_one_that_has_expired_meanwhile_does_not_stop_the_others(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await finished(edge, fake, chat_answer())
    answer = await get(edge.port, path_of([UNKNOWN, stream]), {"Last-Event-ID": f"{UNKNOWN}:7,{stream}:2"})
    read = Merged()
    read.data[stream] = [(None, "seen"), (None, "seen")]
    read.read(answer.body)
    assert answer.clean
    assert read.errors[UNKNOWN]["error"]["code"] == "stream_not_found"
    assert read.ends[stream]["outcome"] == "complete"
    assert read.last_id == f"{UNKNOWN}:end,{stream}:end,done"


async def test_one_that_cannot_be_resumed_does_not_stop_the_others(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await finished(edge, fake, chat_answer())
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("never"))
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        single = next(iter(edge.edge.registry.streams))
        read, answer = await merged(edge, [single, stream])
    assert answer.clean
    assert read.errors[single]["error"]["code"] == "stream_not_kept"
    assert read.ends[stream]["outcome"] == "complete"


async def test_what_is_no_longer_kept_is_told_and_never_left_out(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"journal_bytes": 2048})
    stream = await finished(edge, fake, chat_answer([f"{n:0100}" for n in range(100)]))
    other = await finished(edge, fake, chat_answer())
    read, answer = await merged(edge, [stream, other])
    assert answer.clean
    assert read.errors[stream]["error"]["code"] == "stream_gone"
    assert not read.data[stream]
    assert read.ends[other]["outcome"] == "complete"
    assert read.done == 1


async def test_that_all_have_ended_is_told_though_the_cut_came_before_it(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await finished(edge, fake, chat_answer())
    read, _ = await merged(edge, [stream])
    before = read.last_id.removesuffix(",done")
    assert before == f"{stream}:end"
    answer = await get(edge.port, path_of([stream]), {"Last-Event-ID": before})
    assert answer.body == f'retry: 1000\nid: {before},done\nevent: done\ndata: {{"streams":1}}\n\n'.encode()
    assert (await get(edge.port, path_of([stream]), {"Last-Event-ID": f"{before},done"})).status == 204
    assert (await get(edge.port, path_of([stream], f"&cursor={before},done"))).status == 204


async def test_a_stream_may_join_those_that_are_followed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    one, two = [await finished(edge, fake, chat_answer()) for _ in range(2)]
    read, _ = await merged(edge, [one])
    read.read((await get(edge.port, path_of([one, two], f"&cursor={read.last_id}"))).body)
    assert read.data[one] == read.data[two]
    assert read.done == 2
    assert read.last_id == f"{one}:end,{two}:end,done"


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("follow=1", "ids"),
        ("follow=1&ids=", "ids"),
        ("follow=perhaps&ids={0}", "follow"),
        ("follow=1&ids={0},{0}", "ids"),
        ("follow=1&ids=" + ",".join(f"st_{n:032x}" for n in range(65)), "ids"),
        ("follow=1&ids={0}&starting_after=2", "starting_after"),
        ("follow=1&ids={0}&cursor=nonsense", "cursor"),
        ("follow=1&ids={0}&cursor={0}:1,{0}:2", "cursor"),
        ("follow=1&ids={0}&cursor=done", "cursor"),
        ("follow=1&ids={0}&cursor={0}:99", "cursor"),
    ],
)
async def test_a_request_that_cannot_be_meant_is_refused(serve: Serve, fake: FakeModel, query: str, param: str) -> None:
    edge = await serve()
    stream = await finished(edge, fake, chat_answer())
    answer = await get(edge.port, f"/v1/streams?{query.format(stream)}")
    assert_told(answer, 400, CHAT)
    assert answer.json["error"]["param"] == param


async def test_a_stream_of_another_process_is_followed_to_its_end(serve: Serve) -> None:
    edge = await serve()
    meta = elsewhere(edge)
    log = edge.edge.archive.memory.begin(meta)
    log.append(TOKEN, 1)
    async with RawClient(edge.port) as client:
        await client.get(path_of([meta.id]))
        await client.until(b'"seq":1')
        log.append(TOKEN * 2, 2)
        await client.until(b'"seq":3')
        log.end(lost(edge.edge.archive.clock()), "up", 0, lambda _: None)
        answer = await client.answer()
    read = Merged()
    read.read(answer.body)
    assert answer.clean
    assert len(read.data[meta.id]) == 3
    assert read.ends[meta.id]["outcome"] == "shutdown"
    assert read.ends[meta.id]["error"]["message"] == LOST[0]


class Failing(MemoryStreams):
    """A store that goes away."""

    down = False

    async def read(self, stream_id: str, after: int, most: int) -> list[Stretch]:
        if self.down:
            raise StoreDown
        return await super().read(stream_id, after, most)


async def test_a_store_that_fails_cuts_the_connection_so_that_the_reader_comes_back(serve: Serve) -> None:
    edge = await serve()
    store = edge.edge.archive.memory = Failing(edge.edge.settings.store)
    meta = elsewhere(edge)
    log = store.begin(meta)
    log.append(TOKEN, 1)
    async with RawClient(edge.port) as client:
        await client.get(path_of([meta.id]))
        await client.until(b'"seq":1')
        store.down = True
        log.append(TOKEN, 1)
        answer = await client.answer()
    assert not answer.clean
    read = Merged()
    read.read(answer.body)
    assert read.errors[meta.id]["error"]["code"] == "store_unavailable"
    assert read.last_id == f"{meta.id}:1"
    assert not read.ends
    store.down = False
    log.end(lost(edge.edge.archive.clock()), "up", 0, lambda _: None)
    read.read((await get(edge.port, path_of([meta.id]), {"Last-Event-ID": read.last_id})).body)
    assert len(read.data[meta.id]) == 2
    assert read.done == 1


async def test_a_bug_of_ours_is_told_and_does_no_harm_to_the_streams(
    serve: Serve, fake: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    edge = await serve()
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), *chat_answer()[1:])
    async with RawClient(edge.port) as client, RawClient(edge.port) as reader:
        stream = await begun(client)
        await reader.get(path_of([stream]))
        await reader.until(b"tok")
        monkeypatch.setattr(MuxFormat, "events", broken)
        fake.open("more")
        assert not (told := await reader.answer()).clean
        assert (await client.answer()).clean
    assert re.search(rb'event: error\ndata: \{"stream":null,"error":\{.*"code":"internal_error"\}\}\n\n$', told.body)
    assert (await edge.record())["outcome"] == "complete"
    await edge.expect_bug()


async def test_an_edge_that_leaves_cuts_what_is_generated_elsewhere(serve: Serve) -> None:
    edge = await serve(server={"drain_s": 0.1})
    meta = elsewhere(edge)
    edge.edge.archive.memory.begin(meta).append(TOKEN, 1)
    async with RawClient(edge.port) as client:
        await client.get(path_of([meta.id]))
        await client.until(b'"seq":1')
        await edge.stop()
        answer = await client.answer()
    assert not answer.clean
    read = Merged()
    read.read(answer.body)
    assert read.errors[None]["error"]["code"] == "shutting_down"
    assert read.last_id == f"{meta.id}:1"


async def test_an_edge_that_leaves_tells_how_its_own_streams_ended(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(server={"drain_s": 0.1})
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("never"))
    async with RawClient(edge.port) as client, RawClient(edge.port) as reader:
        stream = await begun(client)
        await reader.get(path_of([stream]))
        await reader.until(b"tok")
        await edge.stop()
        answer = await reader.answer()
    read = Merged()
    read.read(answer.body)
    assert answer.clean
    assert read.ends[stream]["outcome"] == "shutdown"
    assert read.done == 1


async def test_the_list_can_be_asked_for_some(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    one, two, three = [await finished(edge, fake, chat_answer()) for _ in range(3)]
    answer = await get(edge.port, f"/v1/streams?ids={three},{UNKNOWN},nonsense,{one}")
    assert [stream["id"] for stream in answer.json["data"]] == [three, one]
    assert {stream["id"] for stream in (await get(edge.port, "/v1/streams")).json["data"]} == {one, two, three}
