"""Ollama requests of clients: what they mean to another surface, and what is wrong with them, by name."""

from typing import Any

import orjson
import pytest

from edge.errors import BadRequest
from edge.protocol.canonical import Format, ImagePart, Target, TextPart, Thinking, ThinkingPart
from edge.protocol.chat import render as chat_render
from edge.protocol.ollama.parse import parse_chat, parse_generate
from edge.protocol.ollama.render import render_chat
from edge.protocol.surface import Surface
from edge.protocol.transcode import target

CHAT = Target(Surface.CHAT, "up")
PNG = "iVBORw0KGgo="
JPEG = "/9j/4AAQ"
HI = {"role": "user", "content": "hi"}
CALL = {"function": {"name": "weather", "arguments": {"city": "Rome"}}}
TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}},
}


def as_chat(body: dict[str, Any]) -> dict[str, Any]:
    return chat_render.render(parse_chat({"model": "m", **body}), CHAT).body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": 3}, "model"),
        ({"messages": {}}, "messages"),
        ({"messages": ["hi"]}, "messages.0"),
        ({"messages": [{"content": "hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
        ({"messages": [HI, {"role": "user", "content": ["hi"]}]}, "messages.1.content"),
        ({"messages": [{**HI, "images": 1}]}, "messages.0.images"),
        ({"messages": [{**HI, "images": [PNG, "no base64!"]}]}, "messages.0.images.1"),
        ({"messages": [{**HI, "images": ["data:image/png;base64," + PNG]}]}, "messages.0.images.0"),
        ({"messages": [{"role": "system", "content": "s", "images": [PNG]}]}, "messages.0.images"),
        ({"messages": [{"role": "assistant", "thinking": 1}]}, "messages.0.thinking"),
        ({"messages": [{"role": "assistant", "tool_calls": [1]}]}, "messages.0.tool_calls.0"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages.0.tool_calls.0.function"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]},
            "messages.0.tool_calls.0.function.name",
        ),
        ({"messages": [{"role": "tool", "content": "x", "tool_name": 1}]}, "messages.0.tool_name"),
        ({"tools": TOOL}, "tools"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]}, "tools.0.function.parameters"),
        ({"format": "yaml"}, "format"),
        ({"format": ["json"]}, "format"),
        ({"options": []}, "options"),
        ({"options": {"temperature": "hot"}}, "options.temperature"),
        ({"options": {"temperature": -1}}, "options.temperature"),
        ({"options": {"top_p": 2}}, "options.top_p"),
        ({"options": {"top_k": 1.5}}, "options.top_k"),
        ({"options": {"min_p": 7}}, "options.min_p"),
        ({"options": {"seed": "s"}}, "options.seed"),
        ({"options": {"stop": [1]}}, "options.stop"),
        ({"options": {"num_predict": "all"}}, "options.num_predict"),
        ({"options": {"presence_penalty": True}}, "options.presence_penalty"),
        ({"options": {"frequency_penalty": []}}, "options.frequency_penalty"),
        ({"think": 1}, "think"),
        ({"keep_alive": []}, "keep_alive"),
        ({"keep_alive": True}, "keep_alive"),
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_a_malformed_field_of_a_chat_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_chat({"model": "m", "messages": [HI], **fields})
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": ["hi"]}, "prompt"),
        ({"system": 1}, "system"),
        ({"suffix": 1}, "suffix"),
        ({"raw": "yes"}, "raw"),
        ({"images": [1]}, "images"),
        ({"images": ["?"]}, "images.0"),
        ({"context": [1, 2]}, "context"),
        ({"template": "t"}, "template"),
        ({"raw": True, "system": "s"}, "system"),
        ({"raw": True, "images": [PNG]}, "images"),
        ({"suffix": "end", "format": "json"}, "format"),
        ({"options": {"stop": {}}}, "options.stop"),
    ],
)
def test_a_malformed_field_of_a_generate_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_generate({"model": "m", "prompt": "hi", **fields})
    assert caught.value.param == param


def test_options_become_the_fields_that_others_have_and_the_rest_is_counted() -> None:
    options = {
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7, "stop": "END", "num_predict": 12,
        "presence_penalty": 0.1, "frequency_penalty": -0.2, "num_ctx": 8192, "mirostat": 2,
    }  # fmt: skip
    rendering = chat_render.render(
        parse_chat({"model": "m", "messages": [HI], "options": options, "keep_alive": "5m"}), CHAT
    )
    sent = rendering.body
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["min_p"], sent["seed"]) == (0.5, 0.9, 40, 0.05, 7)
    assert (sent["stop"], sent["max_tokens"]) == (["END"], 12)
    assert (sent["presence_penalty"], sent["frequency_penalty"]) == (0.1, -0.2)
    assert "options" not in sent
    assert rendering.dropped == ["keep_alive", "options.num_ctx, options.mirostat"]


def test_an_ollama_gets_the_options_whole() -> None:
    ask = parse_chat({"model": "m", "messages": [HI], "options": {"num_ctx": 9, "top_k": 3}, "keep_alive": 60})
    body = render_chat(ask, Target(Surface.OLLAMA_CHAT)).body
    assert body["options"] == {"num_ctx": 9, "top_k": 3}
    assert body["keep_alive"] == 60


@pytest.mark.parametrize("predicted", [-1, -2, 0])
def test_no_limit_is_no_field(predicted: int) -> None:
    assert "max_tokens" not in as_chat({"messages": [HI], "options": {"num_predict": predicted}})


def test_images_carry_their_media_type() -> None:
    ask = parse_chat({"messages": [{**HI, "images": [PNG, JPEG]}]})
    assert ask.messages[0].parts == (TextPart("hi"), ImagePart("image/png", PNG), ImagePart("image/jpeg", JPEG))
    content = as_chat({"messages": [{**HI, "images": [PNG]}]})["messages"][0]["content"]
    assert content[1] == {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}


def test_tool_results_find_their_calls_by_id_by_name_or_by_order() -> None:
    """Ollama's calls need no ids, others' do."""
    oslo = {"id": "x1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
    clock = {"function": {"name": "clock"}}
    messages = [
        HI,
        {"role": "assistant", "content": "", "tool_calls": [CALL, oslo, clock]},
        {"role": "tool", "content": "noon", "tool_name": "clock"},
        {"role": "tool", "content": "snow", "tool_call_id": "x1"},
        {"role": "tool", "content": "sun"},
    ]
    _, assistant, *results = as_chat({"messages": messages, "tools": [TOOL]})["messages"]
    identities = [call["id"] for call in assistant["tool_calls"]]
    assert len(set(identities)) == 3
    assert identities[1] == "x1"
    assert orjson.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"city": "Rome"}
    assert assistant["tool_calls"][2]["function"]["arguments"] == "{}"
    assert [(result["tool_call_id"], result["content"]) for result in results] == [
        (identities[2], "noon"),
        ("x1", "snow"),
        (identities[0], "sun"),
    ]


def test_a_result_answers_the_latest_calls() -> None:
    turn = [{"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "content": "sun", "tool_name": "weather"}]
    sent = as_chat({"messages": [HI, *turn, *turn]})["messages"]
    assert [sent[2]["tool_call_id"], sent[4]["tool_call_id"]] == [
        sent[1]["tool_calls"][0]["id"],
        sent[3]["tool_calls"][0]["id"],
    ]
    assert sent[2]["tool_call_id"] != sent[4]["tool_call_id"]


def test_tools_thinking_and_format_are_carried() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    body = {"messages": [HI], "tools": [TOOL], "think": "high", "format": schema}
    sent = as_chat(body)
    assert sent["tools"] == [TOOL]
    assert sent["reasoning_effort"] == "high"
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert parse_chat({**body, "format": "json"}).format == Format()
    assert parse_chat({**body, "format": ""}).format is None
    assert parse_chat({**body, "think": False}).thinking == Thinking(False)
    thought = parse_chat({"messages": [{"role": "assistant", "content": "a", "thinking": "hm"}]}).messages[0]
    assert thought.parts == (ThinkingPart("hm"), TextPart("a"))


def test_a_generate_is_a_conversation_of_one_message() -> None:
    ask = parse_generate({"model": "m", "prompt": "hi", "system": "be brief", "images": [PNG], "context": []})
    assert [(message.role, message.parts) for message in ask.messages] == [
        ("system", (TextPart("be brief"),)),
        ("user", (TextPart("hi"), ImagePart("image/png", PNG))),
    ]
    assert ask.prompt is None


@pytest.mark.parametrize(("fields", "suffix"), [({"raw": True}, None), ({"suffix": "end"}, "end")])
def test_a_raw_generate_is_a_prompt(fields: dict[str, Any], suffix: str | None) -> None:
    ask = parse_generate({"model": "m", "prompt": "hi", **fields})
    assert (ask.prompt, ask.suffix, ask.messages) == ("hi", suffix, [])


def test_unknown_fields_are_kept_for_whom_they_may_concern() -> None:
    assert parse_chat({"messages": [HI], "chat_template_kwargs": {"a": 1}}).extra == {"chat_template_kwargs": {"a": 1}}


@pytest.mark.parametrize(
    ("native", "raw", "through"),
    [
        ({Surface.CHAT, Surface.COMPLETIONS}, False, Surface.CHAT),
        ({Surface.CHAT, Surface.COMPLETIONS}, True, Surface.COMPLETIONS),
        ({Surface.CHAT}, True, Surface.CHAT),  # where it is refused, with the field
        ({Surface.OLLAMA_GENERATE, Surface.COMPLETIONS}, True, Surface.OLLAMA_GENERATE),
        ({Surface.EMBEDDINGS}, False, None),
    ],
)
def test_a_generate_goes_the_way_that_its_prompt_needs(
    native: set[Surface], through: Surface | None, *, raw: bool
) -> None:
    assert target(Surface.OLLAMA_GENERATE, frozenset(native), raw=raw) is through
