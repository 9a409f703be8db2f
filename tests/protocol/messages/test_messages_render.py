"""What an Anthropic upstream is told of a chat request: all of it, in the shape that it insists on, or why not."""

import base64
from typing import Any

import orjson
import pytest

from edge.errors import BadRequest
from edge.protocol.canonical import Ask, Message, Target, TextPart, ThinkingPart, ToolResultPart, ToolUsePart
from edge.protocol.messages.render import DEFAULT_MAX_TOKENS, render
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Translated, translate

CLAUDE = Target(Surface.MESSAGES, "Anthropic", cloud=True)
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}}


def translated(**fields: Any) -> Translated:
    return translate(prepare(Surface.CHAT, orjson.dumps({"model": "c", "messages": HI, **fields})), CLAUDE)


def told(**fields: Any) -> Any:
    return orjson.loads(translated(**fields).body)


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_the_least_request() -> None:
    expected = {"model": "c", "max_tokens": DEFAULT_MAX_TOKENS, "messages": [user(text("hi"))], "stream": True}
    assert told() == expected


def test_a_later_system_message_is_told_in_its_place_and_the_same_role_is_merged() -> None:
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "a"},
        {"role": "user", "content": [text("b"), {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
        {"role": "developer", "content": "be kind"},
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": ""},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}}]},
    ]
    body = told(messages=messages)
    assert body["system"] == "be brief"
    picture = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    assert body["messages"] == [
        user(text("a"), text("b"), picture, text("\n\n<system-reminder>be kind</system-reminder>")),
        {"role": "assistant", "content": [text("c")]},
        user({"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}}),
    ]


def test_tool_calls_and_what_they_gave() -> None:
    calls = [
        {"id": f"functions.f:{n}", "type": "function", "function": {"name": "f", "arguments": arguments}}
        for n, arguments in enumerate(('{"x": 1}', ""))
    ]
    messages = [
        *HI,
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "functions.f:0", "content": "42"},
        {"role": "tool", "tool_call_id": "functions.f:1", "content": ""},
        {"role": "user", "content": "and?"},
    ]
    assert told(messages=messages)["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                text("Let me see."),
                {"type": "tool_use", "id": "functions_f_0", "name": "f", "input": {"x": 1}},
                {"type": "tool_use", "id": "functions_f_1", "name": "f", "input": {}},
            ],
        },
        user(
            {"type": "tool_result", "tool_use_id": "functions_f_0", "content": [text("42")]},
            {"type": "tool_result", "tool_use_id": "functions_f_1"},
            text("and?"),
        ),
    ]


def test_only_signed_thought_goes_back_and_failures_are_told() -> None:
    parts = (
        ThinkingPart("unsigned"),
        ThinkingPart("hm", "c2ln"),
        ThinkingPart("", redacted="ZGF0YQ"),
        ToolUsePart("a", "f", "{}"),
    )
    failed = Message("tool", (ToolResultPart("a", (TextPart("no"),), is_error=True),))
    body = render(Ask(model="c", messages=[Message("assistant", parts), failed]), CLAUDE).body
    assert [block["type"] for block in body["messages"][0]["content"]] == ["thinking", "redacted_thinking", "tool_use"]
    assert body["messages"][0]["content"][0] == {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    assert body["messages"][0]["content"][1] == {"type": "redacted_thinking", "data": "ZGF0YQ"}
    assert body["messages"][1]["content"][0]["is_error"] is True


def test_tools() -> None:
    bare = {"type": "function", "function": {"name": "g"}}
    assert told(tools=[TOOL, bare])["tools"] == [
        {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True},
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, {"type": "tool", "name": "f"}),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tool_choice(fields: dict[str, Any], expected: Any) -> None:
    assert told(tools=[TOOL], **fields).get("tool_choice") == expected
    assert "tool_choice" not in told(**fields)


def test_structured_output() -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    assert told(response_format=wanted)["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}


@pytest.mark.parametrize(
    ("fields", "thinking", "most"),
    [
        ({}, None, 4096),
        ({"reasoning_effort": "none"}, {"type": "disabled"}, 4096),
        ({"think": False}, {"type": "disabled"}, 4096),
        ({"reasoning_effort": "minimal"}, {"type": "enabled", "budget_tokens": 1024}, 5120),
        ({"reasoning_effort": "high"}, {"type": "enabled", "budget_tokens": 16384}, 20480),
        ({"think": True}, {"type": "enabled", "budget_tokens": 8192}, 12288),
        ({"reasoning_effort": "high", "max_tokens": 6000}, {"type": "enabled", "budget_tokens": 3000}, 6000),
        ({"reasoning_effort": "low", "max_tokens": 60000}, {"type": "enabled", "budget_tokens": 2048}, 60000),
    ],
)
def test_effort_becomes_a_budget_beside_the_answer(fields: dict[str, Any], thinking: Any, most: int) -> None:
    body = told(**fields)
    assert (body.get("thinking"), body["max_tokens"]) == (thinking, most)


CALLED = [
    *HI,
    {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f"}}]},
    {"role": "tool", "tool_call_id": "a", "content": "42"},
]


@pytest.mark.parametrize(
    "fields",
    [{"max_tokens": 2000}, {"tools": [TOOL], "tool_choice": "required"}, {"messages": CALLED, "tools": [TOOL]}],
)
def test_where_anthropic_would_refuse_to_think_it_is_not_asked_to(fields: dict[str, Any]) -> None:
    """Too little room, a forced call, or a turn with tools whose signed thought no chat client can send back."""
    done = translated(reasoning_effort="high", **fields)
    assert done.dropped == ("reasoning_effort",)
    assert "thinking" not in orjson.loads(done.body)


@pytest.mark.parametrize(
    ("fields", "kept", "dropped"),
    [
        ({"temperature": 0.5}, {"temperature": 0.5}, ()),
        ({"top_p": 0.5, "top_k": 3}, {"top_p": 0.5, "top_k": 3}, ()),
        ({"temperature": 0, "top_p": 0.5}, {"temperature": 0}, ("top_p",)),
        ({"temperature": 0.5, "think": True, "top_k": 3}, {}, ("temperature", "top_k")),
        ({"temperature": 1, "think": True}, {"temperature": 1}, ()),
        ({"top_p": 0.5, "think": True}, {}, ("top_p",)),
        ({"top_p": 0.97, "think": True}, {"top_p": 0.97}, ()),
    ],
)
def test_of_the_ways_to_sample_what_anthropic_takes(
    fields: dict[str, Any], kept: dict[str, Any], dropped: tuple[str, ...]
) -> None:
    done = translated(**fields)
    body = orjson.loads(done.body)
    assert {name: body[name] for name in ("temperature", "top_p", "top_k") if name in body} == kept
    assert done.dropped == dropped


def test_the_rest() -> None:
    done = translated(
        stop=["END"], user="me", max_completion_tokens=7, seed=1, presence_penalty=1, frequency_penalty=1, min_p=0.1,
        keep_alive="5m", options={"num_ctx": 1}, logit_bias={"1": 2}, n=1,
    )  # fmt: skip
    body = orjson.loads(done.body)
    assert (body["stop_sequences"], body["metadata"], body["max_tokens"]) == (["END"], {"user_id": "me"}, 7)
    assert set(done.dropped) == {
        "seed", "presence_penalty", "frequency_penalty", "min_p", "keep_alive", "options", "logit_bias"
    }  # fmt: skip
    assert set(body) == {"model", "messages", "max_tokens", "stop_sequences", "metadata", "stream"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"temperature": 1.5}, "temperature"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"messages": [{"role": "system", "content": "be brief"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "messages"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        translated(**fields)
    assert refused.value.param == param


def says(*content: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": said} for role, said in content]


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("messages", "expected", "changed"),
    [
        # Blank text, wherever it is.
        (says(("user", [text("a"), text(" \n"), text("b")])), [user(text("a"), text("b"))], "blank-text"),
        (says(("system", " "), ("user", "a")), [user(text("a"))], "blank-text"),
        (
            [
                *HI,
                {"role": "assistant", "content": "\n\n", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c", "content": " "},
            ],
            [
                user(text("hi")),
                {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
                user({"type": "tool_result", "tool_use_id": "c"}),
            ],
            "blank-text",
        ),
        (says(("user", "a"), ("assistant", " "), ("user", "b")), [user(text("a"), text("b"))], "blank-text"),
        # A message of the user's is never left out: the answer before it would be continued.
        (
            says(("user", "a"), ("assistant", "b"), ("user", "")),
            [user(text("a")), {"role": "assistant", "content": [text("b")]}, user(text("(blank)"))],
            "blank-text",
        ),
        # Text that is not there is no loss.
        (
            says(("user", "a"), ("assistant", ""), ("user", [text("b"), text("")])),
            [user(text("a"), text("b"))],
            None,
        ),
        # What the model is to continue; the same text in the middle stays.
        (
            says(("user", "a"), ("assistant", "The answer is: \n")),
            [user(text("a")), {"role": "assistant", "content": [text("The answer is:")]}],
            "prefill-end",
        ),
        (
            says(("user", "a"), ("assistant", "b "), ("user", "c ")),
            [user(text("a")), {"role": "assistant", "content": [text("b ")]}, user(text("c "))],
            None,
        ),
    ],
)  # fmt: skip
def test_what_anthropic_refuses_for_its_blanks_is_mended_and_named(
    messages: Any, expected: Any, changed: str | None
) -> None:
    done = translated(messages=messages)
    body = orjson.loads(done.body)
    assert (body["messages"], done.changed) == (expected, (changed,) if changed else ())
    assert "system" not in body


@pytest.mark.parametrize(
    ("stop", "kept", "changed"),
    [
        (["\n", "END", " "], ["END"], ("blank-stop",)),
        (["\n\n"], None, ("blank-stop",)),
        (["END ", "\nUser:"], ["END ", "\nUser:"], ()),
    ],
)
def test_blank_stop_sequences_are_left_out_and_named(stop: Any, kept: Any, changed: tuple[str, ...]) -> None:
    done = translated(stop=stop)
    assert (orjson.loads(done.body).get("stop_sequences"), done.changed) == (kept, changed)


IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "image/gif": b"GIF89a\x01\0",
    "image/webp": b"RIFF\x24\0\0\0WEBPVP8 ",
}


@pytest.mark.parametrize("claimed", ["image/png", "image/jpg", "", "application/octet-stream"])
@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_has_the_media_type_of_its_first_bytes(kind: str, claimed: str) -> None:
    """Anthropic refuses an image under another one. A change is named where something else was claimed."""
    data = base64.b64encode(IMAGES[kind]).decode()
    done = translated(messages=[user({"type": "image_url", "image_url": {"url": f"data:{claimed};base64,{data}"}})])
    (block,) = orjson.loads(done.body)["messages"][0]["content"]
    assert block["source"] == {"type": "base64", "media_type": kind, "data": data}
    assert done.changed == (("image-type",) if claimed not in ("", kind) else ())


@pytest.mark.parametrize("data", [b"RIFF\x24\0\0\0WAVEfmt ", b"BM", b"\x89PNG", b"", b"ABC"])
def test_an_image_that_is_not_known_keeps_what_was_claimed(data: bytes) -> None:
    url = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    done = translated(messages=[user(text("x"), {"type": "image_url", "image_url": {"url": url}})])
    assert orjson.loads(done.body)["messages"][0]["content"][1]["source"]["media_type"] == "image/jpeg"
    assert done.changed == ()
