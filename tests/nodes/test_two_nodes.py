"""A reader may come back to another node than the one that generates, live; and stop it there."""

import asyncio

import pytest
from fakes.answers import chat_events
from fakes.model_server import FakeModel
from fakes.steps import chat_answer, chunk, end, gate, head, rst, stall
from support.eventsource import Event, parsed
from support.hanging import hang_limit
from support.raw import CHAT, Answer, RawClient, ask, chat_body
from support.resumed import KEYS, ONE, TWO
from support.running import Running, Serve
from support.sessions import kept, said
from support.shapes import assert_told, get

RESUME = {"x-edge-resume": "1"}
WORDS = ["one", " two", " three", " four"]
STREAM = "/v1/chat/stream"

Store = dict[str, str]


def datas(events: list[Event]) -> list[str]:
    return [event.data for event in events]


def sent(words: list[str]) -> list[str]:
    """The data of the events that a client gets which has not asked for usage."""
    told = [event for event in chat_events(words) if b'"choices":[]' not in event]
    return [event.removeprefix(b"data: ").strip().decode() for event in told]


async def shown(edge: Running, stream: str) -> dict[str, object]:
    (one,) = [one for one in (await get(edge.port, "/v1/streams")).json["data"] if one["id"] == stream]
    return dict(one)


async def test_a_reader_goes_on_at_another_node_while_the_first_generates(
    serve: Serve, fake: FakeModel, store: Store
) -> None:
    events = chat_events(WORDS)
    fake.script(head(), chunk(b"".join(events[:3])), gate("more"), chunk(b"".join(events[3:])), end())
    first, second = await serve(store=store), await serve(store=store)
    async with RawClient(first.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await client.until(b" two")
        stream = next(iter(first.edge.registry.streams))
    async with RawClient(second.port) as client:
        await client.get(f"/v1/streams/{stream}", {"Last-Event-ID": f"{stream}:2"})
        await client.until(b" two")
        assert (await shown(second, stream))["state"] == "live"
        fake.open("more")
        answer = await client.answer()
    assert answer.clean
    assert datas(parsed(answer.body).events) == sent(WORDS)[2:]
    for node in (first, second):
        whole = await get(node.port, f"/v1/streams/{stream}")
        assert datas(parsed(whole.body).events) == sent(WORDS)
        last = {"Last-Event-ID": parsed(whole.body).last_id}
        assert (await get(node.port, f"/v1/streams/{stream}", last)).status == 204
    assert len(fake.requests) == 1


async def test_a_stream_can_be_stopped_at_any_node(serve: Serve, fake: FakeModel, store: Store) -> None:
    fake.script(head(), chunk(b"".join(chat_events(WORDS)[:3])), gate("held"), stall())
    first, second = await serve(store=store), await serve(store=store)
    async with RawClient(first.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await client.until(b" two")
        stream = next(iter(first.edge.registry.streams))
        told = await get(second.port, f"/v1/streams/{stream}", method="DELETE")
        answer = await client.answer()
    assert (told.status, told.json["outcome"]) == (200, "stopped")
    assert (answer.ending, parsed(answer.body).events[-1].json["error"]["code"]) == ("reset", "stopped")
    async with hang_limit():
        await fake.requests[0].left()


async def test_a_failed_stream_fails_for_a_reader_at_another_node_once(
    serve: Serve, fake: FakeModel, store: Store
) -> None:
    fake.script(head(), chunk(b"".join(chat_events(WORDS)[:3])), rst())
    first, second = await serve(store=store), await serve(store=store)
    whole = await ask(first.port, CHAT, chat_body(), RESUME)
    stream = whole.headers["x-stream-id"]
    again = await get(second.port, f"/v1/streams/{stream}")
    assert (again.ending, again.body) == ("reset", whole.body)
    last = {"Last-Event-ID": parsed(again.body).last_id}
    assert (await get(second.port, f"/v1/streams/{stream}", last)).status == 204


async def test_what_one_node_kept_is_there_after_it_has_gone(serve: Serve, fake: FakeModel, store: Store) -> None:
    first = await serve(store=store)
    whole = await ask(first.port, CHAT, chat_body(), RESUME)
    await said(first, "hi")
    await first.stop()
    second = await serve(store=store)
    again = await get(second.port, f"/v1/streams/{whole.headers['x-stream-id']}")
    assert again.body == whole.body
    assert [turn["content"] for turn in await kept(second)] == ["hi", "Hello there"]


async def test_who_has_seen_the_end_reads_the_session_at_every_node(
    serve: Serve, fake: FakeModel, store: Store
) -> None:
    first, second = await serve(store=store), await serve(store=store)
    for number in range(10):
        session = f"s{number}"
        if number % 2:
            await said(first, session_id=session)
        else:
            assert (await get(first.port, f"/stream?prompt=hi&session_id={session}")).clean
        turns = await kept(second, session)
        assert [turn["content"] for turn in turns] == ["hi", "Hello there"]
    for number in range(10):
        fake.script(head(), chunk(chat_events(WORDS)[0] + chat_events(WORDS)[1]), rst())
        await ask(first.port, STREAM, {"message": "hi", "session_id": f"b{number}"})
        assert [turn.get("partial") for turn in await kept(second, f"b{number}")] == [None, True]


async def test_another_principals_stream_is_unknown_at_every_node(serve: Serve, fake: FakeModel, store: Store) -> None:
    auth = {"keys": ["first-key-of-two", "second-key-of-two"]}
    first, second = await serve(store=store, auth=auth), await serve(store=store, auth=auth)
    mine = await ask(first.port, CHAT, chat_body(), {**RESUME, "x-api-key": "first-key-of-two"})
    answers: list[Answer] = []
    for stream in (mine.headers["x-stream-id"], f"st_{0:032}"):
        for method in ("GET", "DELETE"):
            answer = await get(second.port, f"/v1/streams/{stream}", {"x-api-key": "second-key-of-two"}, method)
            assert_told(answer, 404, CHAT, "stream_not_found")
            answers.append(answer)
    assert {answer.body.replace(mine.headers["x-stream-id"].encode(), b"ID") for answer in answers[:2]} == {
        answer.body.replace(f"st_{0:032}".encode(), b"ID") for answer in answers[2:]
    }
    assert (await get(second.port, "/v1/streams", {"x-api-key": "second-key-of-two"})).json["data"] == []


@pytest.mark.parametrize("busy", ["wait", "conflict"])
async def test_one_node_at_a_time_speaks_in_a_session(serve: Serve, fake: FakeModel, store: Store, busy: str) -> None:
    fake.script(head(), chunk(chat_events(WORDS)[0]), gate("held"), chunk(b"".join(chat_events(WORDS)[1:])), end())
    fake.script(*chat_answer(["and more"]))
    first, second = (await serve(store=store, sessions={"busy": busy}) for _ in range(2)), None
    one = await anext(first)
    second = await anext(first)
    async with RawClient(one.port) as client:
        await client.post(STREAM, {"message": "hi"})
        await fake.reached("held")
        if busy == "conflict":
            assert_told(await ask(second.port, STREAM, {"message": "and?"}), 409, STREAM, "session_busy")
            fake.open("held")
            await client.answer()
            return
        waiting = asyncio.create_task(said(second, "and?"))
        fake.open("held")
        await client.answer()
        await waiting
    asked = [(message["role"], message["content"]) for message in fake.requests[1].json["messages"]]
    assert asked == [("user", "hi"), ("assistant", "".join(WORDS)), ("user", "and?")]


async def test_what_is_gone_is_gone_for_every_node_and_for_nobody_else(
    serve: Serve, fake: FakeModel, store: Store
) -> None:
    fake.script(*chat_answer(WORDS))
    first, second = [await serve(store={**store, "keep_s": 1}, auth=KEYS) for _ in range(2)]
    status = 0
    async with hang_limit():
        while status != 410:  # it is told for a second; a machine that was busy for so long has another try
            stream = (await ask(first.port, CHAT, chat_body(), RESUME | ONE)).headers["x-stream-id"]
            path = f"/v1/streams/{stream}"
            while (here := await get(second.port, path, ONE)).status == 200:
                pass
            there = await get(first.port, path, ONE)
            others = await get(second.port, path, TWO)
            status = (await get(second.port, path, ONE)).status
            assert status in (410, 404)
        assert_told(here, 410, CHAT, "stream_gone")
        assert_told(there, 410, CHAT, "stream_gone")
        assert_told(others, 404, CHAT, "stream_not_found")
        while (answer := await get(second.port, path, ONE)).status == 410:
            pass
    assert_told(answer, 404, CHAT, "stream_not_found")
