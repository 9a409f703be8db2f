"""Responses requests: every form of input is read, and what is wrong or cannot be had is refused by its name."""

from typing import Any

import orjson
import pytest

from edge.errors import BadRequest
from edge.protocol.canonical import (
    Ask,
    Format,
    ImagePart,
    Message,
    Target,
    TextPart,
    Thinking,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.chat.render import render
from edge.protocol.history import settle
from edge.protocol.ollama.render import render_chat
from edge.protocol.responses.parse import parse
from edge.protocol.surface import Surface

CHAT = Target(Surface.CHAT, "up")
OLLAMA = Target(Surface.OLLAMA_CHAT, "up")
PNG = "data:image/png;base64,iVBORw0KGgo="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files."}
SEARCH = {"type": "web_search", "external_web_access": False}
NAMESPACE = {"type": "namespace", "name": "mcp__github", "description": "d", "tools": [{**WEATHER, "name": "search"}]}
USER = {"role": "user", "content": "hi"}


def asked(**fields: Any) -> Ask:
    return parse({"model": "m", "input": "hi", "stream": True, **fields})


def messages(*items: Any, **fields: Any) -> list[tuple[str, tuple[Any, ...]]]:
    return [(message.role, message.parts) for message in asked(input=list(items), **fields).messages]


def call(name: str = "weather", call_id: str = "a", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "id": "fc_1", "call_id": call_id, "name": name, "arguments": arguments}


def output(call_id: str = "a", said: Any = "sunny") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": said}


def said(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def thought(text: str | None = None, summary: tuple[str, ...] = ()) -> dict[str, Any]:
    content = None if text is None else [{"type": "reasoning_text", "text": text}]
    summaries = [{"type": "summary_text", "text": one} for one in summary]
    return {"type": "reasoning", "id": "rs_1", "summary": summaries, "content": content, "encrypted_content": "gAAA"}


# --- input ---------------------------------------------------------------------------------------------------------


def test_a_string_is_a_users_message_and_instructions_lead() -> None:
    ask = asked(instructions="Be brief.")
    assert ask.messages == [
        Message("system", (TextPart("Be brief."),), "instructions"),
        Message("user", (TextPart("hi"),), "input"),
    ]


def test_easy_messages_and_typed_ones_are_the_same() -> None:
    parts = [{"type": "input_text", "text": "hi"}]
    for item in (USER, {"role": "user", "content": parts}, {"type": "message", "role": "user", "content": parts}):
        assert messages(item) == [("user", (TextPart("hi"),))]


def test_developers_are_the_system_where_they_stand() -> None:
    items = ({"role": "developer", "content": "a"}, USER, {"role": "system", "content": "b"})
    assert [role for role, _ in messages(*items)] == ["system", "user", "system"]


@pytest.mark.parametrize(
    ("url", "image"),
    [(PNG, ImagePart("image/png", "iVBORw0KGgo=")), ("https://x/y.png", ImagePart(url="https://x/y.png"))],
)
def test_images_are_read_in_messages_and_in_results(url: str, image: ImagePart) -> None:
    part = {"type": "input_image", "image_url": url, "detail": "auto"}
    assert messages({"role": "user", "content": [part]}) == [("user", (image,))]
    assert messages(call(), output(said=[part]))[1] == ("tool", (ToolResultPart("a", (image,)),))


def test_thought_text_and_calls_of_one_turn_are_one_message() -> None:
    items = (USER, thought("Hmm"), said("Let me see."), call(), call("time", "b"), output(), output("b", "noon"), USER)
    assert messages(*items) == [
        ("user", (TextPart("hi"),)),
        (
            "assistant",
            (
                *(ThinkingPart("Hmm"), TextPart("Let me see.")),
                *(ToolUsePart("a", "weather", "{}"), ToolUsePart("b", "time", "{}")),
            ),
        ),
        ("tool", (ToolResultPart("a", (TextPart("sunny"),)),)),
        ("tool", (ToolResultPart("b", (TextPart("noon"),)),)),
        ("user", (TextPart("hi"),)),
    ]


def test_what_is_said_after_a_call_does_not_come_between_it_and_its_result() -> None:
    assert [role for role, _ in messages(USER, call(), said("Wait."), thought("Hm"), output())] == [
        "user",
        "assistant",
        "tool",
    ]


def test_two_messages_of_the_assistant_stay_two() -> None:
    assert messages(said("a"), said("b"), thought("c"), said("d")) == [
        ("assistant", (TextPart("a"),)),
        ("assistant", (TextPart("b"),)),
        ("assistant", (ThinkingPart("c"), TextPart("d"))),
    ]


def test_parts_of_one_message_stay_together() -> None:
    parts = [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "b"}]
    assert messages(thought("c"), {"role": "assistant", "content": parts}) == [
        ("assistant", (ThinkingPart("c"), TextPart("a"), TextPart("b")))
    ]


def test_a_thought_is_its_content_or_else_its_summary_and_an_encrypted_one_is_nothing() -> None:
    assert messages(USER, thought("all", ("short",)))[1:] == [("assistant", (ThinkingPart("all"),))]
    assert messages(USER, thought(None, ("one", "two")))[1:] == [("assistant", (ThinkingPart("one\n\ntwo"),))]
    assert messages(USER, thought())[1:] == []


@pytest.mark.parametrize(
    "sealed", ["gAAA", "edge:", "edge:%%%", "edge:e30=", "edge:WzEsMl0=", "edge:WyJhIl0=", "edge:/w=="]
)
def test_what_somebody_else_has_encrypted_is_left_alone(sealed: str) -> None:
    assert messages(USER, {**thought(), "encrypted_content": sealed})[1:] == []


def test_calls_of_custom_tools_are_calls_with_their_text() -> None:
    patch = {"type": "custom_tool_call", "call_id": "a", "name": "apply_patch", "input": 'say "hi"\n'}
    result = {"type": "custom_tool_call_output", "call_id": "a", "output": "done"}
    (_, (use,)), told = messages(patch, result)
    assert (use.name, orjson.loads(use.arguments)) == ("apply_patch", {"input": 'say "hi"\n'})
    assert told == ("tool", (ToolResultPart("a", (TextPart("done"),)),))


def test_calls_of_a_namespaces_function_are_spelled_as_they_are_offered() -> None:
    ask = asked(input=[{**call("search"), "namespace": "mcp__github"}], tools=[NAMESPACE])
    (use,) = ask.messages[0].parts
    assert isinstance(use, ToolUsePart)
    assert use.name == ask.tools[0].name == "mcp__github__search"


def test_traces_of_a_search_are_left_out_and_told() -> None:
    ask = asked(input=[USER, {"type": "web_search_call", "id": "ws_1", "status": "completed"}])
    assert len(ask.messages) == 1
    assert ask.ignored == ["input.1"]


# --- the rest ------------------------------------------------------------------------------------------------------


def test_parameters_are_read() -> None:
    ask = asked(
        max_output_tokens=9,
        temperature=0.5,
        top_p=0.9,
        parallel_tool_calls=False,
        user="me",
        reasoning={"effort": "high", "summary": "auto"},
        seed=7,
        stop="x",
        options={"num_ctx": 8},
        store=False,
        background=False,
        top_logprobs=0,
        include=["reasoning.encrypted_content"],
        prompt_cache_key="k",
        metadata={"a": "b"},
        truncation="disabled",
        text={"format": {"type": "text"}, "verbosity": "medium"},
        novel=1,
    )
    assert (ask.max_tokens, ask.temperature, ask.top_p, ask.parallel_tools) == (9, 0.5, 0.9, False)
    assert (ask.user, ask.thinking, ask.seed, ask.stop) == ("me", Thinking(True, "high"), 7, ["x"])
    assert (ask.options, ask.extra, ask.ignored) == ({"num_ctx": 8}, {"novel": 1}, [])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, Format()),
        ({"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}, Format(SCHEMA, "city", True)),
    ],
    ids=str,
)
def test_formats_are_read(given: Any, read: Format | None) -> None:
    assert asked(text={"format": given}).format == read


@pytest.mark.parametrize("effort", [None, "none", "low", "max"])
def test_effort_is_read(effort: str | None) -> None:
    wanted = None if effort is None else Thinking(effort != "none", effort)
    assert asked(reasoning={"effort": effort}).thinking == wanted


def test_what_has_no_effect_is_told() -> None:
    ask = asked(
        truncation="auto",
        text={"verbosity": "low"},
        max_tool_calls=3,
        context_management=[{"type": "compaction"}],
        novel=1,
        parallel_tool_calls=True,
        tools=[WEATHER],
    )
    mine = ["truncation", "text.verbosity", "context_management", "max_tool_calls"]
    assert render(ask, CHAT).dropped == mine
    assert set(render_chat(ask, OLLAMA).dropped) == {*mine, "novel", "parallel_tool_calls"}


def test_what_an_upstream_cannot_do_is_refused_in_the_clients_spelling() -> None:
    with pytest.raises(BadRequest) as told:
        render_chat(asked(tools=[WEATHER], tool_choice="required"), OLLAMA)
    assert told.value.param == "tool_choice"


# Every field that can be wrong: what is sent, and the field that the answer names.
_PART = {"role": "user"}
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"input": None}, "input"),
    ({"input": 1}, "input"),
    ({"input": []}, "input"),
    ({"input": ["hi"]}, "input.0"),
    ({"input": [{}]}, "input.0.type"),
    ({"input": [{"type": 1}]}, "input.0.type"),
    ({"input": [USER, {"type": "item_reference", "id": "msg_1"}]}, "input.1.type"),
    ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input"),
    ({"input": [{"type": "local_shell_call"}]}, "input"),
    ({"input": [{"type": "message", "content": "hi"}]}, "input.0.role"),
    ({"input": [{"role": "tool", "content": "hi"}]}, "input.0.role"),
    ({"input": [{"role": 1, "content": "hi"}]}, "input.0.role"),
    ({"input": [_PART]}, "input.0.content"),
    ({"input": [{**_PART, "content": []}]}, "input.0.content"),
    ({"input": [{**_PART, "content": 1}]}, "input.0.content"),
    ({"input": [{**_PART, "content": [1]}]}, "input.0.content.0"),
    ({"input": [{**_PART, "content": [{}]}]}, "input.0.content.0.type"),
    ({"input": [{**_PART, "content": [{"type": "input_text"}]}]}, "input.0.content.0.text"),
    ({"input": [{**_PART, "content": [{"type": "refusal"}]}]}, "input.0.content.0.refusal"),
    ({"input": [{**_PART, "content": [{"type": "input_image"}]}]}, "input.0.content.0.image_url"),
    ({"input": [{**_PART, "content": [{"type": "input_image", "image_url": {}}]}]}, "input.0.content.0.image_url"),
    ({"input": [{**_PART, "content": [{"type": "input_image", "file_id": "f"}]}]}, "input.0.content.0.file_id"),
    (
        {"input": [USER, {**_PART, "content": [{"type": "input_text", "text": "a"}, {"type": "input_file"}]}]},
        "input.1.content.1.type",
    ),
    ({"input": [{**_PART, "content": [{"type": "input_audio"}]}]}, "input.0.content.0.type"),
    ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input.0.call_id"),
    ({"input": [{"type": "function_call", "call_id": "a", "arguments": "{}"}]}, "input.0.name"),
    ({"input": [{**call(), "namespace": 1}]}, "input.0.namespace"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "a"}]}, "input.0.output"),
    ({"input": [output(said=1)]}, "input.0.output"),
    ({"input": [{"type": "reasoning", "summary": "x"}]}, "input.0.summary"),
    ({"input": [{"type": "reasoning", "content": [{"text": 1}]}]}, "input.0.content.0.text"),
    ({"instructions": ["x"]}, "instructions"),
    ({"model": 1}, "model"),
    ({"store": True}, "store"),
    ({"store": "yes"}, "store"),
    ({"background": True}, "background"),
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"top_logprobs": 21}, "top_logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"include": ["message.output_text.logprobs"]}, "include"),
    ({"include": {}}, "include"),
    ({"n": 2}, "n"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"max_output_tokens": "9"}, "max_output_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    ({"max_tool_calls": 0}, "max_tool_calls"),
    ({"metadata": []}, "metadata"),
    ({"user": 1}, "user"),
    ({"truncation": "some"}, "truncation"),
    ({"reasoning": "high"}, "reasoning"),
    ({"reasoning": {"effort": "huge"}}, "reasoning.effort"),
    ({"text": "json"}, "text"),
    ({"text": {"verbosity": "loud"}}, "text.verbosity"),
    ({"text": {"format": "json"}}, "text.format"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"text": {"format": {"type": "json_schema", "schema": []}}}, "text.format.schema"),
    ({"tools": {}}, "tools"),
    ({"input": [{"type": "additional_tools", "tools": [{"type": "custom"}]}, USER]}, "input.0.tools.0.name"),
    ({"tools": [1]}, "tools.0"),
    ({"tools": [{"name": "f"}]}, "tools.0.type"),
    ({"tools": [{"type": "function"}]}, "tools.0.name"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools.0.name"),
    ({"tools": [{**WEATHER, "parameters": "{}"}]}, "tools.0.parameters"),
    ({"tools": [{**WEATHER, "strict": "yes"}]}, "tools.0.strict"),
    ({"tools": [{**PATCH, "format": {"type": "regex"}}]}, "tools.0.format.type"),
    ({"tools": [{**PATCH, "format": {"type": "grammar", "syntax": "lark"}}]}, "tools.0.format.definition"),
    ({"tools": [{"type": "namespace", "tools": []}]}, "tools.0.name"),
    ({"tools": [{**NAMESPACE, "tools": [{"type": "function"}]}]}, "tools.0.tools.0.name"),
    ({"tool_choice": "any"}, "tool_choice"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "tool_choice.name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "time"}}, "tool_choice.name"),
    ({"tools": [SEARCH, WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    ({"tools": [SEARCH], "tool_choice": "required"}, "tools.0"),
    (
        {"tools": [SEARCH, WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [SEARCH]}},
        "tool_choice.tools",
    ),
    ({"tool_choice": {"type": "allowed_tools", "mode": "some", "tools": []}}, "tool_choice.mode"),
    (
        {"tool_choice": {"type": "allowed_tools", "tools": [{"type": "function", "name": "x"}]}},
        "tool_choice.tools.0.name",
    ),
]


@pytest.mark.parametrize(("fields", "named"), MALFORMED, ids=lambda value: str(value)[:60])
def test_what_is_wrong_is_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest) as told:
        settle(asked(**fields).messages, CHAT)
    assert told.value.param == named
    assert told.value.message.startswith(f"{named}: ")
