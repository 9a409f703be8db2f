"""Streams that are kept here and not generated here: followed as they grow, up to whatever end they find.

They are written into the memory store by hand, as another process would write them into a common one.
"""

import asyncio
import time

import pytest
from fakes.model_server import FakeModel
from support.eventsource import parsed
from support.raw import RESPONSES, Answer, RawClient
from support.resumed import (
    CHAT_CASE,
    MESSAGES_CASE,
    NATIVE,
    OLLAMA_CASE,
    RESPONSES_CASE,
    Case,
    bare,
    pieces,
    resumed,
    sequences,
)  # fmt: skip
from support.running import Running, Serve
from support.shapes import assert_told, get

from edge.store.ports import Ending, StreamLog, StreamMeta, lost

pytestmark = pytest.mark.parametrize("store_url", ["memory:"])
every_native = pytest.mark.parametrize("case", NATIVE, ids=str)
STREAM = "st_" + "ab" * 16
WHOLE = Ending("complete", clean=True, at=time.time())


def planted(edge: Running, case: Case = CHAT_CASE, keep_bytes: int = 2**20) -> StreamLog:
    """A stream that another process generates."""
    meta = StreamMeta(STREAM, "anonymous", case.surface, "m", None, "req_1", time.time(), keep_bytes)
    return edge.edge.archive.memory.begin(meta)


def over(log: StreamLog, ending: Ending) -> None:
    log.end(ending, "up", 0, lambda _: None)


async def reading(edge: Running, client: RawClient, after: int = 0) -> None:
    """The client follows the stream."""
    await client.get(f"/v1/streams/{STREAM}?starting_after={after}")
    await edge.wait(lambda: bool(edge.edge.archive.memory._live[STREAM].waiting))


@every_native
@pytest.mark.parametrize("together", [1, 3], ids=["singly", "in batches"])
async def test_a_stream_that_grows_elsewhere_is_followed(serve: Serve, case: Case, together: int) -> None:
    edge = await serve()
    events = pieces(case, case.whole.replace(case.says.token, case.says.token * 8))
    log = planted(edge, case)
    batches = [events[at : at + together] for at in range(0, len(events), together)]
    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        log.append(b"".join(batches[0]), len(batches[0]))
        await reading(edge, first)
        await reading(edge, second, 2)
        for batch in batches[1:]:
            log.append(b"".join(batch), len(batch))
            await asyncio.sleep(0)
        over(log, WHOLE)
        whole, rest = await first.answer(), await second.answer()
    assert (whole.clean, rest.clean) == (True, True)
    assert bare(whole.body) == b"".join(events)
    assert rest.body == b"".join(pieces(case, whole.body)[2:])
    for after in range(len(events)):
        assert (await resumed(edge, STREAM, after)).body == b"".join(pieces(case, whole.body)[after:])


async def test_who_has_seen_more_than_is_written_yet_waits_for_it(serve: Serve) -> None:
    edge = await serve()
    events = pieces(CHAT_CASE, CHAT_CASE.whole)
    log = planted(edge)
    log.append(events[0], 1)
    async with RawClient(edge.port) as client:
        await reading(edge, client, 2)
        log.append(b"".join(events[1:]), len(events) - 1)
        over(log, WHOLE)
        assert sequences((await client.answer()).body) == [3, 4]


async def test_who_has_seen_more_than_there_ever_is_is_told_so(serve: Serve) -> None:
    edge = await serve()
    log = planted(edge)
    log.append(CHAT_CASE.says.token, 1)
    async with RawClient(edge.port) as client:
        await reading(edge, client, 2)
        over(log, WHOLE)
        assert_told(await client.answer(), 400, CHAT_CASE.path, "no_such_event")


@every_native
async def test_the_end_of_one_whose_process_is_gone_is_its_last_event(serve: Serve, case: Case) -> None:
    """It can be resumed to the point where it broke off, which is told once and then not again."""
    edge = await serve()
    log = planted(edge, case)
    log.append(case.says.prelude + case.says.token, count := len(pieces(case, case.says.prelude + case.says.token)))
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{STREAM}")
        await client.until(b"tok")
        over(log, lost(time.time()))
        whole = await client.answer()
    assert (whole.clean, whole.ending) == case.failed
    told = pieces(case, whole.body)
    errors = 2 if case.path == RESPONSES else 1
    assert len(told) == count + errors
    assert all(b"is gone" in error for error in told[count:])
    assert case.lines or sequences(whole.body) == list(range(1, count + errors + 1))
    for after in range(count):
        assert (await resumed(edge, STREAM, after)).body == b"".join(told[after:])
    at_the_end = await resumed(edge, STREAM, count)
    assert (at_the_end.status, b"is gone" in at_the_end.body) == (503, True)
    after_that = await resumed(edge, STREAM, count + 1)
    assert (after_that.status, b"is gone" in after_that.body) == (410, True)


async def test_one_that_is_gone_without_a_word_is_told_by_the_status(serve: Serve) -> None:
    edge = await serve()
    over(planted(edge), lost(time.time()))
    assert_told(await resumed(edge, STREAM), 503, CHAT_CASE.path, "shutdown")


# --- a reader's own end is no event of the stream ---------------------------------------------------------------------


def assert_parted(case: Case, answer: Answer, count: int) -> None:
    """The reader was told of its own end, in a way that does not change where it is in the stream."""
    assert (answer.status, answer.clean, answer.ending) == (200, False, "reset")
    told = pieces(case, answer.body)
    if case.lines:
        assert len(told) == count
        return
    assert sequences(answer.body) == list(range(1, count + 1))
    assert len(told) == count + 1
    assert parsed(answer.body).last_id == f"{STREAM}:{count}"


@every_native
async def test_edge_leaving_changes_no_readers_place(serve: Serve, case: Case) -> None:
    """Another process goes on with the stream, and numbers its next event as it would have."""
    edge = await serve(server={"drain_s": 0.1})
    count = len(pieces(case, case.says.prelude + case.says.token))
    planted(edge, case).append(case.says.prelude + case.says.token, count)
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{STREAM}")
        await client.until(b"tok")
        stopping = asyncio.create_task(edge.edge.stop())
        answer = await client.answer()
        await stopping
    assert_parted(case, answer, count)
    assert case.lines or b"shutting down" in answer.body


async def test_nor_does_what_is_dropped_before_it_was_read(serve: Serve) -> None:
    edge = await serve(stream={"buffer_bytes": 4096})
    log = planted(edge, keep_bytes=64 * 1024)
    event = CHAT_CASE.says.token
    async with RawClient(edge.port, receive_buffer=4096) as client:
        log.append(event, 1)
        await client.get(f"/v1/streams/{STREAM}")
        await client.until(b"tok")
        for _ in range(64):
            log.append(event * 100, 100)
            await asyncio.sleep(0)
        await edge.wait(lambda: edge.edge.archive.memory._live[STREAM].lasts[0] > 1000)
        answer = await client.answer()
    assert (answer.clean, answer.ending) == (False, "reset")
    seen = sequences(answer.body)
    assert seen == list(range(1, len(seen) + 1))
    last = parsed(answer.body).last_id
    assert last == f"{STREAM}:{len(seen)}"
    assert_told(await get(edge.port, f"/v1/streams/{STREAM}", {"Last-Event-ID": last}), 410, CHAT_CASE.path)


async def test_a_reader_that_leaves_stops_nothing_and_leaves_nothing(serve: Serve) -> None:
    edge = await serve()
    log = planted(edge)
    log.append(CHAT_CASE.says.token, 1)
    async with RawClient(edge.port) as client:
        await reading(edge, client)
    await edge.wait(lambda: not edge.edge.registry)
    assert not edge.edge.archive.memory._live[STREAM].waiting
    (line,) = await edge.lines.wait("returned")
    assert (line["reader"], line["source"]) == ("gone", "store")


async def test_silence_is_filled_in_the_surfaces_own_way(serve: Serve) -> None:
    edge = await serve(stream={"heartbeat_s": 0.02})
    for case in (CHAT_CASE, MESSAGES_CASE, RESPONSES_CASE, OLLAMA_CASE):
        log = planted(edge, case)
        log.append(case.says.token, 1)
        mark = {CHAT_CASE: b": ping\n", RESPONSES_CASE: b"event: keepalive\n", MESSAGES_CASE: b"event: ping\n"}
        async with RawClient(edge.port) as client:
            await client.get(f"/v1/streams/{STREAM}")
            await client.until(b"tok")
            await client.until(mark.get(case, b'"heartbeat":true'))
            over(log, WHOLE)
            answer = await client.answer()
        assert sequences(answer.body) == ([] if case.lines else [1])
        edge.edge.archive.memory.discard(STREAM)


async def test_one_that_another_principal_may_not_see(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth={"keys": ["first-key-of-two", "second-key-of-two"]})
    planted(edge)
    answer = await resumed(edge, STREAM, headers={"x-api-key": "first-key-of-two"})
    assert_told(answer, 404, CHAT_CASE.path, "stream_not_found")
