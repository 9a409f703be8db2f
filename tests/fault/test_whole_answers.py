"""In front of a vLLM, a client that wants no stream gets the server's own answer: it is not asked for a stream."""

import asyncio

import pytest
from fakes.model_server import FakeModel, chunk, end, gate, head, json_answer, rst, stall, whole
from support.raw import CHAT, COMPLETIONS, RawClient, ask, chat_body
from support.running import Serve
from support.slots import until_taken
from support.surfaces import SPOKEN, Spoken
from support.vllm import ANSWERS, as_vllm, at_work_on

every_surface = pytest.mark.parametrize("spoken", SPOKEN, ids=str)
JSON = {"Content-Type": "application/json"}
GONE_S = 2.0  # measured: a few milliseconds; the rest is for a busy machine
RESUMED = {"X-Edge-Resume": "1"}


@every_surface
async def test_the_answer_is_the_servers_own_byte_for_byte(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    fake.script(*whole(ANSWERS[spoken.path], 200, JSON))
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert (answer.status, answer.clean, answer.body) == (200, True, ANSWERS[spoken.path])
    assert fake.requests[0].json == spoken.asked(stream=False)
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["streaming"]) == ("complete", "finished", False)
    assert record.get("ttft_s") is None, "when its first token came is not known"
    reported = ("reported", True, True)
    assert (record["tokens_from"], record["tokens_in"] > 0, record["tokens_out"] > 0) == reported
    async with RawClient(edge.port) as client:
        await client.get("/metrics")
        metrics = (await client.answer()).body.decode()
    counts = [line for line in metrics.splitlines() if "gen_ai_server_time_to_first_token_seconds_count" in line]
    assert all(line.endswith(" 0.0") for line in counts), counts


async def test_options_of_a_stream_do_not_make_it_one(serve: Serve, fake: FakeModel) -> None:
    """vLLM refuses them on a request that is not to be streamed."""
    fake.script(*whole(ANSWERS[CHAT], 200, JSON))
    edge = await serve(as_vllm(fake).url)
    options = {"include_usage": True, "continuous_usage_stats": True}
    assert (await ask(edge.port, CHAT, chat_body(stream=False, stream_options=options))).body == ANSWERS[CHAT]
    assert fake.requests[0].json == chat_body(stream=False)


@every_surface
async def test_a_client_that_wants_a_stream_gets_one(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert fake.requests[0].json["stream"] is True
    assert (await edge.record())["ttft_s"] is not None


async def test_an_answer_that_is_kept_is_made_of_a_stream(serve: Serve, fake: FakeModel) -> None:
    """It was asked for as one to come back to; sessions are always streams."""
    edge = await serve(as_vllm(fake).url)
    assert (await ask(edge.port, CHAT, chat_body(stream=False), RESUMED)).status == 200
    assert fake.requests[0].json["stream"] is True


async def test_a_translated_answer_is_made_of_a_stream(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(as_vllm(fake).url)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    assert (await ask(edge.port, "/api/chat", body)).status == 200
    assert fake.requests[0].json["stream"] is True


async def test_who_only_looks_like_one_is_not_trusted_to_stop(serve: Serve, fake: FakeModel) -> None:
    """Two owners in a list: a proxy before several servers, of which nobody knows what they do."""
    as_vllm(fake)
    status, headers, body = fake.get["/v1/models"]
    more = b'{"id":"n","object":"model","created":1,"owned_by":"llamacpp"}'
    fake.get["/v1/models"] = (status, headers, body.replace(b'"data":[', b'"data":[' + more + b","))
    edge = await serve(fake.url)
    assert (await ask(edge.port, CHAT, chat_body(stream=False))).status == 200
    assert fake.requests[0].json["stream"] is True


@every_surface
@pytest.mark.parametrize("begun", [False, True], ids=["headers", "body"])
async def test_a_reader_that_leaves_closes_the_connection_and_its_slot_drains(
    serve: Serve, fake: FakeModel, spoken: Spoken, *, begun: bool
) -> None:
    half = [head(200, {**JSON, "Content-Length": "99"}), chunk(b'{"object":')]
    fake.script(*(half if begun else []), gate("held"), stall())
    at_work_on(as_vllm(fake), 1)
    edge = await serve(fake.url, upstream={"max_concurrency": 1})
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=False))
        await fake.reached("held")
        client.close()
        await fake.requests[0].left(GONE_S)
        await until_taken(edge, 0, 1, 0)
        at_work_on(fake, 0)
        await until_taken(edge, 0, 0, 0)
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("client_gone", "gone", 499)


async def test_no_token_is_waited_for(serve: Serve, fake: FakeModel) -> None:
    """Nothing comes before all of it does, which may well take longer than a first token may."""
    fake.script(gate("late"), *whole(ANSWERS[CHAT], 200, JSON))
    edge = await serve(as_vllm(fake).url, stream={"first_token_s": 0.05, "inter_token_s": 0.05})
    asking = asyncio.create_task(ask(edge.port, CHAT, chat_body(stream=False)))
    await fake.reached("late")
    await asyncio.sleep(0.5)  # it is the passing of time that is under test; the ticker looks several times in it
    assert not asking.done()
    fake.open("late")
    assert (await asking).body == ANSWERS[CHAT]


@pytest.mark.parametrize("begun", [False, True], ids=["headers", "body"])
async def test_its_own_clock(serve: Serve, fake: FakeModel, *, begun: bool) -> None:
    fake.script(*([head(200, {**JSON, "Content-Length": "99"})] if begun else []), stall())
    edge = await serve(as_vllm(fake).url, stream={"whole_s": 0.06})
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert answer.status == 504
    assert "0.06 s (stream.whole_s)" in answer.json["error"]["message"]
    await fake.requests[0].left(GONE_S)
    assert (await edge.record())["outcome"] == "first_token_timeout"


async def test_what_nobody_can_stream_has_that_clock_too(serve: Serve, fake: FakeModel) -> None:
    """Whoever the server is; what is not generated keeps the other."""
    fake.script(stall(), path=COMPLETIONS)
    edge = await serve(stream={"whole_s": 0.06, "first_token_s": 100})
    answer = await ask(edge.port, COMPLETIONS, {"model": "m", "prompt": "hi", "echo": True})
    assert (answer.status, "whole_s" in answer.json["error"]["message"]) == (504, True)


async def test_another_server_is_asked_until_it_is_whole(serve: Serve, fake: FakeModel) -> None:
    """Nothing has been handed on: what broke in the middle costs the client nothing."""
    async with FakeModel() as other:
        fake.script(head(200, {**JSON, "Content-Length": "99"}), chunk(b'{"object":'), rst())
        other.script(*whole(ANSWERS[CHAT], 200, JSON))
        edge = await serve(as_vllm(fake).url, as_vllm(other).url)
        answer = await ask(edge.port, CHAT, chat_body(stream=False))
        assert (answer.status, answer.body) == (200, ANSWERS[CHAT])
        assert (await edge.record())["attempts"] == 2


async def test_a_finish_that_means_that_it_broke_is_no_answer(serve: Serve, fake: FakeModel) -> None:
    fake.script(*whole(ANSWERS[CHAT].replace(b'"finish_reason":"length"', b'"finish_reason":"abort"'), 200, JSON))
    edge = await serve(as_vllm(fake).url)
    assert (await ask(edge.port, CHAT, chat_body(stream=False))).status == 502


async def test_an_error_keeps_its_words(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer({"error": {"message": "no such thing", "type": "BadRequestError", "code": 400}}, 400))
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.json["error"]["message"]) == (400, "no such thing")


@every_surface
async def test_a_stream_all_the_same_is_collected(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    """Some proxies before a vLLM stream whatever they are asked."""
    fake.script(head(), chunk(spoken.prelude + spoken.token + spoken.ending), end())
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert b"tok" in answer.body
