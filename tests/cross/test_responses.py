"""Responses in front of servers that do not speak it: chat completions, and Ollama's own API."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_delta,
    chat_events,
    chat_finish,
    chat_role,
    chat_usage,
    chunk,
    end,
    head,
    messages_block_stop,
    messages_delta,
    messages_event,
    messages_events,
    messages_start,
    messages_stop,
    stream_answer,
)
from support.raw import RESPONSES, Answer, ask
from support.responses import (
    CHAT,
    MESSAGES,
    OLLAMA,
    asked,
    events_of,
    texts_of,
    well_formed,
)
from support.running import Serve

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "description": "The weather.", "parameters": SCHEMA}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files."}
ACROSS = "é🎈日本語"  # two, four and three bytes a character

streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def chat_said(*deltas: dict[str, Any], reason: str = "stop") -> list[Step]:
    last = [chat_finish(reason), chat_usage(), DONE]
    return stream_answer([chat_role(), *map(chat_delta, deltas), *last])


def ollama_said(*messages: dict[str, Any], reason: str = "stop") -> list[Step]:
    return ollama.ollama_answer([*(ollama.said(**one) for one in messages), ollama.last(reason)])


def chat_call(index: int, arguments: str, **first: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": first.pop("name")} if first else {})}
    return {"tool_calls": [{"index": index, "function": function, **first}]}


def ollama_calls(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"content": "", "tool_calls": [{"function": call} for call in calls]}


def claude_said(*blocks: tuple[dict[str, Any], tuple[dict[str, Any], ...]], reason: str = "end_turn") -> list[Step]:
    """Blocks as Anthropic sends them: each with its deltas."""
    told = [messages_start()]
    for index, (begun, deltas) in enumerate(blocks):
        told.append(messages_event("content_block_start", index=index, content_block=begun))
        told += [messages_event("content_block_delta", index=index, delta=delta) for delta in deltas]
        told.append(messages_block_stop(index))
    return stream_answer([*told, messages_delta(reason), messages_stop()])


def claude_text(*pieces: str) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    return {"type": "text", "text": ""}, tuple({"type": "text_delta", "text": piece} for piece in pieces)


def claude_call(identity: str, *pieces: str) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    begun = {"type": "tool_use", "id": identity, "name": "weather", "input": {}}
    return begun, tuple({"type": "input_json_delta", "partial_json": piece} for piece in pieces)


CLAUDE_THOUGHT: tuple[dict[str, Any], tuple[dict[str, Any], ...]] = (
    {"type": "thinking", "thinking": "", "signature": ""},
    (
        {"type": "thinking_delta", "thinking": "Hm"},
        {"type": "thinking_delta", "thinking": "m"},
        {"type": "signature_delta", "signature": "sig=="},
    ),
)

# What each server is, and how it says: a text, a thought, two calls at once, a text cut short, nothing.
TEXT, THOUGHT, CALLS, SHORT, NOTHING = "text", "thought", "calls", "short", "nothing"
CHAT_SAYS = {
    TEXT: chat_said({"content": "Hel"}, {"content": "lo"}),
    THOUGHT: chat_said({"reasoning_content": "Hm"}, {"reasoning_content": "m"}, {"content": "Hello"}),
    CALLS: chat_said(
        *(chat_call(0, "", id="call_a", name="weather"), chat_call(0, '{"city":')),
        *(chat_call(1, "", id="call_b", name="weather"), chat_call(1, '{"city":"Oslo"}'), chat_call(0, '"Rome"}')),
        reason="tool_calls",
    ),
    SHORT: chat_said({"content": "Hel"}, reason="length"),
    NOTHING: chat_said(),
}
OLLAMA_SAYS = {
    TEXT: ollama_said({"content": "Hel"}, {"content": "lo"}),
    THOUGHT: ollama_said({"thinking": "Hm"}, {"thinking": "m"}, {"content": "Hello"}),
    CALLS: ollama_said(
        ollama_calls({"name": "weather", "arguments": {"city": "Rome"}}),
        ollama_calls({"name": "weather", "arguments": {"city": "Oslo"}}),
    ),
    SHORT: ollama_said({"content": "Hel"}, reason="length"),
    NOTHING: ollama_said(),
}
CLAUDE_SAYS = {
    TEXT: claude_said(claude_text("Hel", "lo")),
    THOUGHT: claude_said(CLAUDE_THOUGHT, claude_text("Hello")),
    CALLS: claude_said(
        claude_call("toolu_a", '{"city":', '"Rome"}'), claude_call("toolu_b", '{"city":"Oslo"}'), reason="tool_use"
    ),
    SHORT: claude_said(claude_text("Hel"), reason="max_tokens"),
    NOTHING: claude_said(),
}
SERVERS = {"chat": (CHAT, CHAT_SAYS), "ollama": (OLLAMA, OLLAMA_SAYS), "messages": (MESSAGES, CLAUDE_SAYS)}
every_server = pytest.mark.parametrize("server", SERVERS)
Saying = Callable[..., Any]


@pytest.fixture
def saying(serve: Serve, fake: FakeModel) -> Saying:
    """Ask, of a server of this kind that says this; the final response."""

    async def run(server: str, what: str, *, stream: bool, **fields: Any) -> dict[str, Any]:
        upstream, says = SERVERS[server]
        fake.script(*says[what])
        edge = await serve(upstream=upstream)
        return response_of(await ask(edge.port, RESPONSES, asked(stream=stream, **fields)), stream=stream)

    return run


def response_of(answer: Answer, *, stream: bool) -> dict[str, Any]:
    assert (answer.status, answer.clean) == (200, True), answer.body
    if not stream:
        assert answer.headers["content-type"].startswith("application/json")
        return dict(answer.json)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert b"[DONE]" not in answer.body
    return well_formed(events_of(answer))


# --- what is said --------------------------------------------------------------------------------------------------


@every_server
@streamed_or_not
async def test_a_text_comes_with_its_usage(saying: Saying, server: str, *, stream: bool) -> None:
    response = await saying(server, TEXT, stream=stream)
    assert texts_of(response) == [("message", "Hello")]
    assert response["status"] == "completed"
    usage = response["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)


@every_server
@streamed_or_not
async def test_a_thought_is_an_item_before_the_text(saying: Saying, server: str, *, stream: bool) -> None:
    response = await saying(server, THOUGHT, stream=stream)
    assert texts_of(response) == [("reasoning", "Hmm"), ("message", "Hello")]


@every_server
@streamed_or_not
async def test_calls_at_once_are_items_of_their_own(saying: Saying, server: str, *, stream: bool) -> None:
    response = await saying(server, CALLS, stream=stream, tools=[WEATHER])
    calls = [(item["type"], item["name"], orjson.loads(item["arguments"])) for item in response["output"]]
    assert calls == [("function_call", "weather", {"city": "Rome"}), ("function_call", "weather", {"city": "Oslo"})]
    assert len({item["call_id"] for item in response["output"]}) == 2


@every_server
@streamed_or_not
async def test_an_answer_that_ran_out_of_tokens_is_incomplete(saying: Saying, server: str, *, stream: bool) -> None:
    response = await saying(server, SHORT, stream=stream)
    assert texts_of(response) == [("message", "Hel")]
    assert (response["status"], response["incomplete_details"]["reason"]) == ("incomplete", "max_output_tokens")


@every_server
@streamed_or_not
async def test_an_empty_answer_is_an_answer(saying: Saying, server: str, *, stream: bool) -> None:
    response = await saying(server, NOTHING, stream=stream)
    assert texts_of(response) == [("message", "")]
    assert response["status"] == "completed"


@every_server
@streamed_or_not
async def test_text_arrives_whole_however_the_network_cuts_it(
    serve: Serve, fake: FakeModel, server: str, *, stream: bool
) -> None:
    upstream, _ = SERVERS[server]
    edge = await serve(upstream=upstream)
    said = [*ACROSS, "\n\r\u2028"]
    headers = None
    if server == "chat":
        data = b"".join(chat_events(said))
    elif server == "messages":
        data = b"".join(messages_events(said))
    else:
        data = b"".join([*(ollama.said(content=piece) for piece in said), ollama.last()])
        headers = ollama.HEADERS
    for pieces in (chunk(data, every=1), chunk(data, every=7), chunk(data)):
        fake.script(head(200, headers), pieces, end())
        response = response_of(await ask(edge.port, RESPONSES, asked(stream=stream)), stream=stream)
        assert texts_of(response) == [("message", ACROSS + "\n\r\u2028")]


async def test_a_custom_tools_call_comes_back_as_one(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=CHAT)
    call = chat_call(0, '{"input":"*** Begin Patch"}', id="call_a", name="apply_patch")
    fake.script(*chat_said(call, reason="tool_calls"))
    answer = await ask(edge.port, RESPONSES, asked(stream=True, tools=[PATCH]))
    (item,) = response_of(answer, stream=True)["output"]
    assert (item["type"], item["call_id"], item["input"]) == ("custom_tool_call", "call_a", "*** Begin Patch")


# --- what is asked -------------------------------------------------------------------------------------------------


async def test_a_turn_of_codex_reaches_a_chat_server(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=CHAT)
    conversation = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Sandbox: none."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather in Rome?"}]},
        {"type": "reasoning", "summary": [], "encrypted_content": None},
        {"type": "function_call", "name": "weather", "arguments": '{"city":"Rome"}', "call_id": "call_a"},
        {"type": "function_call_output", "call_id": "call_a", "output": "sunny"},
    ]
    answer = await ask(
        edge.port,
        RESPONSES,
        asked(
            instructions="You are Codex.",
            input=conversation,
            tools=[WEATHER, {"type": "web_search", "external_web_access": False}],
            tool_choice="auto",
            parallel_tool_calls=True,
            reasoning={"effort": "medium", "summary": "auto"},
            store=False,
            stream=True,
            include=["reasoning.encrypted_content"],
            prompt_cache_key="019a",
            max_output_tokens=9,
        ),
    )
    response = response_of(answer, stream=True)
    assert texts_of(response) == [("message", "Hello there")]
    assert answer.headers["x-edge-dropped-params"] == "tools.1"
    assert fake.requests[0].path == "/v1/chat/completions"
    assert fake.requests[0].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are Codex.\n\nSandbox: none."},
            {"role": "user", "content": "Weather in Rome?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_a",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "call_a", "content": "sunny"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA},
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning_effort": "medium",
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_a_request_reaches_an_ollama_in_its_own_words(serve: Serve, fake: FakeModel) -> None:
    fake.script(*ollama_said({"content": "{}"}))
    edge = await serve(upstream=OLLAMA)
    image = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}
    body = asked(
        instructions="Be brief.",
        input=[{"role": "user", "content": [{"type": "input_text", "text": "What is it?"}, image]}],
        text={"format": {"type": "json_schema", "name": "city", "schema": SCHEMA}},
        temperature=0.5,
        max_output_tokens=9,
        user="me",
    )
    answer = await ask(edge.port, RESPONSES, body)
    assert answer.headers["x-edge-dropped-params"] == "user"
    assert fake.requests[0].path == "/api/chat"
    assert fake.requests[0].json == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is it?", "images": ["iVBORw0KGgo="]},
        ],
        "format": SCHEMA,
        "options": {"temperature": 0.5, "num_predict": 9},
        "stream": True,
    }


@streamed_or_not
@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0.type"),
        ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
    ],
    ids=["previous_response_id", "store", "background", "file", "tool_choice"],
)
async def test_what_cannot_be_had_is_a_bad_request_that_names_it(
    serve: Serve, fake: FakeModel, fields: dict[str, Any], named: str, *, stream: bool
) -> None:
    edge = await serve(upstream=OLLAMA)
    answer = await ask(edge.port, RESPONSES, asked(stream=stream, **fields))
    assert answer.status == 400
    assert (answer.json["error"]["param"], answer.json["error"]["type"]) == (named, "invalid_request_error")
    assert fake.requests == []


async def test_an_input_that_would_be_cut_is_named(serve: Serve, fake: FakeModel) -> None:
    ollama.be_ollama(fake, "m", version="0.12.5")
    edge = await serve(upstream={"kind": "ollama", "num_ctx": 2048, "on_truncation": "refuse"})
    answer = await ask(edge.port, RESPONSES, asked(input="long " * 20_000))
    error = answer.json["error"]
    assert (answer.status, error["param"], error["code"]) == (400, "input", "context_length_exceeded")
    assert fake.requests == []


async def test_a_claude_gets_its_signed_thoughts_back(serve: Serve, fake: FakeModel) -> None:
    """It refuses a turn with a tool's result whose thought is missing; Codex returns only what it cannot read."""
    edge = await serve(upstream=MESSAGES)
    fake.script(*claude_said(CLAUDE_THOUGHT, claude_call("toolu_a", "{}"), reason="tool_use"))
    thinking = {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"], "tools": [WEATHER]}
    first = response_of(await ask(edge.port, RESPONSES, asked(stream=True, **thinking)), stream=True)
    thought, called = first["output"]
    history = [
        {"role": "user", "content": "hi"},
        {name: thought[name] for name in ("type", "id", "summary", "encrypted_content")},
        called,
        {"type": "function_call_output", "call_id": called["call_id"], "output": "sunny"},
    ]
    second = await ask(edge.port, RESPONSES, asked(stream=True, **thinking, input=history))
    assert texts_of(response_of(second, stream=True)) == [("message", "Hello there")]
    assert fake.requests[1].json["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hmm", "signature": "sig=="},
                {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_a", "content": [{"type": "text", "text": "sunny"}]}
            ],
        },
    ]


async def test_a_server_that_speaks_responses_is_still_relayed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"surfaces": ["chat", "responses"]})
    await ask(edge.port, RESPONSES, asked(previous_response_id="resp_1"))
    assert fake.requests[0].path == "/v1/responses"
    assert fake.requests[0].json["previous_response_id"] == "resp_1"
