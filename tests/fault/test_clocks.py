"""Each clock that runs out has its own outcome, is told before or after the commit, and stops the model."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fakes.model_server import (
    FakeModel,
    Step,
    Wire,
    chat_role,
    chunk,
    end,
    flood,
    framed,
    gate,
    head,
    messages_ping,
    no_read,
    stall,
)
from support.faults import (
    SURFACES,
    assert_cut,
    beats,
    connecting,
    every_surface,
    hole,
    streamed_or_not,
    told_by_status,
)
from support.raw import CHAT, EMBEDDINGS, MESSAGES, Answer, RawClient, ask, chat_body
from support.running import Running, Serve, time_passes
from support.surfaces import SPOKEN, Spoken

LIMIT_S = 60  # in the time that a test lets pass
# Those that are not under test do not run out when it passes.
OTHERS: dict[str, Any] = {"commit_after_s": 240, "heartbeat_s": 1000}
CHAT_SPOKEN = SPOKEN[0]
TOOL = {"type": "function", "function": {"name": "write", "parameters": {"type": "object", "properties": {}}}}


def assert_timed_out(spoken: Spoken, answer: Answer, code: str) -> None:
    """The status says so."""
    assert answer.status == 504
    error = told_by_status(spoken, answer)
    assert f"{LIMIT_S} s" in error["message"]
    if spoken.path == MESSAGES:
        assert error["type"] == "timeout_error"
    else:
        assert error["code"] == code


def dripping(data: bytes) -> Step:
    """The same over and over, until the peer leaves."""

    async def run(wire: Wire) -> None:
        while True:
            await wire.write(framed(data))
            await asyncio.sleep(0.01)

    return run


Reached = Callable[[RawClient], Awaitable[object]]


async def late(edge: Running, path: str, body: Any, reached: Reached, version: str = "1.1") -> Answer:
    """The answer to a request for which time passes as soon as it has come so far."""
    async with RawClient(edge.port) as client:
        await client.post(path, body, version=version)
        await reached(client)
        time_passes(LIMIT_S + 1)
        return await client.answer()


def asked(fake: FakeModel) -> Reached:
    """So far: the model server has it."""
    return lambda _: fake.request(0)


def tokens(edge: Running) -> int:
    """How many Edge has read for its one exchange."""
    return sum(exchange.generation.token_count for exchange in edge.edge.registry)


def token_read(edge: Running) -> Reached:
    """So far: Edge has the first token."""
    return lambda _: edge.wait(lambda: tokens(edge))


async def assert_recorded(edge: Running, outcome: str, status: int) -> None:
    record = await edge.record()
    assert (record["outcome"], record["error"], record["status"]) == (outcome, outcome, status)
    assert record["total_s"] >= LIMIT_S
    phases = ("queued_s", "connecting_s", "upstream_s", "client_blocked_s", "edge_s")
    assert sum(record[phase] for phase in phases) == pytest.approx(record["total_s"], abs=1e-5)


@every_surface
@streamed_or_not
async def test_connecting_takes_too_long(serve: Serve, fake: FakeModel, spoken: Spoken, *, stream: bool) -> None:
    """The time is booked on connecting, and the upstream is not tried again before it has answered a look."""
    fake.close_after_answer = True  # so that no connection is in the pool
    edge = await serve(upstream=SURFACES, stream={"connect_s": LIMIT_S, **OTHERS})
    await fake.refuse()
    with hole(fake.port):
        answer = await late(edge, spoken.path, spoken.asked(stream=stream), lambda _: connecting(edge))
        assert_timed_out(spoken, answer, "connect_timeout")
        await assert_recorded(edge, "connect_timeout", 504)
        assert (await edge.record())["connecting_s"] >= LIMIT_S
        again = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
        assert again.status == 503


@every_surface
@streamed_or_not
@pytest.mark.parametrize("silent", ["unread", "before the status", "after the status", "prelude", "heartbeats"])
async def test_the_first_token_takes_too_long(
    serve: Serve, fake: FakeModel, spoken: Spoken, silent: str, *, stream: bool
) -> None:
    """What is not generated content does not wind the clock up, however often it comes."""
    scripts: dict[str, list[Step]] = {
        "unread": [no_read()],
        "before the status": [],
        "after the status": [head()],
        "prelude": [head(), chunk(spoken.prelude or b": x\n\n")],
        "heartbeats": [head(), dripping(messages_ping() + b": x\n\n")],
    }
    fake.script(*scripts[silent], stall())
    edge = await serve(upstream=SURFACES, stream={"first_token_s": LIMIT_S, **OTHERS})
    answer = await late(edge, spoken.path, spoken.asked(stream=stream), asked(fake))
    assert_timed_out(spoken, answer, "first_token_timeout")
    await assert_recorded(edge, "first_token_timeout", 504)
    await fake.requests[0].left()


@every_surface
@pytest.mark.parametrize("http", ["1.1", "1.0"])
@pytest.mark.parametrize("silent", ["between events", "inside an event"])
async def test_a_silence_between_tokens_is_too_long(
    serve: Serve, fake: FakeModel, spoken: Spoken, silent: str, http: str
) -> None:
    scripts: dict[str, list[Step]] = {
        "between events": [],
        "inside an event": [chunk(spoken.token[:-5])],
    }
    fake.script(head(), chunk(spoken.prelude + spoken.token), *scripts[silent], stall())
    edge = await serve(upstream=SURFACES, stream={"inter_token_s": LIMIT_S, **OTHERS})
    answer = await late(edge, spoken.path, spoken.asked(stream=True), token_read(edge), version=http)
    assert answer.body.startswith(spoken.prelude + spoken.token)
    error = assert_cut(spoken, answer)
    assert f"{LIMIT_S} s" in error["message"]
    await assert_recorded(edge, "upstream_stall", 200)
    await fake.requests[0].left()


@every_surface
async def test_a_server_that_shows_life_and_nothing_else_is_too_slow(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    """Not by the clock for silences, but when the rest has taken as long as the first token may."""
    fake.script(head(), chunk(spoken.prelude + spoken.token), dripping(messages_ping() + b": x\n\n"))
    edge = await serve(upstream=SURFACES, stream={"inter_token_s": 1000, "first_token_s": LIMIT_S, **OTHERS})
    answer = await late(edge, spoken.path, spoken.asked(stream=True), token_read(edge))
    assert f"{LIMIT_S} s" in assert_cut(spoken, answer)["message"]
    await assert_recorded(edge, "upstream_stall", 200)
    await fake.requests[0].left()


@streamed_or_not
@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        ({"tools": [TOOL]}, "complete"),
        ({"tools": [TOOL], "tool_choice": "none"}, "upstream_stall"),
        ({"tools": []}, "upstream_stall"),
    ],
    ids=["tools", "forbidden", "none"],
)
async def test_a_call_may_be_written_in_silence(
    serve: Serve, fake: FakeModel, asked: dict[str, Any], outcome: str, *, stream: bool
) -> None:
    """By a server that parses calls when they are whole, which is what an unknown one may be."""
    fake.script(head(), chunk(CHAT_SPOKEN.prelude + CHAT_SPOKEN.token), gate("rest"), chunk(CHAT_SPOKEN.ending), end())
    edge = await serve(stream={"inter_token_s": LIMIT_S, "first_token_s": 1000, **OTHERS})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=stream, **asked))
        await token_read(edge)(client)
        time_passes(3 * LIMIT_S)
        fake.open("rest")
        await client.answer()
    assert (await edge.record())["outcome"] == outcome


async def test_role_chunks_without_end_are_no_answer(serve: Serve, fake: FakeModel) -> None:
    """They are neither held without bound nor told the client, so that another upstream can be asked."""
    fake.script(head(), flood(10**12, chat_role()))
    async with FakeModel() as second:
        second.script(head(), chunk(CHAT_SPOKEN.prelude + CHAT_SPOKEN.token + CHAT_SPOKEN.ending), end())
        edge = await serve(fake.url, second.url)
        answer = await ask(edge.port, CHAT, chat_body())
    assert answer.clean
    assert answer.body.count(b'"role"') == CHAT_SPOKEN.prelude.count(b'"role"')
    record = await edge.record()
    assert (record["outcome"], record["attempts"]) == ("complete", 2)
    assert record["client_blocked_s"] < record["upstream_s"]
    await fake.requests[0].left()


@every_surface
async def test_a_silence_between_tokens_fails_a_whole_answer(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    fake.script(head(), chunk(spoken.prelude + spoken.token), stall())
    edge = await serve(upstream=SURFACES, stream={"inter_token_s": LIMIT_S, **OTHERS})
    answer = await late(edge, spoken.path, spoken.asked(stream=False), token_read(edge))
    assert_timed_out(spoken, answer, "upstream_stall")
    await assert_recorded(edge, "upstream_stall", 504)
    await fake.requests[0].left()


@every_surface
@streamed_or_not
@pytest.mark.parametrize("begun", [False, True], ids=["waiting", "streaming"])
async def test_the_whole_takes_too_long(
    serve: Serve, fake: FakeModel, spoken: Spoken, *, stream: bool, begun: bool
) -> None:
    """However lively it is; and no other upstream is tried, since there is no time left."""
    fake.script(head(), chunk(spoken.prelude or b": x\n\n"), dripping(spoken.token if begun else b": x\n\n"))
    async with FakeModel() as second:
        edge = await serve(fake.url, second.url, upstream=SURFACES, stream={"total_s": LIMIT_S, **OTHERS})
        body = spoken.asked(stream=stream)
        answer = await late(edge, spoken.path, body, token_read(edge) if begun else asked(fake))
        assert second.requests == []
    if begun and stream:
        assert f"{LIMIT_S} s" in assert_cut(spoken, answer)["message"]
    else:
        assert_timed_out(spoken, answer, "total_timeout")
    await assert_recorded(edge, "total_timeout", answer.status)
    await fake.requests[0].left()


async def test_the_whole_includes_connecting(serve: Serve, fake: FakeModel) -> None:
    fake.close_after_answer = True
    edge = await serve(stream={"total_s": LIMIT_S, "connect_s": 1000, **OTHERS})
    await fake.refuse()
    with hole(fake.port):
        answer = await late(edge, CHAT, chat_body(), lambda _: connecting(edge))
    assert_timed_out(CHAT_SPOKEN, answer, "total_timeout")


async def test_a_clock_after_the_deadlines_commit_is_told_in_band(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(CHAT_SPOKEN.prelude), stall())
    edge = await serve(stream={"first_token_s": LIMIT_S, "commit_after_s": 0.05, "heartbeat_s": 0.05})
    answer = await late(edge, CHAT, chat_body(), lambda client: client.until(b": ping"))
    assert answer.events[0] == b": ping\n\n"
    assert assert_cut(CHAT_SPOKEN, answer)["code"] == "first_token_timeout"
    await fake.requests[0].left()


async def test_an_answer_that_is_not_streamed_has_the_first_tokens_clock(serve: Serve, fake: FakeModel) -> None:
    fake.script(stall())
    edge = await serve(stream={"first_token_s": LIMIT_S, **OTHERS})
    answer = await late(edge, EMBEDDINGS, {"model": "m", "input": "hi"}, asked(fake))
    assert_timed_out(CHAT_SPOKEN, answer, "first_token_timeout")
    await fake.requests[0].left()


async def test_an_error_body_that_never_ends_has_the_first_tokens_clock(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(500, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}), chunk(b"{"), stall())
    edge = await serve(stream={"first_token_s": LIMIT_S, **OTHERS})
    assert_timed_out(CHAT_SPOKEN, await late(edge, CHAT, chat_body(), asked(fake)), "first_token_timeout")
    await fake.requests[0].left()


async def test_clocks_start_anew_for_each_token(serve: Serve, fake: FakeModel) -> None:
    """A long answer is no stall: it takes longer than the limit, and ends well."""
    gates = [step for n in range(4) for step in (gate(f"{n}"), chunk(CHAT_SPOKEN.token))]
    fake.script(head(), *gates, gate("4"), chunk(CHAT_SPOKEN.ending), end())
    edge = await serve(stream={"inter_token_s": LIMIT_S, "heartbeat_s": LIMIT_S / 4})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        for n in range(4):
            fake.open(f"{n}")
            await fake.reached(f"{n + 1}")
            while client.received.count(b'"tok"') <= n:
                assert await client.receive()
            time_passes(0)  # the token is seen to be written: the silence begins here, not after it
            time_passes(LIMIT_S / 3)
            await beats(edge, n + 1)
        fake.open("4")
        answer = await client.answer()
    assert answer.clean
    record = await edge.record()
    assert (record["outcome"], record["heartbeats"]) == ("complete", 4)
    assert record["total_s"] > LIMIT_S > record["itl_max_s"] > LIMIT_S / 3
