"""Messages requests: what is read of them, what is refused by name, and what other surfaces are told."""

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
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.history import settle
from edge.protocol.messages.parse import parse
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import translate

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
HI = [{"role": "user", "content": "hi"}]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": HI, **fields}


def user(*blocks: Any) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": list(blocks)}])


def assistant(*blocks: Any) -> dict[str, Any]:
    return body(messages=[*HI, {"role": "assistant", "content": list(blocks)}])


def text(said: str, **extra: Any) -> dict[str, Any]:
    return {"type": "text", "text": said, **extra}


def image(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source}


def crossed(asked: dict[str, Any], surface: Surface = Surface.CHAT, **target: Any) -> Any:
    prepared = prepare(Surface.MESSAGES, orjson.dumps(asked))
    return orjson.loads(translate(prepared, Target(surface, **target)).body)


def dropped(asked: dict[str, Any], surface: Surface = Surface.CHAT, **target: Any) -> set[str]:
    prepared = prepare(Surface.MESSAGES, orjson.dumps(asked))
    return set(translate(prepared, Target(surface, **target)).dropped)


# What is read


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"temperature": 1, "top_p": 0.5, "top_k": 3}, {"temperature": 1, "top_p": 0.5, "top_k": 3}),
        ({"stop_sequences": ["END"]}, {"stop": ["END"]}),
        ({"metadata": {"user_id": "me", "more": 1}}, {"user": "me"}),
        ({"metadata": {"user_id": None}}, {}),
        ({"service_tier": "auto", "cache_control": {"type": "ephemeral"}, "stream": True}, {}),
        ({"speed": "fast", "inference_geo": "eu"}, {"ignored": ["inference_geo", "speed"]}),
        ({"output_config": {"task_budget": 1}}, {"ignored": ["output_config.task_budget"]}),
        ({"seed": 7, "nothing": None}, {"extra": {"seed": 7}}),
        ({"container": None, "mcp_servers": [], "n": 1}, {}),
        ({"tools": [{"name": "f", "input_schema": SCHEMA}]}, {"tools": [Tool("f", None, SCHEMA)]}),
        (
            {"tools": [{"type": "custom", "name": "f", "description": "d", "input_schema": {}, "strict": True,
                        "cache_control": {}, "eager_input_streaming": True}]},
            {"tools": [Tool("f", "d", {}, True)]},
        ),
        ({"tool_choice": {"type": "auto"}}, {"tool_choice": ToolChoice("auto")}),
        ({"tool_choice": {"type": "none"}}, {"tool_choice": ToolChoice("none")}),
        (
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tool_choice": ToolChoice("required"), "parallel_tools": False},
        ),
        (
            {"tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": False}},
            {"tool_choice": ToolChoice("tool", "f"), "parallel_tools": True},
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"thinking": Thinking(True, None, 2000)}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {"thinking": Thinking(False)}),
        ({"thinking": {"type": "adaptive", "display": "omitted"}}, {}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, {"thinking": Thinking(None, "xhigh")}),
        ({"output_config": {"effort": "low"}}, {"thinking": Thinking(None, "low")}),
        ({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}, {"format": Format(SCHEMA)}),
        ({"output_format": {"type": "json_schema", "schema": SCHEMA}}, {"format": Format(SCHEMA)}),
    ],
)  # fmt: skip
def test_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    plain = [Message("user", (TextPart("hi"),), "messages.0")]
    ask = parse(body(**fields))
    ask.names = {}
    assert ask == Ask(**{"model": "m", "max_tokens": 9, "messages": plain, **expected})


@pytest.mark.parametrize(
    ("system", "parts"),
    [
        ("be brief", (TextPart("be brief"),)),
        ([text("be "), text("brief", cache_control={"type": "ephemeral"})], (TextPart("be "), TextPart("brief"))),
    ],
)
def test_the_system_prompt_is_the_first_message(system: Any, parts: tuple[TextPart, ...]) -> None:
    assert parse(body(system=system)).messages[0] == Message("system", parts, "system")
    assert [message.role for message in parse(body(system=[])).messages] == ["user"]


def test_a_system_message_among_the_others_stays_there() -> None:
    messages = [*HI, {"role": "system", "content": [text("now briefer")]}]
    assert parse(body(messages=messages)).messages[1] == Message("system", (TextPart("now briefer"),), "messages.1")


def test_what_tools_gave_comes_before_what_the_user_says() -> None:
    given = image(type="base64", media_type="image/png", data="QUJD")
    messages = parse(
        user(
            text("and now?"),
            {"type": "tool_result", "tool_use_id": "a", "content": "42", "cache_control": {"type": "ephemeral"}},
            {"type": "tool_result", "tool_use_id": "b", "content": [text("no"), given], "is_error": True},
            {"type": "tool_result", "tool_use_id": "c"},
            image(type="url", url="https://x/y.png"),
        )
    ).messages
    assert messages == [
        Message("tool", (ToolResultPart("a", (TextPart("42"),)),), "messages.0.content.1"),
        Message(
            "tool",
            (ToolResultPart("b", (TextPart("no"), ImagePart("image/png", "QUJD")), is_error=True),),
            "messages.0.content.2",
        ),
        Message("tool", (ToolResultPart("c", ()),), "messages.0.content.3"),
        Message("user", (TextPart("and now?"), ImagePart(url="https://x/y.png")), "messages.0"),
    ]


def test_an_assistants_message() -> None:
    (_, message) = parse(
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "thinking", "thinking": "unsigned"},
            {"type": "redacted_thinking", "data": "ZGF0YQ"},
            text("Let me see.", citations=None),
            {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"city": "Rome"}, "caller": {"type": "direct"}},
        )
    ).messages
    assert message.parts == (
        ThinkingPart("hm", "c2ln"),
        ThinkingPart("unsigned"),
        ThinkingPart("", redacted="ZGF0YQ"),
        TextPart("Let me see."),
        ToolUsePart("toolu_1", "f", '{"city":"Rome"}'),
    )


# What is refused

_TOOL = {"name": "f", "input_schema": {}}
MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"model": 7}, "model"),
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "9"}, "max_tokens"),
    ({"max_tokens": True}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"temperature": -1}, "temperature"),
    ({"temperature": 2}, "temperature"),
    ({"top_p": 1.5}, "top_p"),
    ({"top_k": 1.5}, "top_k"),
    ({"stop_sequences": "END"}, "stop_sequences"),
    ({"stop_sequences": [1]}, "stop_sequences"),
    ({"metadata": "me"}, "metadata"),
    ({"metadata": {"user_id": 7}}, "metadata.user_id"),
    ({"n": 2}, "n"),
    ({"n": "two"}, "n"),
    ({"container": "c"}, "container"),
    ({"mcp_servers": [{}]}, "mcp_servers"),
    ({"system": 7}, "system"),
    ({"system": ["x"]}, "system.0"),
    ({"system": [{"type": "image"}]}, "system.0.type"),
    ({"system": [{"type": "text"}]}, "system.0.text"),
    ({"thinking": "yes"}, "thinking"),
    ({"thinking": {}}, "thinking.type"),
    ({"thinking": {"type": "some"}}, "thinking.type"),
    ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
    ({"thinking": {"type": "enabled", "budget_tokens": "2k"}}, "thinking.budget_tokens"),
    ({"output_config": 1}, "output_config"),
    ({"output_config": {"effort": "much"}}, "output_config.effort"),
    ({"output_config": {"format": {}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.type"),
    ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
    ({"output_format": {"type": "json_schema"}}, "output_format.schema"),
    ({"tools": {}}, "tools"),
    ({"tools": [1]}, "tools.0"),
    ({"tools": [{"input_schema": {}}]}, "tools.0.name"),
    ({"tools": [{"name": "f"}]}, "tools.0.input_schema"),
    ({"tools": [{"name": "f", "input_schema": []}]}, "tools.0.input_schema"),
    ({"tools": [{**_TOOL, "description": 1}]}, "tools.0.description"),
    ({"tools": [{**_TOOL, "strict": "very"}]}, "tools.0.strict"),
    ({"tools": [_TOOL, {"type": "web_search_20250305", "name": "web_search"}]}, "tools.1.type"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tool_choice": {}}, "tool_choice.type"),
    ({"tool_choice": {"type": "maybe"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tool_choice": {"type": "any", "disable_parallel_tool_use": 1}}, "tool_choice.disable_parallel_tool_use"),
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages.0"),
    ({"messages": [{"content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "tool", "content": "hi"}]}, "messages.0.role"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
    ({"messages": [*HI, {"role": "user", "content": ["hi"]}]}, "messages.1.content.0"),
    ({"messages": [{"role": "system", "content": [{"type": "image"}]}]}, "messages.0.content.0.source"),
]


@pytest.mark.parametrize(("fields", "param"), MALFORMED)
def test_a_malformed_field_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        settle(parse(body(**fields)).messages, Target(Surface.CHAT))
    assert told.value.param == param
    assert told.value.message.startswith(f"{param}: ")


USERS: list[tuple[Any, str]] = [
    ({}, "type"),
    ({"type": 7}, "type"),
    ({"type": "text"}, "text"),
    ({"type": "text", "text": 7}, "text"),
    ({"type": "document", "source": {}}, "type"),
    ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}}, "type"),
    ({"type": "tool_reference"}, "tool_name"),
    ({"type": "container_upload"}, "type"),
    ({"type": "tool_use", "id": "a", "name": "f", "input": {}}, "type"),
    ({"type": "thinking", "thinking": "hm"}, "type"),
    ({"type": "image"}, "source"),
    ({"type": "image", "source": {}}, "source.type"),
    (image(type="file", file_id="f"), "source.type"),
    (image(type="base64", data="QUJD"), "source.media_type"),
    (image(type="base64", media_type="image/png"), "source.data"),
    (image(type="url"), "source.url"),
    ({"type": "tool_result"}, "tool_use_id"),
    ({"type": "tool_result", "tool_use_id": "a", "content": 7}, "content"),
    ({"type": "tool_result", "tool_use_id": "a", "is_error": "yes"}, "is_error"),
    ({"type": "tool_result", "tool_use_id": "a", "content": ["x"]}, "content.0"),
]
ASSISTANTS: list[tuple[Any, str]] = [
    ({"type": "tool_use", "name": "f", "input": {}}, "id"),
    ({"type": "tool_use", "id": "a", "input": {}}, "name"),
    ({"type": "thinking"}, "thinking"),
    ({"type": "thinking", "thinking": "hm", "signature": 7}, "signature"),
    ({"type": "redacted_thinking"}, "data"),
]


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        *((user(text("ok"), block), f"messages.0.content.1.{param}") for block, param in USERS),
        *((assistant(text("ok"), block), f"messages.1.content.1.{param}") for block, param in ASSISTANTS),
    ],
)
def test_a_malformed_or_untranslatable_block_is_named(asked: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as told:
        settle(parse(asked).messages, Target(Surface.CHAT))
    assert told.value.param == param


def test_anthropics_own_tools_are_refused_by_their_name() -> None:
    with pytest.raises(BadRequest, match="'web_search_20250305'"):
        parse(body(tools=[{"type": "web_search_20250305", "name": "web_search"}]))


# What other surfaces are told


def test_a_conversation_with_tools_becomes_openais() -> None:
    asked = body(
        system=[text("be brief")],
        messages=[
            *HI,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": "no", "is_error": True},
                    text("go on"),
                    image(type="base64", media_type="image/png", data="QUJD"),
                ],
            },
        ],
        tools=[{"name": "f", "description": "d", "input_schema": SCHEMA}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        metadata={"user_id": "me"},
        output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
    )
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    told = crossed(asked)
    assert told["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "Error: no"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "go on"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
            ],
        },
    ]
    function = {"name": "f", "description": "d", "parameters": SCHEMA}
    assert told["tools"] == [{"type": "function", "function": function}]
    assert (told["tool_choice"], told["parallel_tool_calls"]) == ("required", False)
    assert (told["stop"], told["user"], told["max_tokens"]) == (["END"], "me", 9)
    assert told["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize(("said", "told"), [("no", "Error: no"), ("error: no", "error: no"), ("", "Error: ")])
def test_a_tool_that_failed_is_told_in_words(said: str, told: str) -> None:
    asked = user({"type": "tool_result", "tool_use_id": "a", "content": said, "is_error": True})
    assert crossed(asked)["messages"][0]["content"] == told
    assert crossed(asked, Surface.OLLAMA_CHAT)["messages"][0]["content"] == told


@pytest.mark.parametrize(
    ("fields", "effort", "think"),
    [
        ({}, None, None),
        ({"thinking": {"type": "adaptive"}}, None, None),
        ({"thinking": {"type": "disabled"}}, "none", False),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "low", True),
        ({"thinking": {"type": "enabled", "budget_tokens": 32000}}, "high", True),
        ({"output_config": {"effort": "max"}}, "high", None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, "low", None),
    ],
)
def test_thinking_is_asked_for_only_where_the_client_insists(
    fields: dict[str, Any], effort: str | None, think: bool | None
) -> None:
    """An Ollama refuses to let a model think that cannot."""
    assert crossed(body(**fields)).get("reasoning_effort") == effort
    assert crossed(body(**fields), Surface.OLLAMA_CHAT).get("think") == think


def test_a_cloud_is_told_the_whole_effort() -> None:
    asked = body(output_config={"effort": "max"})
    assert crossed(asked, cloud=True)["reasoning_effort"] == "xhigh"


def test_an_effort_is_a_word_to_the_models_that_take_one() -> None:
    asked = body(model="gpt-oss:20b", output_config={"effort": "low"})
    assert crossed(asked, Surface.OLLAMA_CHAT)["think"] == "low"


def test_what_has_no_place_is_counted() -> None:
    asked = body(speed="fast", context_management={}, metadata={"user_id": "me"}, logit_bias={"1": 2})
    assert dropped(asked) == {"speed", "context_management"}
    everything = {"speed", "context_management", "metadata.user_id", "logit_bias"}
    assert dropped(asked, Surface.OLLAMA_CHAT) == everything
    alone = body(tools=[_TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert dropped(alone, Surface.OLLAMA_CHAT) == {"tool_choice.disable_parallel_tool_use"}


def test_what_an_upstream_cannot_do_is_refused_in_the_clients_spelling() -> None:
    with pytest.raises(BadRequest) as told:
        crossed(body(tools=[_TOOL], tool_choice={"type": "any"}), Surface.OLLAMA_CHAT, name="Ollama")
    assert told.value.param == "tool_choice"
