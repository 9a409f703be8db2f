"""Whose turn it is: requests at once on one session, readers that come back, and Edge leaving in the middle."""

import asyncio
import contextlib
from typing import Any

import pytest
from fakes.model_server import FakeModel, chat_answer, chat_events, chunk, end, gate, rst, stall
from support.eventsource import Browser, parsed
from support.faults import assert_silent
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.sessions import BEGUN, STREAM, asked, kept, said, settled, text_of
from support.shapes import assert_told, get

from edge.exchange import sessions
from edge.settings import Sessions as SessionSettings
from edge.store.memory.sessions import MemorySessions
from edge.store.ports import Turn

SECOND = {"message": "second"}


def held(fake: FakeModel) -> None:
    """An answer that stands still after its first token until its gate is open."""
    fake.script(*BEGUN, gate("more"), chunk(b"".join(chat_events(["en"])[1:])), end())


async def waiting(edge: Running, client: RawClient) -> None:
    """Edge has the request, and does not answer it yet."""
    await assert_silent(edge, client)


async def test_a_second_request_waits_for_the_first_and_knows_what_was_said(serve: Serve, fake: FakeModel) -> None:
    held(fake)
    edge = await serve()
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await first.post(STREAM, {"message": "first"})
        await fake.reached("more")
        await second.post(STREAM, SECOND)
        await waiting(edge, second)
        assert len(fake.requests) == 1
        fake.open("more")
        assert text_of(await first.answer()) == "token"
        assert (await second.answer()).clean
    assert asked(fake) == [("user", "first"), ("assistant", "token"), ("user", "second")]
    first_record, second_record = await edge.lines.wait("exchange", 2)
    assert second_record["queued_s"] > first_record["queued_s"]


async def test_those_that_wait_are_served_in_their_order(serve: Serve, fake: FakeModel) -> None:
    held(fake)
    edge = await serve()
    async with RawClient(edge.port) as first, RawClient(edge.port) as second, RawClient(edge.port) as third:
        await first.post(STREAM, {"message": "first"})
        await fake.reached("more")
        await second.post(STREAM, SECOND)
        await waiting(edge, second)
        await third.post(STREAM, {"message": "third"})
        await waiting(edge, third)
        fake.open("more")
        assert [(await client.answer()).clean for client in (first, second, third)] == [True] * 3
    assert [asked(fake, index)[-1][1] for index in range(3)] == ["first", "second", "third"]
    assert len(asked(fake)) == 5


async def test_one_that_leaves_while_it_waits_is_forgotten(serve: Serve, fake: FakeModel) -> None:
    held(fake)
    edge = await serve()
    async with RawClient(edge.port) as first, RawClient(edge.port) as third:
        async with RawClient(edge.port) as second:
            await first.post(STREAM, {"message": "first"})
            await fake.reached("more")
            await second.post(STREAM, SECOND)
            await waiting(edge, second)
        await third.post(STREAM, {"message": "third"})
        await waiting(edge, third)
        fake.open("more")
        assert (await first.answer()).clean
        assert (await third.answer()).clean
    assert [asked(fake, index)[-1][1] for index in range(len(fake.requests))] == ["first", "third"]
    assert len(edge.edge.sessions._locks) == 0


async def test_sessions_do_not_wait_for_one_another(serve: Serve, fake: FakeModel) -> None:
    held(fake)
    edge = await serve()
    async with RawClient(edge.port) as first:
        await first.post(STREAM, {"message": "first", "session_id": "a"})
        await fake.reached("more")
        assert text_of(await said(edge, session_id="b")) == "Hello there"
        fake.open("more")
        assert (await first.answer()).clean


async def test_where_nobody_is_to_wait_the_second_is_refused(serve: Serve, fake: FakeModel) -> None:
    held(fake)
    edge = await serve(sessions={"busy": "conflict"})
    async with RawClient(edge.port) as first:
        await first.post(STREAM, {"message": "first"})
        await fake.reached("more")
        assert_told(await ask(edge.port, STREAM, SECOND), 409, STREAM, "session_busy")
        assert_told(await get(edge.port, "/v1/sessions/default", method="DELETE"), 409, STREAM, "session_busy")
        fake.open("more")
        assert (await first.answer()).clean
    await settled(edge)
    await said(edge, "second")
    assert len(asked(fake)) == 3


async def test_what_is_being_said_does_not_bring_back_a_session_that_is_forgotten(
    serve: Serve, fake: FakeModel
) -> None:
    held(fake)
    edge = await serve()
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await first.post(STREAM, {"message": "first"})
        await fake.reached("more")
        await second.get("/v1/sessions/default", method="DELETE")
        await waiting(edge, second)
        fake.open("more")
        assert (await first.answer()).clean
        assert (await second.answer()).status == 204
    assert await kept(edge) == []


async def test_a_failed_request_lets_the_next_one_have_the_session(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(sessions={"busy": "conflict"})
    fake.script(rst())
    fake.script(rst())
    assert not (await ask(edge.port, STREAM, {"message": "first"})).clean
    edge.edge.fleet.members[0].up = True
    await settled(edge)
    await said(edge, "second")


# --- readers that come back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("ending", ["complete", "cut", "unknown"])
async def test_a_reader_with_an_id_never_makes_the_model_work_again(
    serve: Serve, fake: FakeModel, method: str, ending: str
) -> None:
    scripts = {"complete": chat_answer(["x"]), "cut": [*BEGUN, rst()]}
    fake.script(*scripts.get(ending, chat_answer(["x"])))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        await client.answer()
        last = client.buffer.rpartition(b"\nid: ")[2].partition(b"\n")[0].decode()
        last = f"st_{0:032}:1" if ending == "unknown" else last
        if method == "GET":
            answer = await get(edge.port, f"{STREAM}?prompt=hi", {"Last-Event-ID": last})
        else:
            answer = await ask(edge.port, STREAM, {"message": "hi"}, {"Last-Event-ID": last})
    if ending == "unknown":
        assert_told(answer, 404, STREAM, "stream_not_found")
    else:
        assert (answer.status, answer.body) == (204, b"")
    assert len(fake.requests) == 1


@pytest.mark.parametrize("cut", [False, True])
async def test_a_browser_shows_an_answer_once(serve: Serve, fake: FakeModel, cut: bool) -> None:
    """It comes back after every end, and is sent away."""
    if cut:
        fake.script(*BEGUN, rst())
    edge = await serve()
    browser = Browser(edge.port, f"{STREAM}?prompt=hi")
    await browser.run()
    assert browser.statuses == [200, 204]
    assert len(fake.requests) == 1
    assert [event.type for event in browser.events].count("error") == int(cut)


async def test_a_browser_that_is_cut_before_the_model_speaks_is_not_answered_twice(
    serve: Serve, fake: FakeModel
) -> None:
    """Its first event came at once, so it comes back with an id."""
    fake.script(gate("held"), *BEGUN, stall())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.get(f"{STREAM}?prompt=hi")
        await fake.reached("held")
        body = (await client.until(b"\n\n\r\n")).partition(b"\r\n\r\n")[2].partition(b"\r\n")[2]
    async with RawClient(edge.port) as client:
        await client.get(f"{STREAM}?prompt=hi", {"Last-Event-ID": parsed(body).last_id})
        fake.open("held")
        await client.until(b"tok")
    assert len(fake.requests) == 1


async def test_an_empty_id_is_none(serve: Serve) -> None:
    edge = await serve()
    assert (await get(edge.port, f"{STREAM}?prompt=hi", {"Last-Event-ID": ""})).status == 200


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_edge_leaving_ends_the_stream_with_the_truth_and_sends_away_who_waits(
    serve: Serve, fake: FakeModel
) -> None:
    fake.script(*BEGUN, gate("held"), stall())
    edge = await serve(server={"drain_s": 0.1})
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await first.post(STREAM, {"message": "first"})
        await fake.reached("held")
        await second.post(STREAM, SECOND)
        await waiting(edge, second)
        async with asyncio.TaskGroup() as group:
            group.create_task(edge.edge.stop())
            told, refused = group.create_task(first.answer()), group.create_task(second.answer())
    error = parsed(told.result().body).events[-1]
    assert (error.type, error.json["partial"], told.result().ending) == ("error", True, "reset")
    assert_told(refused.result(), 503, STREAM, "shutting_down")
    assert len(fake.requests) == 1


# --- the end, and what is kept by then --------------------------------------------------------------------------------


class Gated(MemorySessions):
    """A store that keeps a turn when a test lets it."""

    def __init__(self) -> None:
        super().__init__(SessionSettings())
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        self.asked.set()
        await self.gate.wait()
        await super().append(principal, session, question, answer)


async def gated(serve: Serve, **sections: Any) -> tuple[Running, Gated]:
    edge = await serve(**sections)
    store = edge.edge.sessions._store = Gated()
    return edge, store


@pytest.mark.parametrize("path", [STREAM, "/stream"])
async def test_the_end_is_told_when_the_session_can_be_read(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(*BEGUN, gate("more"), chunk(b"".join(chat_events(["en"])[1:])), end())
    edge, store = await gated(serve)
    async with RawClient(edge.port) as client:
        await client.get(f"{path}?prompt=hi")
        await client.until(b"tok")
        fake.open("more")
        await store.asked.wait()
        assert (await get(edge.port, "/health")).status == 200, "which shares the loop"
        with contextlib.suppress(BlockingIOError):
            client.buffer += client.sock.recv(65536)
        told = client.buffer
        store.gate.set()
        assert (await client.answer()).clean
    assert b'"done":true' not in told
    assert len(await kept(edge)) == 2


async def test_the_models_slot_is_free_while_the_answer_is_kept(serve: Serve, fake: FakeModel) -> None:
    edge, store = await gated(serve, upstream={"max_concurrency": 1})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        await store.asked.wait()
        assert (await ask(edge.port, CHAT, chat_body())).clean
        store.gate.set()
        assert (await client.answer()).clean


async def test_a_store_that_takes_too_long_holds_no_reader_up(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Yet whoever then reads the session here, waits for it."""
    monkeypatch.setattr(sessions, "_KEEP_S", 0.01)
    edge, store = await gated(serve)
    assert text_of(await said(edge)) == "Hello there"
    reading = asyncio.create_task(kept(edge))
    await asyncio.sleep(0)
    store.gate.set()
    assert [turn["content"] for turn in await reading] == ["hi", "Hello there"]
