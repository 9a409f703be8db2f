"""Until the first generated content another upstream takes over, and the client cannot tell; after it none does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import aiohttp
import pytest
from fakes.model_server import FakeModel, Step, chunk, end, fin, gate, head, json_answer, rst, stall, whole
from support.faults import (
    ERROR_EVENT,
    SURFACES,
    assert_cut,
    assert_gone,
    connecting,
    every_surface,
    hole,
    passing,
    streamed_or_not,
    told_by_status,
    whole_stream,
)
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve, time_passes
from support.surfaces import SPOKEN, Spoken

LIMIT_S = 60  # in the time that the tests let pass
CLOCKS = {"connect_s": LIMIT_S, "first_token_s": LIMIT_S, "commit_after_s": 240, "heartbeat_s": 1000}
TOLD = {"error": {"message": "from the second", "type": "t", "param": None, "code": "c"}}


@pytest.fixture
async def second() -> AsyncIterator[FakeModel]:
    async with FakeModel() as server:
        yield server


def good(spoken: Spoken) -> list[Step]:
    return [head(), chunk(spoken.prelude + spoken.token + spoken.ending), end()]


@dataclass(frozen=True)
class First:
    """What the first upstream does with the request."""

    steps: Callable[[Spoken], list[Step]]


def after_prelude(*steps: Step) -> First:
    return First(lambda spoken: [head(), chunk(spoken.prelude or b": x\n\n"), *steps])


FIRST = {
    **{
        str(status): First(lambda _, status=status: json_answer(TOLD, status))  # type: ignore[misc]
        for status in (408, 429, 500, 502, 503, 529)
    },
    "reset": First(lambda _: [rst()]),
    "eof": First(lambda _: [fin()]),
    "html": First(lambda _: whole(b"<html>", 200, {"Content-Type": "text/html"})),
    "dies after its prelude": after_prelude(rst()),
    "ends after its prelude": after_prelude(end()),
    "error after its prelude": First(lambda spoken: [head(), chunk(spoken.prelude + ERROR_EVENT[spoken.path]), end()]),
    "silent": First(lambda _: [passing(LIMIT_S + 1), stall()]),
    "silent after its prelude": after_prelude(passing(LIMIT_S + 1), stall()),
}


async def two(serve: Serve, fake: FakeModel, second: FakeModel) -> Running:
    fake.close_after_answer = True  # no pooled connection: what dies on one is tried again first
    return await serve(fake.url, second.url, upstream=SURFACES, stream=CLOCKS)


async def assert_second_answers(edge: Running, second: FakeModel, spoken: Spoken, *, stream: bool) -> None:
    """With one id, one status, one prelude; the record tells of both attempts."""
    before = len(edge.records)
    second.script(*good(spoken))
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream), {"x-request-id": f"id-{before}"})
    assert (answer.status, answer.clean) == (200, True)
    assert answer.headers["x-edge-upstream"] == "up1"
    assert answer.headers["x-request-id"] == f"id-{before}"
    record = await edge.record(before)
    assert (record["outcome"], record["attempts"], record["upstream"]) == ("complete", 2, "up1")
    if stream:
        assert answer.body == whole_stream(spoken)
        assert record["events"] == len(answer.events)
    assert record["stream_id"] == answer.headers["x-stream-id"]
    assert second.requests[-1].headers["x-request-id"] == f"id-{before}"
    assert len(edge.records) == len(second.requests) == before + 1


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
@streamed_or_not
async def test_the_second_answers_if_the_first_cannot(
    serve: Serve, fake: FakeModel, second: FakeModel, first: First, *, stream: bool
) -> None:
    edge = await two(serve, fake, second)
    for spoken in SPOKEN:
        fake.script(*first.steps(spoken))
        await assert_second_answers(edge, second, spoken, stream=stream)
    assert [request.body for request in fake.requests] == [request.body for request in second.requests]
    assert edge.edge.fleet.members[0].up  # it was reached; whether it is well is its own looks' to say
    await assert_gone(fake)


@every_surface
@pytest.mark.parametrize("how", ["refuses", "hangs"])
async def test_the_second_answers_if_the_first_cannot_be_reached(
    serve: Serve, fake: FakeModel, second: FakeModel, spoken: Spoken, how: str
) -> None:
    """And from then on it is not even asked, as readiness tells, until it answers a look."""
    edge = await two(serve, fake, second)
    await fake.refuse()
    if how == "hangs":
        with hole(fake.port):
            answering = asyncio.create_task(assert_second_answers(edge, second, spoken, stream=True))
            await connecting(edge)
            time_passes(LIMIT_S + 1)
            await answering
    else:
        await assert_second_answers(edge, second, spoken, stream=True)
    async with aiohttp.ClientSession(edge.url) as http, http.get("/ready") as ready:
        assert ready.status == 200
        upstreams = (await ready.json())["upstreams"]
    assert [(upstreams[name]["up"], upstreams[name]["why"]) for name in ("up", "up1")] == [
        (False, "could not be connected to"),
        (True, None),
    ]
    second.script(*good(spoken))
    await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert (await edge.record(1))["attempts"] == 1
    await fake.listen()
    await edge.edge.fleet.look()
    assert edge.edge.fleet.members[0].up


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@streamed_or_not
async def test_an_error_that_is_the_requests_is_not_tried_elsewhere(
    serve: Serve, fake: FakeModel, second: FakeModel, status: int, *, stream: bool
) -> None:
    edge = await two(serve, fake, second)
    for number, spoken in enumerate(SPOKEN):
        fake.script(*json_answer(TOLD, status))
        answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
        assert answer.status == status
        assert (await edge.record(number))["attempts"] == 1
    assert second.requests == []


@every_surface
async def test_there_is_no_failover_after_the_first_content(
    serve: Serve, fake: FakeModel, second: FakeModel, spoken: Spoken
) -> None:
    """Two halves of two answers are no answer; a whole answer of a client that waits for all of it neither."""
    edge = await two(serve, fake, second)
    fake.script(head(), chunk(spoken.prelude + spoken.token), rst())
    assert_cut(spoken, await ask(edge.port, spoken.path, spoken.asked(stream=True)))
    fake.script(head(), chunk(spoken.prelude + spoken.token), rst())
    assert (await ask(edge.port, spoken.path, spoken.asked(stream=False))).status == 502
    assert [record["attempts"] for record in edge.records] == [1, 1]
    assert second.requests == []


@every_surface
@streamed_or_not
async def test_if_all_fail_the_last_failure_is_told(
    serve: Serve, fake: FakeModel, second: FakeModel, spoken: Spoken, *, stream: bool
) -> None:
    edge = await two(serve, fake, second)
    fake.script(rst())
    second.script(*json_answer(TOLD, 503, {"Retry-After": "9"}))
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert (answer.status, answer.headers["retry-after"]) == (503, "9")
    assert told_by_status(spoken, answer)["message"] == "from the second"
    assert answer.headers["x-edge-upstream"] == "up1"
    record = await edge.record()
    assert (record["outcome"], record["attempts"], record["upstream"]) == ("upstream_error", 2, "up1")


async def test_a_reader_that_leaves_is_not_tried_for_elsewhere(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    fake.script(gate("held"))
    edge = await two(serve, fake, second)
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await fake.reached("held")
    record = await edge.record()
    assert (record["outcome"], record["attempts"]) == ("client_gone", 1)
    assert second.requests == []


async def test_the_less_busy_upstream_is_chosen(serve: Serve, fake: FakeModel, second: FakeModel) -> None:
    """The first of those that are equally busy; an upstream is no longer busy once its answer is over."""
    fake.script(head(), chunk(SPOKEN[0].token), gate("busy"), chunk(SPOKEN[0].ending), end())
    edge = await two(serve, fake, second)
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        assert [await served_by(edge) for _ in range(2)] == ["up1", "up1"]
        fake.open("busy")
        assert (await client.answer()).clean
    assert await served_by(edge) == "up"


async def test_an_attempt_that_failed_makes_nobody_busy(serve: Serve, fake: FakeModel, second: FakeModel) -> None:
    fake.script(rst())
    second.script(head(), chunk(SPOKEN[0].token), gate("busy"))
    edge = await two(serve, fake, second)
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
        assert [member.active for member in edge.edge.fleet.members] == [0, 1]


async def served_by(edge: Running) -> str:
    return (await ask(edge.port, CHAT, chat_body())).headers["x-edge-upstream"]
