"""How a stream ended is told to every reader, whenever it comes: once, and never as a whole answer if it was none."""

import asyncio

import orjson
import pytest
from fakes.model_server import FakeModel, chunk, end, fin, gate, json_answer, rst, stall
from support.eventsource import parsed
from support.faults import ERROR_EVENT, assert_gone
from support.raw import CHAT, RESPONSES, Answer, RawClient, ask, chat_body
from support.resumed import (
    CHAT_CASE,
    KEYS,
    NATIVE,
    ONE,
    RESUME,
    TWO,
    Case,
    bare,
    ended,
    finished,
    left,
    moved,
    opened,
    pieces,
    readers,
    resumed,
    sequences,
)  # fmt: skip
from support.running import Running, Serve
from support.sessions import STREAM, kept, settled
from support.shapes import assert_told, get

every_native = pytest.mark.parametrize("case", NATIVE, ids=str)
UNKNOWN = f"st_{0:032}"
FIELDS = {
    "id", "object", "state", "outcome", "surface", "model", "upstream", "session", "resumable", "first", "last",
    "created", "age_s", "readers", "reconnections",
}  # fmt: skip


def error_in(case: Case, piece: bytes) -> str | None:
    """What an event says that went wrong, if anything."""
    data = piece if case.lines else parsed(piece).events[0].data.encode()
    if data == b"[DONE]":
        return None
    told = orjson.loads(data)
    if told.get("type") == "error" and "error" not in told:
        return str(told["message"])
    error = told.get("error")
    return str(error["message"] if isinstance(error, dict) else error) if error else None


def assert_failed(case: Case, answer: Answer, message: str) -> list[bytes]:
    """One error, the last thing that is said but for what ends the surface's streams; all events."""
    assert (answer.status, answer.clean, answer.ending) == (200, *case.failed), answer
    told = all_told = pieces(case, answer.body)
    assert b"".join(told) == answer.body
    if case.path == RESPONSES:
        *told, failed = told
        assert b"event: response.failed\n" in failed
    assert [error_in(case, piece) for piece in told[:-1]] == [None] * (len(told) - 1)
    assert message in str(error_in(case, told[-1]))
    return all_told


async def stop(edge: Running, stream: str, headers: dict[str, str] | None = None) -> Answer:
    return await get(edge.port, f"/v1/streams/{stream}", headers, "DELETE")


# --- failures ---------------------------------------------------------------------------------------------------------


@every_native
@pytest.mark.parametrize("how", ["cut", "told"])
async def test_a_failure_is_told_once_to_everybody(serve: Serve, fake: FakeModel, case: Case, how: str) -> None:
    """To who was there, and to who comes later; then there is nothing more."""
    told = ERROR_EVENT.get(case.path, b'{"error":"the model broke"}\n')
    fake.script(*case.begins(gate("more"), *([rst()] if how == "cut" else [chunk(told), end()])))
    edge = await serve(upstream=case.upstream)
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        stream = await opened(edge, case, first)
        await second.get(f"/v1/streams/{stream}?starting_after=1")
        await readers(edge, stream, 2)
        fake.open("more")
        whole, rest = await first.answer(), await second.answer()
    message = "the model broke" if how == "told" else ""
    events = assert_failed(case, whole, message)
    assert rest.body == b"".join(events[1:])
    await ended(edge, stream)
    for after in range(len(events)):
        again = await resumed(edge, stream, after)
        assert again.body == b"".join(events[after:])
        assert (again.clean, again.ending) == case.failed
    assert (await resumed(edge, stream, len(events))).status == 204
    assert (await resumed(edge, stream, len(events) + 1)).status == 400
    assert len(fake.requests) == 1


@every_native
async def test_an_end_without_its_terminator_is_whole_for_everybody_or_for_nobody(
    serve: Serve, fake: FakeModel, case: Case
) -> None:
    fake.script(*case.begins(fin()))
    edge = await serve(upstream=case.upstream)
    whole = await ask(edge.port, case.path, case.body, RESUME)
    events = assert_failed(case, whole, "")
    stream = whole.headers["x-stream-id"]
    await ended(edge, stream)
    assert (await resumed(edge, stream, 1)).body == b"".join(events[1:])


async def test_a_failure_after_the_status_but_before_any_token_is_an_event(serve: Serve, fake: FakeModel) -> None:
    """Its first reader was told 200 and a heartbeat; the next is told the same."""
    fake.script(gate("more"), *json_answer({"error": {"message": "busy"}}, 503))
    edge = await serve(stream={"commit_after_s": 0.02, "heartbeat_s": 0.02})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await client.until(b": ping\n")
        fake.open("more")
        answer = await client.answer()
    stream = answer.headers["x-stream-id"]
    assert (answer.status, sequences(answer.body), answer.ending) == (200, [1], "reset")
    await ended(edge, stream)
    again = await resumed(edge, stream)
    assert bare(again.body) == bare(answer.body)
    assert again.ending == "reset"
    assert (await resumed(edge, stream, 1)).status == 204


async def test_a_reader_waits_for_the_status_of_one_that_has_said_nothing_yet(serve: Serve, fake: FakeModel) -> None:
    fake.script(gate("more"), *json_answer({"error": {"message": "no such thing"}}, 418))
    edge = await serve()
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await first.post(CHAT, chat_body(), RESUME)
        await fake.reached("more")
        (stream,) = edge.edge.registry.streams
        await second.get(f"/v1/streams/{stream}")
        await readers(edge, stream, 2)
        fake.open("more")
        assert [(await client.answer()).status for client in (first, second)] == [418, 418]


# --- stopping ---------------------------------------------------------------------------------------------------------


@every_native
async def test_a_stop_ends_it_for_all_readers_and_for_the_model(serve: Serve, fake: FakeModel, case: Case) -> None:
    fake.script(*case.begins(stall()))
    edge = await serve(upstream=case.upstream)
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        stream = await opened(edge, case, first)
        await second.get(f"/v1/streams/{stream}?starting_after=1")
        await readers(edge, stream, 2)
        stopped = await stop(edge, stream)
        whole, rest = await first.answer(), await second.answer()
    assert (stopped.status, stopped.json["state"], stopped.json["outcome"]) == (200, "ended", "stopped")
    assert stopped.json.keys() == FIELDS
    events = assert_failed(case, whole, "stopped")
    assert rest.body == b"".join(events[1:])
    await fake.requests[0].left()
    assert (await edge.record())["outcome"] == "stopped"
    again = await stop(edge, stream)
    assert (again.status, again.json["outcome"], again.json["last"]) == (200, "stopped", len(events))
    assert (await resumed(edge, stream)).body == whole.body
    assert (await resumed(edge, stream, len(events))).status == 204


async def test_a_stop_before_anything_was_said_is_told_by_the_status(serve: Serve, fake: FakeModel) -> None:
    fake.script(gate("held"), stall())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(), RESUME)
        await fake.reached("held")
        (stream,) = edge.edge.registry.streams
        assert (await stop(edge, stream)).json["outcome"] == "stopped"
        assert_told(await client.answer(), 409, CHAT, "stopped")
    assert_told(await resumed(edge, stream), 409, CHAT, "stopped")
    await assert_gone(fake)


async def test_any_stream_can_be_stopped_whether_it_can_be_resumed_or_not(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.begins(stall()))
    edge = await serve()
    async with RawClient(edge.port) as client:
        stream = await opened(edge, CHAT_CASE, client, {})
        told = (await stop(edge, stream)).json
        assert (told["outcome"], told["resumable"]) == ("stopped", False)
        assert_failed(CHAT_CASE, await client.answer(), "stopped")
    await ended(edge, stream)
    assert_told(await stop(edge, stream), 404, CHAT, "stream_not_found")


async def test_one_that_nobody_reads_can_be_stopped(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await left(edge, fake)
    assert (await stop(edge, stream)).json["readers"] == 0
    await assert_gone(fake)
    assert (await edge.record())["outcome"] == "stopped"
    assert_failed(CHAT_CASE, await resumed(edge, stream), "stopped")


async def test_what_has_ended_is_not_ended_again(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    stream = await finished(edge, fake)
    told = await stop(edge, stream)
    assert (told.status, told.json["state"], told.json["outcome"]) == (200, "ended", "complete")
    assert (await resumed(edge, stream)).clean


async def test_nobody_stops_what_is_unknown_or_somebody_elses(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.held())
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        stream = await opened(edge, CHAT_CASE, client, RESUME | ONE)
        for named in (stream, UNKNOWN):
            assert_told(await stop(edge, named, TWO), 404, CHAT, "stream_not_found")
        assert_told(await stop(edge, stream), 401, CHAT)
        fake.open("more")
        assert (await client.answer()).clean


async def test_a_stopped_session_keeps_what_was_said(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.begins(stall()))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi", "session_id": "s"})
        await client.until(b"tok")
        (stream,) = edge.edge.registry.streams
        assert (await stop(edge, stream)).json["session"] == "s"
        error = parsed((await client.answer()).body).events[-1]
    assert (error.type, error.json["partial"]) == ("error", True)
    await settled(edge)
    assert [turn.get("partial") for turn in await kept(edge, "s")] == [None, True]


# --- the list ---------------------------------------------------------------------------------------------------------


async def test_the_list_has_ones_own_streams_the_latest_first(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    done = await finished(edge, fake, headers=RESUME | ONE)
    await moved(edge)  # until then whoever comes back comes to the generation, not to the store
    fake.script(*CHAT_CASE.held())
    fake.script(*CHAT_CASE.held())
    async with RawClient(edge.port) as first, RawClient(edge.port) as second, RawClient(edge.port) as third:
        unmarked = await opened(edge, CHAT_CASE, first, ONE)
        await second.post(STREAM, {"message": "hi", "session_id": "s"}, ONE)
        await second.until(b"tok")
        (session,) = set(edge.edge.registry.streams) - {unmarked}
        await third.get(f"/v1/streams/{session}?starting_after=1", ONE)
        await readers(edge, session, 2)
        await resumed(edge, done, 2, ONE)
        answer = await get(edge.port, "/v1/streams", ONE)
        theirs = await get(edge.port, "/v1/streams", TWO)
        fake.open("more")
        for client in (first, second, third):
            assert (await client.answer()).status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json["object"] == "list"
    assert [shown["id"] for shown in answer.json["data"]] == [session, unmarked, done]
    assert theirs.json["data"] == []
    newest, plain, oldest = answer.json["data"]
    for shown in answer.json["data"]:
        assert shown.keys() == FIELDS
        assert (shown["object"], shown["model"], shown["upstream"]) == ("stream", "m", "up")
        assert 0 <= shown["age_s"] < 10
    own = ("state", "outcome", "surface", "session", "resumable", "first", "last", "readers", "reconnections")
    assert [newest[name] for name in own] == ["live", None, "session", "s", True, 1, 2, 2, 1]
    assert [plain[name] for name in own[:5]] == ["live", None, "chat", None, False]
    assert [oldest[name] for name in own] == ["ended", "complete", "chat", None, True, 1, 4, None, 1]
    after = {shown["id"]: shown["state"] for shown in (await get(edge.port, "/v1/streams", ONE)).json["data"]}
    assert after == {session: "ended", done: "ended"}


async def test_an_empty_list_is_a_list(serve: Serve) -> None:
    edge = await serve()
    assert (await get(edge.port, "/v1/streams")).json == {"object": "list", "data": []}


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_edge_leaving_tells_every_reader(serve: Serve, fake: FakeModel) -> None:
    fake.script(*CHAT_CASE.begins(stall()))
    edge = await serve(server={"drain_s": 0.1})
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        stream = await opened(edge, CHAT_CASE, first)
        await second.get(f"/v1/streams/{stream}?starting_after=1")
        await readers(edge, stream, 2)
        async with asyncio.TaskGroup() as group:
            group.create_task(edge.edge.stop())
            told = [group.create_task(client.answer()) for client in (first, second)]
    events = assert_failed(CHAT_CASE, told[0].result(), "shutting down")
    assert told[1].result().body == b"".join(events[1:])
    record = await edge.record()
    assert (record["outcome"], record["reconnections"]) == ("shutdown", 1)


async def test_while_it_leaves_edge_still_serves_who_comes_back(serve: Serve, fake: FakeModel) -> None:
    """On a connection that is there: none is accepted any more."""
    edge = await serve(server={"drain_s": 5.0})
    stream = await left(edge, fake)
    async with RawClient(edge.port) as client:
        await client.get("/health")
        await client.until(b"\r\n\r\n")
        stopping = asyncio.create_task(edge.edge.stop())
        await edge.wait(lambda: edge.edge.registry.draining)
        client.buffer = b""
        await client.get(f"/v1/streams/{stream}?starting_after=1")
        await readers(edge, stream, 1)
        fake.open("more")
        await client.until(b"data: [DONE]\n\n")
        await stopping
    assert (await edge.record())["outcome"] == "complete"
