"""A client of chat completions in front of a server that speaks Messages alone, as Anthropic's cloud does."""

from typing import Any

import orjson
import pytest
from fakes.model_server import (
    FakeModel,
    chunk,
    end,
    gate,
    head,
    json_answer,
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_error,
    messages_event,
    messages_ping,
    messages_start,
    messages_stop,
    messages_token,
    stall,
    stream_answer,
)
from support.raw import CHAT, Answer, RawClient, ask, chat_body
from support.running import Running, Serve
from support.sessions import said, settled, text_of
from support.shapes import assert_told

SAID = 'é🎈漢字\u2028\n\r"\\ \ud7ff'
ENDED = messages_delta() + messages_stop()


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel) -> Running:
    return await serve(upstream={"surfaces": ["messages", "count_tokens"]})


def block(index: int, kind: str, *deltas: Any, **fields: Any) -> bytes:
    begun = messages_event("content_block_start", index=index, content_block={"type": kind, **fields})
    parts = [messages_event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return b"".join([begun, *parts, messages_block_stop(index)])


def text_block(*words: str, index: int = 0) -> bytes:
    return block(index, "text", *({"type": "text_delta", "text": word} for word in words), text="")


def call_block(index: int, name: str, *pieces: str) -> bytes:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", *pieces)]
    return block(index, "tool_use", *deltas, id=f"toolu_{index}", name=name, input={})


def chunks(answer: Answer) -> list[Any]:
    assert (answer.status, answer.clean) == (200, True)
    assert answer.events[-1] == b"data: [DONE]\n\n"
    return [orjson.loads(event[6:]) for event in answer.events[:-1]]


def joined(answer: Answer, name: str = "content") -> str:
    return "".join(told["choices"][0]["delta"].get(name) or "" for told in chunks(answer) if told["choices"])


async def test_a_stream_is_a_chat_stream(edge: Running, fake: FakeModel) -> None:
    fake.script(*stream_answer([messages_start(), text_block("Hel", "lo", " there"), messages_ping(), ENDED]))
    answer = await ask(edge.port, CHAT, chat_body(seed=7, stream_options={"include_usage": True}))
    first, *_, last, usage = chunks(answer)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert joined(answer) == "Hello there"
    assert last["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    assert answer.headers["x-edge-dropped-params"] == "seed"
    sent = fake.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.json["messages"] == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert (sent.json["max_tokens"], sent.json["stream"]) == (4096, True)
    record = await edge.record()
    assert (record["surface"], record["outcome"], record["tokens_out"]) == ("chat", "complete", 3)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_in_one_piece_it_is_a_chat_completion(edge: Running, fake: FakeModel, *, streamed: bool) -> None:
    """Whether the server streams it, as it is asked to, or not."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    calls = [
        {"type": "tool_use", "id": f"toolu_{n}", "name": "f", "input": given} for n, given in ((2, {"a": 1}), (3, {}))
    ]
    content = [thought, {"type": "text", "text": "Let me see."}, *calls]
    usage = {"input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 3}
    body = {"type": "message", "model": "c", "content": content, "stop_reason": "tool_use", "usage": usage}
    start = messages_event("message_start", message={**body, "content": [], "stop_reason": None})
    thinking = [{"type": "thinking_delta", "thinking": "hm"}, {"type": "signature_delta", "signature": "c2ln"}]
    events = [
        start,
        block(0, "thinking", *thinking, thinking="", signature=""),
        text_block("Let me", " see.", index=1),
        call_block(2, "f", '{"a":', "1}"),
        call_block(3, "f"),
        messages_delta("tool_use") + messages_stop(),
    ]
    fake.script(*(stream_answer(events) if streamed else json_answer(body)))
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    (choice,) = answer.json["choices"]
    assert (answer.json["model"], choice["finish_reason"]) == ("c", "tool_calls")
    message = choice["message"]
    assert (message["content"], message["reasoning_content"]) == ("Let me see.", "hm")
    told = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    assert told == [("toolu_2", "f", '{"a":1}'), ("toolu_3", "f", "{}")]
    assert answer.json["usage"]["prompt_tokens_details"] == {"cached_tokens": 5}
    assert answer.json["usage"]["prompt_tokens"] == 7


async def test_text_survives_being_cut_anywhere(edge: Running, fake: FakeModel) -> None:
    whole = messages_start() + text_block(SAID, "x", SAID) + ENDED
    fake.script(head(), chunk(whole, every=1), end())
    assert joined(await ask(edge.port, CHAT, chat_body())) == f"{SAID}x{SAID}"


async def test_a_run_of_text_is_all_there(edge: Running, fake: FakeModel) -> None:
    """Thinking, then text, each from one mould, and mixed reads."""
    thinking = [{"type": "thinking_delta", "thinking": word} for word in "abc"]
    stream = [messages_start(), block(0, "thinking", *thinking, thinking=""), text_block(*"defghij", index=1), ENDED]
    for split in (9, 70, 150, 400, 10_000):
        fake.script(head(), chunk(b"".join(stream), every=split), end())
        answer = await ask(edge.port, CHAT, chat_body())
        assert (joined(answer, "reasoning"), joined(answer)) == ("abc", "defghij")


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_tokens", "length"), ("refusal", "content_filter"), ("stop_sequence", "stop"), ("pause_turn", "length")],
)
async def test_why_it_ended(edge: Running, fake: FakeModel, reason: str, finish: str) -> None:
    fake.script(*stream_answer([messages_start(), messages_delta(reason), messages_stop()]))
    answer = await ask(edge.port, CHAT, chat_body())
    assert (joined(answer), chunks(answer)[-1]["choices"][0]["finish_reason"]) == ("", finish)


async def test_an_error_before_the_answer_is_a_status_in_the_clients_shape(edge: Running, fake: FakeModel) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    fake.script(*json_answer(overloaded, 529))
    answer = await ask(edge.port, CHAT, chat_body())
    assert_told(answer, 529, CHAT)
    assert answer.json["error"]["message"] == "Overloaded"


async def test_an_error_in_mid_stream_is_told_and_the_stream_cut(edge: Running, fake: FakeModel) -> None:
    begun = messages_start() + messages_block_start() + messages_token("a")
    fake.script(head(), chunk(begun), chunk(messages_error("boom")), end())
    answer = await ask(edge.port, CHAT, chat_body())
    assert not answer.clean
    told = orjson.loads(answer.events[-1][6:])["error"]
    assert (told["message"], set(told)) == ("boom", {"message", "type", "param", "code"})
    assert (await edge.record())["outcome"] == "upstream_error"


async def test_an_answer_without_a_stop_reason_is_cut(edge: Running, fake: FakeModel) -> None:
    fake.script(*stream_answer([messages_start(), text_block("a"), messages_stop()]))
    answer = await ask(edge.port, CHAT, chat_body())
    assert not answer.clean
    assert b"[DONE]" not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_a_client_that_leaves_stops_the_model(edge: Running, fake: FakeModel) -> None:
    begun = messages_start() + messages_block_start() + messages_token("tok")
    fake.script(head(), chunk(begun), gate("held"), stall())
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b"tok")
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    edge: Running, fake: FakeModel, fields: dict[str, Any], param: str
) -> None:
    answer = await ask(edge.port, CHAT, chat_body(**fields))
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert fake.requests == []


async def test_a_session_is_answered_by_such_a_server_too(edge: Running, fake: FakeModel) -> None:
    fake.script(*stream_answer([messages_start(), text_block("Hel", "lo"), ENDED]))
    assert text_of(await said(edge, system="be brief")) == "Hello"
    await said(edge, "and?")
    turns = [(turn["role"], turn["content"][0]["text"]) for turn in fake.requests[1].json["messages"]]
    assert turns == [("user", "hi"), ("assistant", "Hello"), ("user", "and?")]
    assert fake.requests[0].json["system"] == "be brief"
    await settled(edge)


async def test_over_the_clouds_own_sdk(serve: Serve, fake: FakeModel) -> None:
    models = {"data": [{"type": "model", "id": "m", "display_name": "M", "created_at": "2025-02-19T00:00:00Z"}]}
    fake.get["/v1/models?limit=1000"] = (200, {"Content-Type": "application/json"}, orjson.dumps(models))
    edge = await serve(fake.url, upstream={"kind": "anthropic", "api_key": "sk-ant-dummy"})
    fake.script(*stream_answer([messages_start(), text_block("Hel", "lo"), ENDED]))
    answer = await ask(edge.port, CHAT, chat_body(user="me", top_k=3, logit_bias={"1": 2}))
    assert joined(answer) == "Hello"
    sent = fake.requests[0]
    assert (sent.json["metadata"], sent.json["top_k"]) == ({"user_id": "me"}, 3)
    assert answer.headers["x-edge-dropped-params"] == "logit_bias"
    assert sent.headers["anthropic-version"]
