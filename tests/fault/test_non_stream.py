"""A client that wants no stream gets one JSON answer; Edge streams it from upstream all the same, if it can."""

import asyncio

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    flood,
    head,
    json_answer,
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_event,
    messages_start,
    messages_stop,
    responses_body,
    responses_event,
    rst,
    send,
    short_answer,
    sse_error,
    stall,
)
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, RawClient, ask, chat_body
from support.running import Serve
from support.surfaces import SPOKEN, Spoken

every_surface = pytest.mark.parametrize("spoken", SPOKEN, ids=str)
SURFACES = {"surfaces": ["chat", "completions", "responses", "messages", "embeddings"]}
REFUSAL = {"error": {"message": "streaming is not supported here", "type": "invalid_request_error", "code": 400}}


def error_of(answer: Answer) -> dict[str, object]:
    """The error object, which is where every surface has it."""
    assert answer.clean
    error = answer.json["error"]
    assert isinstance(error, dict)
    return error


@every_surface
async def test_it_is_streamed_from_upstream_and_collected(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    sent = fake.requests[0].json
    assert sent["stream"] is True
    assert (sent.get("stream_options") == {"include_usage": True}) is (spoken.path in (CHAT, COMPLETIONS))
    assert (answer.status, answer.clean, answer.headers["content-type"]) == (200, True, "application/json")
    assert answer.json == short_answer(spoken.path, {"stream": False})
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["streaming"]) == ("complete", "finished", False)
    assert record["bytes_out"] == len(answer.body)


@every_surface
async def test_a_server_that_answers_in_json_all_the_same_is_passed_on(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    body = b'{ "id" : "kept as it is", "choices":[{}], "content":[], "output":[], "unknown":[1.0, 1e3] }'
    fake.script(head(200, {"Content-Type": "application/json", "Content-Length": str(len(body))}), send(body))
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert (answer.status, answer.body) == (200, body)
    assert (await edge.record())["outcome"] == "complete"


@pytest.mark.parametrize("status", [400, 422, 501])
async def test_a_server_that_refuses_to_stream_is_asked_again(serve: Serve, fake: FakeModel, status: int) -> None:
    fake.script(*json_answer(REFUSAL, status))
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.json) == (200, short_answer(CHAT, {}))
    first, second = (request.json for request in fake.requests)
    assert (first["stream"], second["stream"]) == (True, False)
    assert "stream_options" not in second
    record = await edge.record()
    assert (record["outcome"], record["attempts"]) == ("complete", 2)


async def test_a_client_that_wants_a_stream_is_told_that_there_is_none(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer(REFUSAL, 400))
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.status == 400
    assert error_of(answer)["message"] == REFUSAL["error"]["message"]
    assert len(fake.requests) == 1


@pytest.mark.parametrize("param", [{"prompt_logprobs": 1}, {"best_of": 2}])
async def test_what_nobody_can_stream_is_not_asked_as_a_stream(
    serve: Serve, fake: FakeModel, param: dict[str, int]
) -> None:
    edge = await serve()
    answer = await ask(edge.port, COMPLETIONS, {"model": "m", "prompt": "hi", **param})
    assert (answer.status, answer.json) == (200, short_answer(COMPLETIONS, {}))
    (sent,) = (request.json for request in fake.requests)
    assert "stream_options" not in sent
    assert not sent.get("stream")
    assert sent.items() >= param.items()


@every_surface
@pytest.mark.parametrize("how", [fin(), rst()], ids=["fin", "reset"])
async def test_a_cut_is_a_502(serve: Serve, fake: FakeModel, spoken: Spoken, how) -> None:
    fake.script(head(), chunk(spoken.prelude + spoken.token), how)
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert answer.status == 502
    assert "broke off" in str(error_of(answer)["message"])
    record = await edge.record()
    assert (record["outcome"], record["status"], record["error"]) == ("upstream_cut", 502, "upstream_cut")


@pytest.mark.parametrize(("code", "status"), [(429, 429), (500, 500), ("weird", 502)])
async def test_an_error_in_the_stream_has_the_status_that_it_tells(
    serve: Serve, fake: FakeModel, code: int | str, status: int
) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok") + sse_error(code=code)), end())
    edge = await serve()
    assert (await ask(edge.port, CHAT, chat_body(stream=False))).status == status
    assert (await edge.record())["status"] == status


@every_surface
async def test_an_error_in_the_stream_is_a_502(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    errors = {
        MESSAGES: messages_event("error", error={"type": "api_error", "message": "the model broke"}),
        RESPONSES: responses_event("error", 5, code="server_error", message="the model broke", param=None),
    }
    fake.script(head(), chunk(spoken.prelude + spoken.token + errors.get(spoken.path, sse_error(code="broken"))), end())
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert answer.status == 502
    assert error_of(answer)["message"] == "the model broke"
    record = await edge.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", 502)


@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "json"])
async def test_an_answer_over_the_bound_is_a_502_and_stops_the_model(
    serve: Serve, fake: FakeModel, streamed: bool
) -> None:
    if streamed:
        fake.script(head(), chunk(chat_role()), flood(10**12, chat_token("tok")))
    else:
        fake.script(head(200, {"Content-Type": "application/json"}), flood(10**12, b" "))
    edge = await serve(stream={"max_answer_bytes": 100_000})
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert answer.status == 502
    assert "bytes" in str(error_of(answer)["message"])
    await fake.requests[0].left()
    record = await edge.record()
    assert (record["outcome"], record["status"], record["error"]) == ("upstream_error", 502, "upstream_error")


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


async def test_an_answer_nested_too_deep_to_be_written_is_a_502(serve: Serve, fake: FakeModel) -> None:
    """It can be parsed (1,024 levels), but not written again (some 250)."""
    whole = orjson.dumps({**responses_body(), "metadata": "DEEP"}).replace(b'"DEEP"', nested(600))
    last = b'event: response.completed\ndata: {"type":"response.completed","response":' + whole + b"}\n\n"
    fake.script(head(), chunk(SPOKEN[3].prelude + SPOKEN[3].token + last), end())
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, RESPONSES, SPOKEN[3].asked(stream=False))
    assert answer.status == 502
    assert error_of(answer)["code"] == "upstream_error"
    record = await edge.record()
    assert (record["status"], record["reader"], record["error"]) == (502, "finished", "upstream_error")


async def test_a_tool_input_nested_too_deep_is_a_502_too(serve: Serve, fake: FakeModel) -> None:
    """It comes as text in pieces, and is JSON only in the collected answer."""
    delta = messages_event(
        "content_block_delta",
        index=1,
        delta={"type": "input_json_delta", "partial_json": (b'{"a":' + nested(600) + b"}").decode()},
    )
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    tool = messages_event("content_block_start", index=1, content_block=block) + delta + messages_block_stop(1)
    before = messages_start() + messages_block_start() + messages_block_stop()
    fake.script(head(), chunk(before + tool + messages_delta("tool_use") + messages_stop()), end())
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, MESSAGES, SPOKEN[2].asked(stream=False))
    assert answer.status == 502
    assert answer.json["type"] == "error"
    assert (await edge.record())["status"] == 502


async def test_nothing_goes_out_before_the_answer_is_whole(serve: Serve, fake: FakeModel) -> None:
    """No deadline commits a status for a client that wants no stream."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    edge = await serve(stream={"commit_after_s": 0.05, "heartbeat_s": 0.05, "inter_token_s": 0.4})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=False))
        answer = await client.answer()
    assert (answer.status, answer.clean) == (504, True)
    assert (await edge.record())["outcome"] == "upstream_stall"


async def test_an_http_10_client_gets_a_whole_answer(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(stream=False), version="1.0")
    assert (answer.status, answer.clean) == (200, True)
    assert answer.json == short_answer(CHAT, {})
    assert (await edge.record())["http10"] is True


async def test_an_empty_answer_is_one(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + SPOKEN[0].ending.replace(DONE, b"") + DONE), end())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": ""}


async def test_many_at_once_do_not_mix(serve: Serve, fake: FakeModel) -> None:
    for number in range(30):
        fake.script(head(), chunk(chat_role() + chat_token(f"answer {number}") + SPOKEN[0].ending), end())
    edge = await serve()
    asking = [ask(edge.port, CHAT, chat_body(stream=False)) for _ in range(30)]
    texts = {answer.json["choices"][0]["message"]["content"] for answer in await asyncio.gather(*asking)}
    assert texts == {f"answer {number}" for number in range(30)}
