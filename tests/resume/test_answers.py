"""What is told to who comes back: each answer has its status, and its error is in the stream's own shape."""

import asyncio
import time
from typing import Any

import pytest
from fakes.model_server import FakeModel, chunk, end, gate, json_answer
from support.hanging import hang_limit
from support.raw import CHAT, MESSAGES, Answer, RawClient, ask, chat_body
from support.resumed import (
    CHAT_CASE,
    KEYS,
    MESSAGES_CASE,
    NATIVE,
    ONE,
    RESUME,
    TWO,
    Case,
    ended,
    finished,
    left,
    moved,
    opened,
    readers,
    resumed,
)  # fmt: skip
from support.running import Running, Serve
from support.shapes import assert_told, get

from edge.stream.late import LATE_S

every_native = pytest.mark.parametrize("case", NATIVE, ids=str)
UNKNOWN = f"st_{0:032}"


def assert_shaped(answer: Answer, case: Case, status: int, code: str) -> None:
    """The error of that surface."""
    if not case.lines:
        assert_told(answer, status, case.path, code)
        return
    assert (answer.status, answer.clean) == (status, True)
    assert isinstance(answer.json["error"], str)


def told(answer: Answer, stream: str) -> tuple[Any, ...]:
    """All of an answer but what differs between any two: ids and the time."""
    own = {"x-request-id", "request-id", "date", "x-stream-id"}
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    return (
        answer.status,
        headers,
        answer.body.replace(stream.encode(), b"ID").replace(answer.headers["x-request-id"].encode(), b"REQUEST"),
    )


async def asks(edge: Running, stream: str, headers: dict[str, str]) -> list[tuple[Any, ...]]:
    """All that can be asked of a stream."""
    last = {**headers, "Last-Event-ID": f"{stream}:1"}
    path = f"/v1/streams/{stream}"
    answers = [
        await get(edge.port, path, headers),
        await get(edge.port, f"{path}?starting_after=99", headers),
        await get(edge.port, path, last),
        await get(edge.port, path, headers, "DELETE"),
        await ask(edge.port, CHAT, chat_body(), last),
        await ask(edge.port, MESSAGES, MESSAGES_CASE.body, last),
    ]
    return [told(answer, stream) for answer in answers]


async def test_somebody_elses_is_unknown_in_the_same_bytes(serve: Serve, fake: FakeModel) -> None:
    """Running, without an id, and ended."""
    edge = await serve(auth=KEYS)
    fake.script(*CHAT_CASE.held())
    fake.script(*CHAT_CASE.held())
    async with RawClient(edge.port) as client, RawClient(edge.port) as plain:
        running = await opened(edge, CHAT_CASE, client, RESUME | ONE)
        unmarked = await opened(edge, CHAT_CASE, plain, ONE)
        unknown = await asks(edge, UNKNOWN, TWO)
        assert [status for status, *_ in unknown] == [404] * 6
        assert await asks(edge, running, TWO) == unknown
        assert await asks(edge, unmarked, TWO) == unknown
        fake.open("more")
        assert (await client.answer()).clean
        assert (await plain.answer()).clean
    await ended(edge, running)
    assert await asks(edge, running, TWO) == unknown
    assert (await resumed(edge, running, headers=ONE)).status == 200
    assert len(fake.requests) == 2


async def test_somebody_elses_takes_as_long_as_one_that_never_was(serve: Serve, fake: FakeModel) -> None:
    """However it is asked for; where other processes may have begun it a moment ago, that is a wait."""
    edge = await serve(auth=KEYS)
    done = await finished(edge, fake, CHAT_CASE, RESUME | ONE)
    fake.script(*CHAT_CASE.held())
    async with RawClient(edge.port) as client:
        running = await opened(edge, CHAT_CASE, client, RESUME | ONE)
        waits = LATE_S if edge.edge.archive.stores.shared else 0.0
        for stream in (UNKNOWN, running, done):
            for path, method in (
                (f"/v1/streams/{stream}", "GET"),
                (f"/v1/streams/{stream}", "DELETE"),
                (f"/v1/streams?ids={stream}&follow=1", "GET"),
                (f"/v1/streams?ids={stream}", "GET"),
            ):
                began = time.monotonic()
                answer = await get(edge.port, path, TWO, method)
                assert answer.status == 404 or answer.json["data"] == []
                assert time.monotonic() - began >= waits, (stream, path, method)
        fake.open("more")
        assert (await client.answer()).clean
    assert (await resumed(edge, done, headers=ONE)).status == 200


@pytest.mark.parametrize(
    "stream", ["x", "st_", f"st_{0:031}", f"ST_{0:032}", f"st_{0:032}:1", "..%2f", f"st_{0:032}%00"]
)
async def test_what_cannot_be_an_id_is_unknown_too(serve: Serve, stream: str) -> None:
    edge = await serve()
    for method in ("GET", "DELETE"):
        assert_told(await get(edge.port, f"/v1/streams/{stream}", method=method), 404, CHAT, "stream_not_found")


@pytest.mark.parametrize("cursor", ["x", "7", "{id}", "{id}:", "{id}:x", "{id}:-1", "{id}:01", "{id}:1 ", "{id}:1:2",
                                    "{id}:99999999999999999", f"{UNKNOWN}:1", "st_1:1"])  # fmt: skip
async def test_a_cursor_that_is_none_of_the_streams_is_refused(serve: Serve, fake: FakeModel, cursor: str) -> None:
    edge = await serve()
    stream = await finished(edge, fake)
    last = {"Last-Event-ID": cursor.format(id=stream)}
    by_path = await get(edge.port, f"/v1/streams/{stream}", last)
    if cursor.endswith(" "):  # what surrounds a header's value is no part of it
        assert by_path.status == 200
        return
    assert_told(by_path, 400, CHAT, "invalid_request", "invalid_request_error")
    assert by_path.json["error"]["param"] == "Last-Event-ID"
    by_route = await ask(edge.port, CHAT, chat_body(), last)
    assert by_route.status == (404 if cursor.startswith(UNKNOWN) else 400)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("bad", ["x", "-1", "", "1.0", "0x1", "1e3", "+1", "%d9%a1", "9" * 40, "%201"])
async def test_a_number_that_is_none_is_refused_by_name(serve: Serve, fake: FakeModel, bad: str) -> None:
    edge = await serve()
    stream = await finished(edge, fake)
    answer = await resumed(edge, stream, bad)
    assert_told(answer, 400, CHAT, "invalid_request", "invalid_request_error")
    assert answer.json["error"]["param"] == "starting_after"


@every_native
async def test_beyond_the_end_there_is_nothing(serve: Serve, fake: FakeModel, case: Case) -> None:
    """While it runs, and when it is over; the surface's own error."""
    edge = await serve(upstream=case.upstream)
    stream = await left(edge, fake, case)
    for after in (50, 999_999_999_999_999):
        assert_shaped(await resumed(edge, stream, after), case, 400, "no_such_event")
    last = {"Last-Event-ID": f"{stream}:50"}
    assert_shaped(await ask(edge.port, case.path, case.body, last), case, 400, "no_such_event")
    fake.open("more")
    await ended(edge, stream)
    assert_shaped(await resumed(edge, stream, 50), case, 400, "no_such_event")
    assert_shaped(await get(edge.port, f"/v1/streams/{stream}", last), case, 400, "no_such_event")


@every_native
async def test_what_the_journal_has_dropped_is_gone_and_the_rest_is_not(
    serve: Serve, fake: FakeModel, case: Case
) -> None:
    """While it runs, and when it is over: never a gap that is not told."""
    edge = await serve(upstream=case.upstream, stream={"journal_bytes": 20_000, "buffer_bytes": 4096})
    more = gate("more"), chunk(case.says.ending), end()
    fake.script(*case.begins(*[chunk(case.says.token)] * 600, *more))
    async with RawClient(edge.port) as client:
        stream = await opened(edge, case, client)
        reading = asyncio.create_task(client.answer())
        await fake.reached("more")
        journal = edge.edge.registry.streams[stream].generation.journal
        await edge.wait(lambda: journal.last > 600)
        assert 0 < journal.before < journal.last
        assert_shaped(await resumed(edge, stream, 0), case, 410, "stream_gone")
        assert_shaped(await resumed(edge, stream, journal.before - 1), case, 410, "stream_gone")
        async with RawClient(edge.port) as other:
            await other.get(f"/v1/streams/{stream}?starting_after={journal.before + 3}")
            await readers(edge, stream, 2)
            fake.open("more")
            rest, whole = await other.answer(), await reading
    assert whole.body.endswith(rest.body)
    await ended(edge, stream)
    await moved(edge)
    found = await edge.edge.archive.find("anonymous", stream)
    assert found is not None
    state = found.state
    assert state.size <= 20_000
    assert_shaped(await resumed(edge, stream, state.first - 2), case, 410, "stream_gone")
    last = {"Last-Event-ID": f"{stream}:1"}
    assert_shaped(await ask(edge.port, case.path, case.body, last), case, 410, "stream_gone")
    assert whole.body.endswith((await resumed(edge, stream, state.first - 1)).body)
    assert len((await resumed(edge, stream, state.first - 1)).body) >= state.size


@every_native
async def test_what_has_expired_is_gone(serve: Serve, fake: FakeModel, case: Case) -> None:
    """Not unknown: who held on to its id for too long is told so."""
    edge = await serve(upstream=case.upstream, store={"keep_s": 1}, auth=KEYS)
    status = 0
    async with hang_limit():
        while status != 410:  # it is told for a second; a machine that was busy for so long has another try
            stream = await finished(edge, fake, case, RESUME | ONE)
            while (answer := await resumed(edge, stream, headers=ONE)).status == 200:
                await asyncio.sleep(0.05)
            last = {**ONE, "Last-Event-ID": f"{stream}:1"}
            returned = await ask(edge.port, case.path, case.body, last)
            others = await resumed(edge, stream, headers=TWO)
            status = (await resumed(edge, stream, headers=ONE)).status
            assert status in (410, 404)
    assert_shaped(answer, case, 410, "stream_gone")
    assert_shaped(returned, case, 410, "stream_gone")
    assert others.status == 404
    listed = await get(edge.port, "/v1/streams", ONE)
    assert listed.json["data"] == []


async def test_what_had_to_make_room_is_gone(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(store={"principal_bytes": 20_000, "disk_bytes": 2000})
    streams = [await finished(edge, fake) for _ in range(12)]
    await moved(edge)
    streams.append(await finished(edge, fake))  # a file that has grown is looked through when more is written to it
    await moved(edge)
    statuses = [(await resumed(edge, stream)).status for stream in streams]
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) == {200, 410}


async def test_what_was_purged_is_gone(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    stream = await finished(edge, fake, CHAT_CASE, RESUME | ONE)
    await moved(edge)
    store = edge.edge.archive.stores.streams() or edge.edge.archive.memory
    assert await store.purge(time.time() + 1) == 1
    assert_shaped(await resumed(edge, stream, headers=ONE), CHAT_CASE, 410, "stream_gone")
    assert (await resumed(edge, stream, headers=TWO)).status == 404


@every_native
async def test_a_stream_that_failed_before_it_said_anything_fails_alike_later(
    serve: Serve, fake: FakeModel, case: Case
) -> None:
    fake.script(*json_answer({"error": {"message": "no such thing", "type": "x", "code": "y"}}, 418))
    edge = await serve(upstream=case.upstream)
    first = await ask(edge.port, case.path, case.body, RESUME)
    stream = first.headers["x-stream-id"]
    await ended(edge, stream)
    again = await resumed(edge, stream)
    assert first.status == again.status == 418
    assert "no such thing" in str(again.json["error"])
    assert_shaped(again, case, 418, "invalid_request")
    assert (await ask(edge.port, case.path, case.body, {"Last-Event-ID": f"{stream}:0"})).status == 418
    assert len(fake.requests) == 1


async def test_methods_that_are_none(serve: Serve) -> None:
    edge = await serve()
    for method in ("HEAD", "PUT", "POST"):
        async with RawClient(edge.port) as client:
            await client.get(f"/v1/streams/{UNKNOWN}", method=method)
            assert b" 405 " in await client.until(b"\r\n")


async def test_an_empty_cursor_begins_anew(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    for last in ("", "  "):
        answer = await ask(edge.port, CHAT, chat_body(), {"Last-Event-ID": last, **RESUME})
        assert (answer.status, answer.clean) == (200, True)
    assert len(fake.requests) == 2
