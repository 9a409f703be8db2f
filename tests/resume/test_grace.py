"""Leaving is not stopping, once a stream can be resumed: it waits for somebody to come back, but not for ever."""

import pytest
from fakes.model_server import FakeModel, chat_answer, gate, stall
from prometheus_client.parser import text_string_to_metric_families
from support.eventsource import parsed
from support.faults import assert_gone
from support.raw import CHAT, RawClient, ask
from support.resumed import (
    CHAT_CASE,
    NATIVE,
    OLLAMA_CASE,
    RESUME,
    Case,
    ended,
    left,
    moved,
    opened,
    readers,
    resumed,
)  # fmt: skip
from support.running import Running, Serve, time_passes
from support.sessions import STREAM, asked, kept, said, settled, text_of
from support.shapes import assert_told, get

every_native = pytest.mark.parametrize("case", NATIVE, ids=str)
WAITS = {"grace_s": 0.05}


def endless(fake: FakeModel, case: Case = CHAT_CASE) -> None:
    fake.script(*case.begins(stall()))


async def counted(edge: Running) -> dict[tuple[str, str], float]:
    """Reconnections by surface and source."""
    text = (await get(edge.port, "/metrics")).body.decode()
    (family,) = [one for one in text_string_to_metric_families(text) if one.name == "edge_reconnections"]
    return {
        (sample.labels["surface"], sample.labels["source"]): sample.value
        for sample in family.samples
        if sample.name == "edge_reconnections_total"
    }


@every_native
@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
async def test_if_nobody_comes_back_the_model_is_stopped(serve: Serve, fake: FakeModel, case: Case, how: str) -> None:
    endless(fake, case)
    edge = await serve(upstream=case.upstream, stream=WAITS)
    async with RawClient(edge.port) as client:
        stream = await opened(edge, case, client)
        getattr(client, how)()
        await fake.requests[0].left()
        record = await edge.record()
    assert (record["outcome"], record["reader"], record["reconnections"]) == ("client_gone", "gone", 0)
    answer = await resumed(edge, stream)
    assert (answer.clean, answer.ending) == case.failed
    assert b"nobody has read this stream for 0.05 s" in answer.body


async def test_the_grace_begins_when_the_last_of_them_has_left(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve(stream=WAITS)
    async with RawClient(edge.port) as second:
        async with RawClient(edge.port) as first:
            stream = await opened(edge, CHAT_CASE, first)
            await second.get(f"/v1/streams/{stream}")
            await readers(edge, stream, 2)
        await readers(edge, stream, 1)
        generation = edge.edge.registry.streams[stream].generation
        for _ in range(10):  # sweeps of the ticker, each of which could end it
            swept = edge.edge.ticker._handle
            await edge.wait(lambda swept=swept: edge.edge.ticker._handle is not swept)
        assert generation.outcome is None
    await fake.requests[0].left()
    assert (await edge.record())["reconnections"] == 1


async def test_somebody_who_comes_back_in_time_keeps_it_going(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"grace_s": 60, "inter_token_s": 1000})
    stream = await left(edge, fake)
    for after in range(2):
        time_passes(40)
        async with RawClient(edge.port) as client:
            await client.get(f"/v1/streams/{stream}?starting_after={after}")
            await readers(edge, stream, 1)
        await readers(edge, stream, 0)
    time_passes(40)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}?starting_after=1")
        await readers(edge, stream, 1)
        fake.open("more")
        assert (await client.answer()).clean
    record = await edge.record()
    assert (record["outcome"], record["reconnections"]) == ("complete", 3)


@every_native
async def test_with_nobody_there_the_model_finishes_in_the_grace(serve: Serve, fake: FakeModel, case: Case) -> None:
    edge = await serve(upstream=case.upstream)
    stream = await left(edge, fake, case)
    fake.open("more")
    await ended(edge, stream)
    answer = await resumed(edge, stream)
    assert (answer.status, answer.clean) == (200, True)
    assert (await edge.record())["outcome"] == "complete"


async def test_before_the_first_token_too(serve: Serve, fake: FakeModel) -> None:
    """A phone that goes to sleep while the model still loads."""
    fake.script(gate("loaded"), *chat_answer(["a", "b"]))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, CHAT_CASE.body, RESUME)
        await fake.reached("loaded")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}")
        await readers(edge, stream, 1)
        fake.open("loaded")
        answer = await client.answer()
    assert [event.id.partition(":")[2] for event in parsed(answer.body).events] == ["1", "2", "3", "4", "5"]


async def test_grace_for_all_is_for_every_stream(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"on_disconnect": "grace", "grace_s": 0.05})
    endless(fake)
    async with RawClient(edge.port) as client:
        await opened(edge, CHAT_CASE, client, {})
    assert (await edge.record())["outcome"] == "client_gone"
    await assert_gone(fake)
    stream = await left(edge, fake, CHAT_CASE, {})
    fake.open("more")
    await ended(edge, stream)
    assert (await edge.record(1))["outcome"] == "complete"
    assert (await resumed(edge, stream)).clean


async def test_an_answer_in_one_piece_is_stopped_at_once_whatever_the_grace(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve(stream={"on_disconnect": "grace"})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, {**CHAT_CASE.body, "stream": False}, RESUME)
        await fake.request(0)
    await fake.requests[0].left()
    assert (await edge.record())["outcome"] == "client_gone"


async def test_where_the_model_may_finish_it_is_not_stopped_by_the_grace(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"on_disconnect": "drain", **WAITS})
    stream = await left(edge, fake)
    for _ in range(10):
        swept = edge.edge.ticker._handle
        await edge.wait(lambda swept=swept: edge.edge.ticker._handle is not swept)
    fake.open("more")
    await ended(edge, stream)
    assert (await edge.record())["outcome"] == "complete"
    assert (await resumed(edge, stream)).clean


async def test_without_resume_leaving_is_stopping(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve()
    async with RawClient(edge.port) as client:
        await opened(edge, CHAT_CASE, client, {})
    await fake.requests[0].left()
    assert (await edge.record())["outcome"] == "client_gone"


# --- what is told of it -----------------------------------------------------------------------------------------------


async def test_each_return_is_told_and_counted(serve: Serve, fake: FakeModel) -> None:
    """While it ran, and after it."""
    edge = await serve(upstream=OLLAMA_CASE.upstream)
    stream = await left(edge, fake, OLLAMA_CASE)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}?starting_after=1", {"x-request-id": "again"})
        await readers(edge, stream, 1)
        fake.open("more")
        live = await client.answer()
    await ended(edge, stream)
    await moved(edge)
    stored = await resumed(edge, stream)
    first, second = await edge.lines.wait("returned", 2)
    assert (first["stream_id"], first["request_id"]) == (stream, live.headers["x-request-id"])
    assert (first["source"], first["after"], first["reconnections"], first["status"]) == ("live", 1, 1, 200)
    assert (first["surface"], first["model"], first["principal"], first["reader"]) == (
        "ollama_chat", "m", "anonymous", "finished",
    )  # fmt: skip
    assert (first["bytes_out"], second["bytes_out"]) == (len(live.body), len(stored.body))
    assert (second["source"], second["after"], second["reconnections"]) == ("store", 0, 2)
    assert (await edge.record())["reconnections"] == 1
    assert await counted(edge) == {("ollama_chat", "live"): 1, ("ollama_chat", "store"): 1}


async def test_a_reader_that_leaves_again_is_told_as_gone(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await left(edge, fake)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}")
        await client.until(b"tok")
    (line,) = await edge.lines.wait("returned")
    assert (line["reader"], line["status"]) == ("gone", 200)
    fake.open("more")
    await ended(edge, stream)


async def test_a_session_tells_its_own_returns(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    fake.script(*CHAT_CASE.held())
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi", "session_id": "s"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    async with RawClient(edge.port) as client:
        await client.get(f"{STREAM}?prompt=hi", {"Last-Event-ID": f"{stream}:1"})
        await readers(edge, stream, 1)
        fake.open("more")
        await client.answer()
    (line,) = await edge.lines.wait("returned")
    record = await edge.record()
    assert (line["session"], line["reconnections"]) == (record["session"], record["reconnections"]) == ("s", 1)


# --- a session whose stream nobody reads ------------------------------------------------------------------------------


@pytest.mark.parametrize("busy", ["wait", "conflict"])
async def test_a_new_message_does_not_wait_for_what_nobody_reads(serve: Serve, fake: FakeModel, busy: str) -> None:
    """That is stopped, and what came of it is part of the conversation."""
    endless(fake)
    edge = await serve(sessions={"busy": busy})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "first"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    assert text_of(await said(edge, "second")) == "Hello there"
    await fake.requests[0].left()
    assert asked(fake) == [("user", "first"), ("assistant", "tok"), ("user", "second")]
    await settled(edge)
    assert [turn.get("partial", False) for turn in await kept(edge)] == [False, True, False, False]
    assert [record["outcome"] for record in edge.records] == ["stopped", "complete"]
    assert b"the stream was stopped" in (await resumed(edge, stream)).body


async def test_nor_does_one_that_waits_already(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve()
    async with RawClient(edge.port) as second:
        async with RawClient(edge.port) as first:
            await first.post(STREAM, {"message": "first"})
            await first.until(b"tok")
            await second.post(STREAM, {"message": "second"})
            await edge.wait(lambda: edge.edge.sessions.wanted(("anonymous", "default")))
        assert text_of(await second.answer()) == "Hello there"
    await fake.requests[0].left()
    assert len(asked(fake)) == 3


async def test_one_that_is_read_again_is_waited_for(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.held())
    edge = await serve(sessions={"busy": "conflict"})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "first"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}")
        await readers(edge, stream, 1)
        assert_told(await ask(edge.port, STREAM, {"message": "second"}), 409, STREAM, "session_busy")
        fake.open("more")
        assert (await client.answer()).clean


async def test_a_session_that_is_forgotten_stops_what_nobody_reads(serve: Serve, fake: FakeModel) -> None:
    endless(fake)
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "first"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    assert (await get(edge.port, "/v1/sessions/default", method="DELETE")).status == 204
    assert await kept(edge) == []
    await assert_gone(fake)


async def test_a_model_that_may_finish_does_so_first(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.held())
    edge = await serve(stream={"on_disconnect": "drain"})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "first"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
    await readers(edge, stream, 0)
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "second"})
        await edge.wait(lambda: edge.edge.sessions.wanted(("anonymous", "default")))
        fake.open("more")
        assert (await client.answer()).clean
    assert [record["outcome"] for record in edge.records] == ["complete", "complete"]
