"""Several streams over one connection: whole, each event with its stream, and to be come back to like one."""

import pytest
from fakes.answers import chat_events
from fakes.model_server import FakeModel, chat_answer, chat_role, chat_token, messages_answer
from fakes.steps import chunk, end, gate, head, rst
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.merged import Merged, begun, finished, path_of, whole
from support.raw import MESSAGES, Answer, RawClient, chat_body, parse
from support.running import Serve
from support.shapes import EVERY_SURFACE, get, valid_body

OLLAMA = "/api/chat"
UNKNOWN = f"st_{'0' * 32}"
LIVE = [
    head(),
    chunk(chat_role() + chat_token("one")),
    gate("more"),
    *(chunk(event) for event in chat_events(("two",))[1:]),
    end(),
]


async def test_streams_of_all_kinds_come_whole_each_with_its_own_end(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    chat = await finished(edge, fake, chat_answer())
    messages = await finished(edge, fake, messages_answer(), MESSAGES, valid_body(MESSAGES, stream=True))
    lines = await finished(edge, fake, chat_answer(), OLLAMA, chat_body())
    broken = await finished(edge, fake, [head(), chunk(chat_role() + chat_token("tok")), rst()])
    fake.script(*LIVE)
    async with RawClient(edge.port) as client, RawClient(edge.port) as reader:
        live = await begun(client)
        streams = [chat, live, messages, lines, broken]
        await reader.get(path_of(streams))
        while reader.buffer.count(b"event: end") < 4:
            await reader.receive()
        fake.open("more")
        answer = await reader.answer()
    assert answer.clean
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-cache"
    read = Merged()
    read.read(answer.body)
    assert read.done == 1
    assert not read.errors
    for stream in streams:
        assert read.data[stream] == await whole(edge, stream)
    assert {stream: told["outcome"] for stream, told in read.ends.items()} == {
        **dict.fromkeys(streams, "complete"), broken: "upstream_cut",
    }  # fmt: skip
    assert read.ends[broken]["error"]["code"] == "upstream_cut"
    assert "error" not in read.ends[chat]
    assert read.data[messages][0][0] == "message_start"
    again = await get(edge.port, path_of(streams), {"Last-Event-ID": read.last_id})
    assert (again.status, again.body) == (204, b"")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 6000), max_size=8))
async def test_however_often_it_is_cut_each_stream_is_whole(serve: Serve, fake: FakeModel, cuts: list[int]) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    streams = [
        await finished(edge, fake, chat_answer(("a", "b\n", "c"))),
        await finished(edge, fake, messages_answer(), MESSAGES, valid_body(MESSAGES, stream=True)),
        await finished(edge, fake, chat_answer(), OLLAMA, chat_body()),
    ]
    read = Merged()
    for cut in cuts:
        answer = await cut_off(edge.port, path_of(streams), read.last_id, cut)
        if answer.status == 204:
            break
        read.read(answer.body)
    while True:
        answer = await get(edge.port, path_of(streams), {"Last-Event-ID": read.last_id} if read.last_id else None)
        if answer.status == 204:
            break
        assert answer.clean
        read.read(answer.body)
    assert read.done == 1
    assert [read.data[stream] for stream in streams] == [await whole(edge, stream) for stream in streams]
    assert set(read.ends) == set(streams)


def whole_yet(client: RawClient) -> bool:
    answer = parse(client.buffer)
    return answer is not None and answer.clean


async def cut_off(port: int, path: str, last_id: str, most: int) -> Answer:
    """Read that many bytes, and go."""
    async with RawClient(port) as client:
        await client.get(path, {"Last-Event-ID": last_id} if last_id else None)
        await client.until(b"\r\n\r\n")
        while len(client.buffer) < most and not whole_yet(client):
            await client.receive()
        client.reset()
    head_ends = client.buffer.index(b"\r\n\r\n") + 4
    answer = parse(client.buffer[: max(head_ends, most)])
    assert answer is not None
    return answer


async def test_a_cut_in_the_middle_of_live_streams_loses_nothing(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    fake.script(*LIVE)
    fake.script(*LIVE)
    read = Merged()
    async with RawClient(edge.port) as one, RawClient(edge.port) as two:
        streams = [await begun(one), await begun(two)]
        async with RawClient(edge.port) as reader:
            await reader.get(path_of(streams))
            while reader.buffer.count(b'\\"one\\"') < 2:
                await reader.receive()
            read.read((parse(reader.buffer) or pytest.fail("no head")).body)
        fake.open("more")
        answer = await get(edge.port, path_of(streams), {"Last-Event-ID": read.last_id})
    assert answer.clean
    read.read(answer.body)
    assert [read.data[stream] for stream in streams] == [await whole(edge, stream) for stream in streams]
    assert read.done == 1
