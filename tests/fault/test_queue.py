"""In front of an upstream's slots requests wait in turn, know where they stand, and are told when it takes too long."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from fakes.model_server import FakeModel, Step, chat_answer, chunk, end, gate, head, json_answer, rst, stall
from fakes.ollama import be_ollama, last, token
from support.eventsource import parsed
from support.faults import (
    SURFACES,
    assert_cut,
    every_surface,
    passing,
    payload,
    streamed_or_not,
    told_by_status,
    whole_stream,
)
from support.ollama import CHAT as OLLAMA
from support.ollama import GENERATE, NDJSON, lines_of
from support.raw import CHAT, MESSAGES, RESPONSES, Answer, RawClient, ask, chat_body, split_events
from support.running import Running, Serve, make_settings, time_passes
from support.shapes import get
from support.slots import ONE, Clients, held, lane, occupied, taken, until_taken
from support.surfaces import SPOKEN, Spoken

from edge.policy.queue.lanes import Lane

PHASES = ("queued_s", "connecting_s", "upstream_s", "client_blocked_s", "edge_s")
PICKY = {"upstream": {"max_concurrency": 1, "num_ctx": 100, "on_truncation": "refuse"}}
LIMIT_S = 60  # in the time that the tests let pass
LONG = {"inter_token_s": 10 * LIMIT_S}  # for who has the slot meanwhile
QUICK = {"commit_after_s": 0.05, "heartbeat_s": 0.05}


@pytest.fixture
async def second() -> AsyncIterator[FakeModel]:
    async with FakeModel() as server:
        yield server


async def test_a_request_gets_to_the_server_when_the_one_before_it_has_ended(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        second = await clients.ask(waits=True)
        third = await clients.ask(body=chat_body(stream=False), waits=True)
        assert len(fake.requests) == 1
        fake.script(*held("second"))
        fake.open("first")
        assert (await first.answer()).clean
        await second.until(b"tok")
        assert taken(edge) == (1, 0, 1)
        assert len(fake.requests) == 2
        fake.open("second")
        assert (await second.answer()).clean
        assert (await third.answer()).json["usage"]["completion_tokens"] == 3
    for number in range(3):
        record = await edge.record(number)
        assert (record["outcome"], record["attempts"], record["upstream"]) == ("complete", 1, "up")
        assert (record["queued_s"] > 0) == (number > 0)
        assert sum(record[phase] for phase in PHASES) == pytest.approx(record["total_s"], abs=1e-5)
    assert taken(edge) == (0, 0, 0)


async def stopped(edge: Running, stream: str) -> None:
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}", method="DELETE")
        assert (await client.answer()).status in (200, 202)


# What the server may make of the request that has the slot.
ENDS: dict[str, list[Step]] = {
    "whole": [head(), chunk(SPOKEN[0].token + SPOKEN[0].ending), end()],
    "an error": json_answer({"error": {"message": "no", "code": 500}}, 500),
    "refused": json_answer({"error": {"message": "no", "code": 400}}, 400),
    "a reset": [rst()],
    "a reset in mid-answer": [head(), chunk(SPOKEN[0].token), rst()],
    "nonsense": [head(), chunk(b"data: {nonsense\n\n"), stall()],
    "silence": [passing(LIMIT_S + 1), stall()],
    "silence in mid-answer": [head(), chunk(SPOKEN[0].token), passing(LIMIT_S + 1), stall()],
}


@streamed_or_not
@pytest.mark.parametrize("how", ENDS)
async def test_however_one_ends_the_next_has_its_slot(serve: Serve, fake: FakeModel, how: str, stream: bool) -> None:
    fake.close_after_answer = True
    fake.script(gate("first"), *ENDS[how])
    waits_on = {"drain_s": 0, "interactive_wait_s": 10 * LIMIT_S}
    edge = await serve(
        upstream={"max_concurrency": 1}, queue=waits_on, stream={"first_token_s": LIMIT_S, "inter_token_s": LIMIT_S}
    )
    async with Clients(edge) as clients:
        await clients.ask(body=chat_body(stream=stream))
        await fake.reached("first")
        second = await clients.ask(waits=True)
        fake.open("first")
        answer = await second.answer()
        assert (answer.status, answer.clean) == (200, True)
        assert (await edge.record())["attempts"] == 1
    await until_taken(edge, 0, 0, 0)


@streamed_or_not
async def test_stopped_by_its_id_it_gives_its_slot_on(serve: Serve, fake: FakeModel, stream: bool) -> None:
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        waits = await clients.ask(body=chat_body(stream=stream), waits=True)
        last = await clients.ask(waits=True)
        running, waiting, _ = list(edge.edge.registry.streams)
        await stopped(edge, waiting)
        told = await waits.answer()
        assert (told.status, told.json["error"]["code"]) == (409, "stopped")
        await stopped(edge, running)
        await first.answer()
        assert (await last.answer()).clean
    assert [(await edge.record(n))["outcome"] for n in range(3)] == ["stopped", "stopped", "complete"]
    assert len(fake.requests) == 2
    assert taken(edge) == (0, 0, 0)


# --- heartbeats, and the deadline of the commit --------------------------------------------------------------------


BEATS = {
    MESSAGES: b"event: ping",
    RESPONSES: b'event: keepalive\ndata: {"type":"keepalive","sequence_number":0}\n: queued 1\n\n',
}


def kinds_of(body: bytes) -> list[tuple[str, int]]:
    return [(told["type"], told["sequence_number"]) for told in map(payload, split_events(body))]


@every_surface
async def test_who_waits_is_told_where_it_stands_and_then_has_its_answer(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    edge = await serve(upstream={**SURFACES, "max_concurrency": 1}, queue={"drain_s": 0}, stream=QUICK)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(spoken.path, spoken.asked(stream=True), waits=True)
        beat = BEATS.get(spoken.path, b": queued 1\n\n")
        await waits.until(beat)
        assert b"HTTP/1.1 200" in waits.buffer
        fake.script(head(), chunk(spoken.prelude + spoken.token + spoken.ending), end())
        fake.open("first")
        answer = await waits.answer()
    assert answer.clean
    assert "x-edge-upstream" not in answer.headers, "it was not known when the status went out"
    beats = [event for event in answer.events if event.startswith(beat.strip())]
    assert beats
    body = answer.body.replace(beats[0], b"")
    if spoken.path == RESPONSES:  # Edge's own response.created, which the upstream's is merged into
        assert kinds_of(body) == kinds_of(whole_stream(spoken))
    else:
        assert body == whole_stream(spoken)
    record = await edge.record(1)
    assert (record["outcome"], record["upstream"], record["heartbeats"]) == ("complete", "up", len(beats))
    assert record["queued_s"] > 0


async def test_the_comment_tells_about_how_long_it_takes(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, stream=QUICK)
    async with Clients(edge) as clients:
        await ask(edge.port, CHAT, chat_body())
        await occupied(edge, fake, clients)
        first, second = await clients.ask(waits=True), await clients.ask(waits=True)
        await first.until(b": queued 1, about 1 s\n\n")
        await second.until(b": queued 2, about 1 s\n\n")
        fake.open("first")
        await second.answer()


@pytest.mark.parametrize("path", [OLLAMA, GENERATE])
async def test_to_an_ollama_client_it_is_a_line_without_text(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve(**ONE, stream=QUICK)
    asked = {"model": "m", "prompt": "hi", "messages": [{"role": "user", "content": "hi"}]}
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(path, asked, waits=True)
        await waits.until(b'"done":false')
        assert taken(edge) == (1, 0, 1)
        fake.open("first")
        told = lines_of(await waits.answer())
    said = [line["message"]["content"] if path == OLLAMA else line["response"] for line in told]
    assert said[0] == ""
    assert "".join(said) == "Hello there"
    assert [line["done"] for line in told] == [False] * (len(told) - 1) + [True]


@pytest.mark.parametrize("path", [CHAT, "/v1/chat/stream"])
async def test_where_events_have_ids_the_comment_is_no_event(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve(**ONE, stream=QUICK)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        body = chat_body() if path == CHAT else {"message": "hi"}
        waits = await clients.ask(path, body, {"x-edge-resume": "1"}, waits=True)
        await waits.until(b": queued 1\n")
        fake.open("first")
        answer = await waits.answer()
    assert b": queued 1\n\n" not in answer.body
    assert answer.clean
    numbers = [int(event.id.rpartition(":")[2]) for event in parsed(answer.body).events]
    assert numbers == list(range(1, len(numbers) + 1))


# --- refused -------------------------------------------------------------------------------------------------------


def refused(answer: Answer) -> tuple[int, bool]:
    """The status, and whether it says when to come again."""
    return answer.status, int(answer.headers["retry-after"]) * 1000 == int(answer.headers["retry-after-ms"])


@every_surface
@streamed_or_not
async def test_who_has_waited_for_too_long_is_told_by_the_status(
    serve: Serve, fake: FakeModel, spoken: Spoken, stream: bool
) -> None:
    queue = {"drain_s": 0, "interactive_wait_s": LIMIT_S}
    edge = await serve(upstream={**SURFACES, "max_concurrency": 1}, queue=queue, stream={**LONG, "commit_after_s": 240})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(spoken.path, spoken.asked(stream=stream), waits=True)
        time_passes(LIMIT_S + 1)
        answer = await waits.answer()
    assert refused(answer) == (503, True)
    assert (answer.headers["x-edge-queue-position"], answer.headers["x-edge-queue-length"]) == ("1", "1")
    error = told_by_status(spoken, answer)
    assert "no slot of up became free within" in error["message"]
    if spoken.path != MESSAGES:
        assert error["code"] == "queue_timeout"
    record = next(line for line in edge.records if line["status"] == 503)
    assert (record["outcome"], record["attempts"], record["error"]) == ("queue_timeout", 0, "queue_timeout")
    assert "upstream" not in record
    assert record["queued_s"] >= LIMIT_S
    assert len(fake.requests) == 1


@every_surface
async def test_after_the_status_it_is_told_in_the_stream(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    queue = {"drain_s": 0, "interactive_wait_s": LIMIT_S}
    edge = await serve(upstream={**SURFACES, "max_concurrency": 1}, queue=queue, stream={**QUICK, **LONG})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(spoken.path, spoken.asked(stream=True), waits=True)
        await waits.until(b"event: ping" if spoken.path == MESSAGES else b"\n: queued 1")
        time_passes(LIMIT_S + 1)
        answer = await waits.answer()
    error = assert_cut(spoken, answer)
    assert "became free within" in error["message"]
    kinds = {event.splitlines()[0].split(b" ")[0:2][-1] for event in answer.events[:-1]}
    if spoken.path == RESPONSES:
        assert kinds == {b"response.created", b"keepalive", b"error"}
        assert all(b"\n: queued 1" in event for event in answer.events[1:-2])
        assert (error["sequence_number"], error["code"]) == (1, "queue_timeout")
    else:
        assert kinds == ({b"ping"} if spoken.path == MESSAGES else {b"queued"})
    record = next(line for line in edge.records if line["outcome"] == "queue_timeout")
    assert (record["status"], record["error"]) == (200, "queue_timeout")


async def test_likewise_to_an_ollama_client(serve: Serve, fake: FakeModel) -> None:
    queue = {"drain_s": 0, "interactive_wait_s": LIMIT_S}
    edge = await serve(upstream={"max_concurrency": 1}, queue=queue, stream={**QUICK, **LONG})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(OLLAMA, chat_body(), waits=True)
        await waits.until(b'"done":false')
        time_passes(LIMIT_S + 1)
        answer = await waits.answer()
    *before, last = map(orjson.loads, answer.body.splitlines())
    assert before
    assert all(line["message"]["content"] == "" for line in before)
    assert last.keys() == {"error"}
    assert (answer.clean, answer.ending) == (True, "framed")


@streamed_or_not
async def test_where_the_queue_is_full_it_is_told_at_once(serve: Serve, fake: FakeModel, stream: bool) -> None:
    edge = await serve(upstream={"max_concurrency": 1}, queue={"interactive_length": 1, "drain_s": 0})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        last = await clients.ask(waits=True)
        answer = await ask(edge.port, CHAT, chat_body(stream=stream))
        assert refused(answer) == (503, True)
        assert (answer.headers["x-edge-queue-position"], answer.headers["x-edge-queue-length"]) == ("2", "1")
        assert answer.json["error"]["code"] == "server_is_overloaded"
        record = await edge.record()
        assert (record["outcome"], record["attempts"], record["queued_s"]) == ("rejected", 0, 0)
        assert len(fake.requests) == fake.live == 1
        fake.open("first")
        assert (await last.answer()).clean
    assert taken(edge) == (0, 0, 0)


async def test_whoever_fills_the_queue_makes_room_for_another(serve: Serve, fake: FakeModel) -> None:
    """With a key of its own; the one that has to go is told that it is its own part that is used up."""
    queue = {"interactive_length": 2, "drain_s": 0}
    edge = await serve(upstream={"max_concurrency": 1}, queue=queue, auth={"keys": ["one", "other"]})
    one, other = {"x-api-key": "one"}, {"x-api-key": "other"}
    async with Clients(edge) as clients:
        fake.script(*held("first"))
        await (await clients.ask(headers=one)).until(b"tok")
        await clients.ask(headers=one, waits=True)
        newest = await clients.ask(headers=one, waits=True)
        begun = len(edge.lines.of("start"))
        late = await clients.ask(headers=other)
        answer = await newest.answer()
        assert refused(answer) == (429, True)
        assert answer.json["error"]["code"] == "rate_limit_exceeded"
        assert refused(await ask(edge.port, CHAT, chat_body(), one)) == (429, True)
        assert taken(edge) == (1, 0, 2)
        fake.script(*held("next"))
        fake.open("first")
        await late.until(b"tok")
        assert len(fake.requests) == 2, "whoever had nothing yet is next"
        fake.open("next")
    assert begun == 3


# --- who is next ---------------------------------------------------------------------------------------------------


async def served(edge: Running, fake: FakeModel, clients: Clients, *waiting: RawClient) -> list[int]:
    """Let everybody have the one slot; in which order they got it."""
    order = []
    left = dict(enumerate(waiting))
    for turn in range(len(waiting)):
        fake.script(*held(f"turn {turn}"))
        fake.open("first" if turn == 0 else f"turn {turn - 1}")
        await fake.reached(f"turn {turn}")
        tasks = {number: asyncio.create_task(client.until(b"tok")) for number, client in left.items()}
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        order += [number for number, task in tasks.items() if task.done()]
        for task in tasks.values():
            task.cancel()
        await asyncio.wait(tasks.values())
        for number in order:
            left.pop(number, None)
    fake.open(f"turn {len(waiting) - 1}")
    return order


async def test_without_keys_each_address_is_one_caller(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, server={"trusted_proxies": ["127.0.0.1"]})
    flood, other = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        flooding = [await clients.ask(headers=flood, waits=True) for _ in range(4)]
        late = await clients.ask(headers=other, waits=True)
        assert await served(edge, fake, clients, *flooding, late) in ([0, 4, 1, 2, 3], [4, 0, 1, 2, 3])
        assert {line["principal"] for line in edge.lines.of("start")} == {"anonymous"}


async def test_batch_goes_after_interactive(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        batch = await clients.ask(headers={"x-edge-lane": "batch"}, waits=True)
        session = await clients.ask("/v1/chat/stream", {"message": "hi"}, {"x-edge-lane": " Batch "}, waits=True)
        assert (lane(edge, Lane.INTERACTIVE), lane(edge, Lane.BATCH)) == (0, 2)
        hurried = await clients.ask(headers={"x-edge-lane": "interactive"}, waits=True)
        assert await served(edge, fake, clients, batch, session, hurried) == [2, 0, 1]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/v1/chat/stream"])
async def test_a_lane_that_is_none_is_named(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve()
    answer = await ask(edge.port, path, chat_body(message="hi"), {"x-edge-lane": "express"})
    assert answer.status == 400
    message = answer.json["error"]["message"]
    assert message == "x-edge-lane: must be interactive or batch, not 'express'"
    assert fake.requests == []


async def test_what_needs_no_slot_does_not_wait(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={**SURFACES, "max_concurrency": 1, "relay": ["/tokenize"]}, queue={"drain_s": 0})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        for path, body in (("/v1/messages/count_tokens", SPOKEN[2].request), ("/tokenize", {"content": "hi"})):
            fake.script(*json_answer({"input_tokens": 3, "tokens": [1]}), path=path)
            answer = await ask(edge.port, path, {"model": "m", **body})
            assert answer.status == 200
        assert taken(edge) == (1, 0, 0)
        fake.open("first")


# --- several upstreams ---------------------------------------------------------------------------------------------


async def both_taken(edge: Running, fakes: list[FakeModel], clients: Clients) -> list[RawClient]:
    running = []
    for server in fakes:
        server.script(*held("first"))
        running.append(await clients.ask())
    for client in running:
        await client.until(b"tok")
    assert taken(edge) == (len(fakes), 0, 0)
    return running


async def test_the_first_free_slot_of_any_upstream_is_taken(serve: Serve, fake: FakeModel, second: FakeModel) -> None:
    edge = await serve(fake.url, second.url, **ONE)
    async with Clients(edge) as clients:
        await both_taken(edge, [fake, second], clients)
        waits = await clients.ask(waits=True)
        second.open("first")
        answer = await waits.answer()
        assert answer.headers["x-edge-upstream"] == "up1"
        fake.open("first")
    assert [len(server.requests) for server in (fake, second)] == [1, 2]
    await until_taken(edge, 0, 0, 0)


async def test_a_slot_of_one_that_cannot_be_asked_this_is_given_on(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    """A prompt that an Ollama would cut; whoever waits for others too waits on for those."""
    be_ollama(second, "m", version="0.12.5")
    edge = await serve(fake.url, second.url, **PICKY, queue={"drain_s": 0})
    async with Clients(edge) as clients:
        fake.script(*held("first"))
        await (await clients.ask()).until(b"tok")
        second.script(head(200, NDJSON), chunk(token("tok")), gate("first"), chunk(last()), end(), path=OLLAMA)
        await (await clients.ask()).until(b"tok")
        waits = await clients.ask(body=chat_body(messages=[{"role": "user", "content": "too long " * 200}]), waits=True)
        second.open("first")
        await edge.record()
        assert taken(edge) == (1, 0, 1)
        fake.open("first")
        answer = await waits.answer()
        assert (answer.clean, answer.headers["x-edge-upstream"]) == (True, "up")
    assert len(second.requests) == 1
    await until_taken(edge, 0, 0, 0)


async def test_who_has_to_try_another_upstream_goes_first_there(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    edge = await serve(fake.url, second.url, **ONE)
    async with Clients(edge) as clients:
        fake.script(gate("first"), *json_answer({"error": {"message": "no"}}, 500))
        fails = await clients.ask()
        second.script(*held("first"))
        await (await clients.ask()).until(b"tok")
        others = [await clients.ask(waits=True) for _ in range(2)]
        fake.script(*held("next"))
        fake.open("first")
        await fake.reached("next")
        assert taken(edge) == (2, 0, 2), "one of those that waited has the slot, whoever failed waits for the other"
        second.script(*chat_answer(["mine"]))
        second.open("first")
        answer = await fails.answer()
        assert b"mine" in answer.body
        fake.open("next")
        for client in others:
            assert (await client.answer()).clean
    failed = next(line for line in edge.records if line["attempts"] == 2)
    assert (failed["outcome"], failed["upstream"]) == ("complete", "up1")
    assert failed["queued_s"] > 0
    await until_taken(edge, 0, 0, 0)


async def test_an_upstream_that_goes_down_costs_those_that_wait_nothing(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    edge = await serve(fake.url, second.url, **ONE)
    async with Clients(edge) as clients:
        first, _ = await both_taken(edge, [fake, second], clients)
        waiting = [await clients.ask(body=chat_body(stream=n % 2 == 0), waits=True) for n in range(4)]
        await fake.refuse()
        first.close()
        await edge.record()
        await edge.edge.fleet.look()
        second.open("first")
        for client in waiting:
            answer = await client.answer()
            assert (answer.status, answer.clean, answer.headers["x-edge-upstream"]) == (200, True, "up1")
    assert len(fake.requests) == 1
    assert taken(edge) == (0, 0, 0)


async def test_one_that_is_down_is_waited_for(serve: Serve, fake: FakeModel) -> None:
    """A restart of the server is nothing that a client in the queue has to know of."""
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        waits = await clients.ask(waits=True)
        await fake.refuse()
        await edge.edge.fleet.look()
        first.close()
        await edge.record()
        assert (await ask(edge.port, CHAT, chat_body())).status == 503, "who comes now is told that it is down"
        assert taken(edge) == (0, 0, 1)
        await fake.listen()
        await edge.edge.fleet.look()
        assert (await waits.answer()).clean


# --- changes while somebody waits ----------------------------------------------------------------------------------


async def test_another_number_of_slots_is_in_force_at_once(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(waits=True)
        await edge.edge.reload(make_settings(fake.url, upstream={"max_concurrency": 2}, queue={"drain_s": 0}))
        assert (await waits.answer()).clean
        fake.open("first")
    await until_taken(edge, 0, 0, 0)


async def test_an_upstream_that_is_taken_away_is_not_waited_for(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE)
    async with Clients(edge) as clients:
        first = await occupied(edge, fake, clients)
        waits = await clients.ask(waits=True)
        await edge.edge.reload(make_settings())
        answer = await waits.answer()
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_upstream")
        fake.open("first")
        assert (await first.answer()).clean


async def test_who_waits_when_edge_is_stopped_is_told(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(**ONE, server={"drain_s": 0.1})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        waits = await clients.ask(body=chat_body(stream=False), waits=True)
        stopping = asyncio.create_task(edge.edge.stop())
        answer = await waits.answer()
        assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
        await stopping


# --- figures -------------------------------------------------------------------------------------------------------


async def test_the_metrics_tell_of_slots_and_queues(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"max_concurrency": 2}, queue={"interactive_length": 1, "drain_s": 0})
    async with Clients(edge) as clients:
        await occupied(edge, fake, clients)
        fake.script(*held("second"))
        await clients.ask()
        waits = await clients.ask(waits=True)
        assert (await ask(edge.port, CHAT, chat_body())).status == 503
        told = (await get(edge.port, "/metrics")).body.decode().splitlines()
        for line in (
            'edge_slots{state="busy",upstream="up"} 2.0',
            'edge_slots{state="draining",upstream="up"} 0.0',
            'edge_slots{state="free",upstream="up"} 0.0',
            'edge_queue_length{lane="interactive",upstream="up"} 1.0',
            'edge_queue_length{lane="batch",upstream="up"} 0.0',
            'edge_slot_grants_total{upstream="up"} 2.0',
            'edge_queue_refusals_total{upstream="up"} 1.0',
            'edge_zombie_seconds_total{upstream="up"} 0.0',
        ):
            assert line in told
        assert any(line.startswith('edge_queue_oldest_seconds{upstream="up"} 0.') for line in told)
        fake.open("first")
        fake.open("second")
        await waits.answer()
    told = (await get(edge.port, "/metrics")).body.decode().splitlines()
    assert 'edge_slots{state="free",upstream="up"} 2.0' in told
    assert 'edge_queue_wait_seconds_count{upstream="up"} 3.0' in told
    assert 'edge_queue_wait_seconds_count{upstream="none"} 1.0' in told
