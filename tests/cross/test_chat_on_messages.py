"""Chat clients in front of a server that speaks Anthropic Messages alone."""

from typing import Any

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chunk,
    end,
    head,
    json_answer,
    messages_answer,
    messages_delta,
    messages_error,
    messages_event,
    messages_start,
    messages_stop,
    stream_answer,
)
from support.raw import CHAT, MESSAGES, Answer, ask, chat_body
from support.running import Running, Serve


@pytest.fixture
async def anthropic(serve: Serve) -> Running:
    return await serve(upstream={"surfaces": ["messages"]})


def chunks(answer: Answer) -> list[Any]:
    assert answer.events[-1] == DONE
    return [orjson.loads(event[6:]) for event in answer.events[:-1]]


async def test_a_chat_client_gets_a_chat_stream(anthropic: Running, fake: FakeModel) -> None:
    fake.script(*messages_answer(["Hel", "lo"]))
    messages = [{"role": "system", "content": "be brief"}, *chat_body()["messages"]]
    asked = chat_body(messages=messages, seed=1, stop=["x"], user="me", stream_options={"include_usage": True})
    answer = await ask(anthropic.port, CHAT, asked)
    *told, usage = chunks(answer)
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in told) == "Hello"
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    assert usage["usage"]["total_tokens"] == 9
    assert answer.headers["x-edge-dropped-params"] == "seed"
    sent = fake.requests[0]
    assert sent.path == MESSAGES
    assert sent.json == {
        "model": "m", "system": "be brief", "max_tokens": 4096, "stream": True, "stop_sequences": ["x"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}], "metadata": {"user_id": "me"},
    }  # fmt: skip


async def test_tools_and_thinking_come_back_as_openais(anthropic: Running, fake: FakeModel) -> None:
    def block(index: int, begun: dict[str, Any], *deltas: dict[str, Any]) -> list[bytes]:
        start = messages_event("content_block_start", index=index, content_block=begun)
        told = [messages_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        return [start, *told, messages_event("content_block_stop", index=index)]

    use = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {}}
    fake.script(
        *stream_answer(
            [
                messages_start(),
                *block(
                    0,
                    {"type": "thinking", "thinking": "", "signature": ""},
                    {"type": "thinking_delta", "thinking": "hm"},
                    {"type": "signature_delta", "signature": "sig"},
                ),
                *block(1, use, *({"type": "input_json_delta", "partial_json": p} for p in ('{"tz":', '"UTC"}'))),
                messages_delta("tool_use"),
                messages_stop(),
            ]
        )
    )
    tool = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
    answer = await ask(anthropic.port, CHAT, chat_body(stream=False, tools=[tool], tool_choice="required"))
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert (call["id"], call["function"]) == ("toolu_1", {"name": "clock", "arguments": '{"tz":"UTC"}'})
    assert choice["message"]["reasoning_content"] == "hm"
    assert fake.requests[0].json["tool_choice"] == {"type": "any"}


async def test_errors_come_back_as_openais(anthropic: Running, fake: FakeModel) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    fake.script(*json_answer(overloaded, 529))
    fake.script(head(), chunk(messages_start() + messages_error("boom")), end())
    before = await ask(anthropic.port, CHAT, chat_body())
    assert (before.status, before.json["error"]["message"]) == (529, "busy")
    middle = await ask(anthropic.port, CHAT, chat_body())
    assert (middle.status, middle.json["error"]["message"]) == (502, "boom")


async def test_what_tools_gave_goes_back_in_one_message(anthropic: Running, fake: FakeModel) -> None:
    fake.script(*messages_answer())
    calls = [
        {"id": f"call:{n}", "type": "function", "function": {"name": "clock", "arguments": "{}"}} for n in range(2)
    ]
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call:0", "content": "a"},
        {"role": "tool", "tool_call_id": "call:1", "content": "b"},
        {"role": "user", "content": "so?"},
    ]
    await ask(anthropic.port, CHAT, chat_body(messages=messages))
    _, assistant, user = fake.requests[0].json["messages"]
    assert [block["id"] for block in assistant["content"]] == ["call_0", "call_1"]
    assert [block.get("tool_use_id", block["type"]) for block in user["content"]] == ["call_0", "call_1", "text"]


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
)
async def test_what_messages_cannot_say_is_refused(
    anthropic: Running, fake: FakeModel, extra: dict[str, Any], param: str
) -> None:
    answer = await ask(anthropic.port, CHAT, chat_body(**extra))
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert fake.requests == []
