"""A conversation keeps its beginning from turn to turn, and nothing in its past makes a request a 400."""

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.errors import BadRequest
from edge.protocol.canonical import Target
from edge.protocol.history import settled_arguments
from edge.protocol.request import as_sent, prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Translated, translate

CHAT, OLLAMA, MESSAGES = (Target(surface) for surface in (Surface.CHAT, Surface.OLLAMA_CHAT, Surface.MESSAGES))
TARGETS = (CHAT, OLLAMA, MESSAGES)
CLIENTS = (Surface.CHAT, Surface.MESSAGES, Surface.RESPONSES, Surface.OLLAMA_CHAT)
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
Turn = dict[str, Any]


def asked(surface: Surface, conversation: list[Turn]) -> dict[str, Any]:
    """A request of this surface for a conversation: what is said by user, assistant, system and tool."""
    said = [entry for turn in conversation for entry in SPELL[surface](turn)]
    if surface is Surface.RESPONSES:
        return {"model": "m", "instructions": "be brief", "input": said, "tools": [{"type": "function", **TOOL}]}
    if surface is Surface.MESSAGES:
        tool = {"name": "f", "description": "d", "input_schema": TOOL["parameters"]}
        return {"model": "m", "max_tokens": 9, "system": "be brief", "messages": said, "tools": [tool]}
    system = {"role": "system", "content": "be brief"}
    return {"model": "m", "messages": [system, *said], "tools": [{"type": "function", "function": TOOL}]}


def _chat(turn: Turn) -> list[Turn]:
    match turn:
        case {"call": identity, "arguments": arguments}:
            called = {"id": identity, "type": "function", "function": {"name": "f", "arguments": arguments}}
            return [{"role": "assistant", "content": None, "tool_calls": [called]}]
        case {"result": identity, "text": text}:
            return [{"role": "tool", "tool_call_id": identity, "content": text}]
    return [{"role": turn["role"], "content": turn["text"]}]


def _messages(turn: Turn) -> list[Turn]:
    match turn:
        case {"call": identity, "arguments": arguments}:
            given = orjson.loads(settled_arguments(arguments))
            block = {"type": "tool_use", "id": identity, "name": "f", "input": given}
            return [{"role": "assistant", "content": [block]}]
        case {"result": identity, "text": text}:
            return [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": identity, "content": text}]}]
    return [{"role": turn["role"], "content": turn["text"]}]


def _responses(turn: Turn) -> list[Turn]:
    match turn:
        case {"call": identity, "arguments": arguments}:
            return [{"type": "function_call", "call_id": identity, "name": "f", "arguments": arguments}]
        case {"result": identity, "text": text}:
            return [{"type": "function_call_output", "call_id": identity, "output": text}]
    return [{"role": turn["role"], "content": turn["text"]}]


def _ollama(turn: Turn) -> list[Turn]:
    match turn:
        case {"call": identity, "arguments": arguments}:
            called = {"id": identity, "function": {"name": "f", "arguments": arguments}}
            return [{"role": "assistant", "content": "", "tool_calls": [called]}]
        case {"result": identity, "text": text}:
            return [{"role": "tool", "tool_call_id": identity, "content": text}]
    return [{"role": turn["role"], "content": turn["text"]}]


SPELL = {
    Surface.CHAT: _chat,
    Surface.MESSAGES: _messages,
    Surface.RESPONSES: _responses,
    Surface.OLLAMA_CHAT: _ollama,
}


def translated(surface: Surface, body: dict[str, Any], to: Target = CHAT) -> Translated:
    return translate(prepare(surface, orjson.dumps(body)), to)


def sent(surface: Surface, body: dict[str, Any], to: Target = CHAT) -> Any:
    return orjson.loads(translated(surface, body, to).body)


def text_of(message: Any) -> str:
    """All that a rendered message says, in order."""
    content = message["content"]
    if isinstance(content, str):
        return content
    parts = [part.get("text") or part.get("content") or orjson.dumps(part).decode() for part in content]
    return "\n".join(
        part if isinstance(part, str) else "".join(held.get("text", "") for held in part) for part in parts
    )


words = st.text("abc <>/", min_size=1, max_size=8).filter(str.strip)
cut = st.sampled_from(['{"a":1}', '{"a": "b', "null", "", "[1]", "{}"])


@st.composite
def conversations(draw: st.DrawFn) -> list[list[Turn]]:
    """A conversation as it grows: what each request sends."""
    held: list[Turn] = []
    grown = []
    for number in range(draw(st.integers(2, 4))):
        held = [*held, {"role": "user", "text": draw(words)}]
        reminders = draw(st.lists(words, max_size=2))
        held += [{"role": "system", "text": text} for text in reminders]
        grown.append(held)
        if draw(st.booleans()):
            held = [*held, {"call": f"c{number}", "arguments": draw(cut)}]
            held = [*held, {"result": f"c{number}", "text": draw(words)}]
            held += [{"role": "system", "text": text} for text in draw(st.lists(words, max_size=1))]
            grown.append(held)
        held = [*held, {"role": "assistant", "text": draw(words)}]
        held += [{"role": "system", "text": text} for text in draw(st.lists(words, max_size=1))]
    return grown


@unhurried
@given(conversations(), st.sampled_from(CLIENTS), st.sampled_from(TARGETS))
def test_what_was_sent_stays_the_beginning_of_what_is_sent_next(
    grown: list[list[Turn]], surface: Surface, to: Target
) -> None:
    requests = [sent(surface, asked(surface, turns), to) for turns in grown]
    for before, after in pairwise(requests):
        assert before.get("system") == after.get("system")
        assert before["tools"] == after["tools"]
        *same, last = before["messages"]
        assert after["messages"][: len(same)] == same
        following = after["messages"][len(same)]
        assert following["role"] == last["role"]
        assert text_of(following).startswith(text_of(last))


@pytest.mark.parametrize("to", TARGETS, ids=lambda to: str(to.surface))
@pytest.mark.parametrize("surface", CLIENTS, ids=str)
def test_a_system_message_in_mid_conversation_is_told_where_it_stands(surface: Surface, to: Target) -> None:
    talk = [
        {"role": "user", "text": "q"},
        {"role": "assistant", "text": "a"},
        {"role": "system", "text": "nine left"},
        {"role": "user", "text": "q2"},
        {"role": "system", "text": "eight left"},
    ]
    done = translated(surface, asked(surface, talk), to)
    messages = orjson.loads(done.body)["messages"]
    said = "\n".join(map(text_of, messages))
    assert said.index("a") < said.index("<system-reminder>nine left</system-reminder>") < said.index("q2")
    assert said.index("q2") < said.index("<system-reminder>eight left</system-reminder>")
    assert [message["role"] for message in messages if message["role"] != "system"][-1] == "user"
    assert done.changed == ("system-reminder",)


def test_a_reminder_after_what_a_tool_gave_stays_with_it() -> None:
    talk = [
        {"role": "user", "text": "q"},
        {"call": "c", "arguments": "{}"},
        {"result": "c", "text": "sun"},
        {"role": "system", "text": "hurry"},
    ]
    result = sent(Surface.CHAT, asked(Surface.CHAT, talk), Target(Surface.OLLAMA_CHAT))["messages"][-1]
    assert (result["role"], result["content"]) == ("tool", "sun\n\n<system-reminder>hurry</system-reminder>")


# --- the past refuses nothing


@pytest.mark.parametrize("to", TARGETS, ids=lambda to: str(to.surface))
@pytest.mark.parametrize("arguments", ['{"a": "b', "null", '"null"', "", "[1]", "7", "nonsense"])
@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.RESPONSES, Surface.OLLAMA_CHAT], ids=str)
def test_broken_arguments_of_a_past_call_are_an_empty_object(surface: Surface, arguments: str, to: Target) -> None:
    talk = [
        {"role": "user", "text": "q"},
        {"call": "c", "arguments": arguments},
        {"result": "c", "text": "failed"},
        {"role": "user", "text": "go on"},
    ]
    done = translated(surface, asked(surface, talk), to)
    assert b"{}" in done.body
    assert ("tool-arguments" in done.changed) is bool(arguments)
    call = orjson.loads(done.body)["messages"][-3 if to.surface is not Surface.MESSAGES else -2]
    given = {
        Surface.CHAT: lambda: call["tool_calls"][0]["function"]["arguments"],
        Surface.OLLAMA_CHAT: lambda: call["tool_calls"][0]["function"]["arguments"],
        Surface.MESSAGES: lambda: call["content"][0]["input"],
    }[to.surface]()
    assert given in ("{}", {})


PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}}
PAST_BLOCKS: list[tuple[str, dict[str, Any]]] = [
    ("user", PDF),
    ("user", {"type": "container_upload", "file_id": "f"}),
    ("user", {"type": "novelty"}),
    ("user", {"type": "image", "source": {"type": "file", "file_id": "f"}}),
    ("assistant", {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}}),
    ("assistant", {"type": "web_search_tool_result", "tool_use_id": "s", "content": []}),
    ("assistant", {"type": "code_execution_tool_result", "tool_use_id": "s", "content": {}}),
    ("assistant", {"type": "mcp_tool_use", "id": "s", "name": "n", "server_name": "s", "input": {}}),
    ("assistant", {"type": "mcp_tool_result", "tool_use_id": "s", "content": []}),
    ("assistant", {"type": "compaction", "content": "x"}),
    ("assistant", {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}),
]


@pytest.mark.parametrize("to", [CHAT, OLLAMA], ids=lambda to: str(to.surface))
@pytest.mark.parametrize(("role", "block"), PAST_BLOCKS, ids=lambda value: str(value)[:40])
def test_blocks_of_the_past_that_nobody_else_reads_are_left_out_and_named(
    role: str, block: dict[str, Any], to: Target
) -> None:
    told = [{"type": "text", "text": "before"}, block]
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    talk[0 if role == "user" else 1]["content"] = told  # type: ignore[assignment]
    body = {"model": "m", "max_tokens": 9, "messages": [*talk, {"role": "user", "content": "go on"}]}
    done = translated(Surface.MESSAGES, body, to)
    number = 0 if role == "user" else 1
    assert [path for path in done.dropped if path.startswith(f"messages.{number}.content.1")]
    assert b"before" in done.body


def test_a_document_that_is_asked_about_now_and_cannot_be_read_is_refused() -> None:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [PDF]}]}
    with pytest.raises(BadRequest, match="plain text"):
        translated(Surface.MESSAGES, body)


def test_what_can_be_told_in_words_is() -> None:
    blocks = [
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "the text"}},
        {"type": "search_result", "title": "S", "source": "https://x", "content": [{"type": "text", "text": "found"}]},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "parts"}]}},
    ]
    given = [{"type": "tool_reference", "tool_name": "weather"}, PDF]
    messages = [
        {"role": "user", "content": blocks},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": given}]},
    ]
    done = translated(Surface.MESSAGES, {"model": "m", "max_tokens": 9, "messages": messages})
    user, _, result = orjson.loads(done.body)["messages"]
    assert user["content"] == "T\nthe textS\nhttps://x\nfoundparts"
    assert "weather" in result["content"]
    assert "document: left out" in result["content"]
    assert done.dropped == ("messages.2.content.0.content.1",)


PAST_ITEMS: list[dict[str, Any]] = [
    {"type": "local_shell_call", "call_id": "c", "action": {"type": "exec", "command": ["ls"]}, "status": "completed"},
    {"type": "local_shell_call_output", "id": "c", "output": "x"},
    {"type": "tool_search_call", "call_id": "c", "arguments": {}, "status": "completed"},
    {"type": "tool_search_output", "call_id": "c", "tools": []},
    {"type": "image_generation_call", "id": "i", "result": "aa", "status": "completed"},
    {"type": "mcp_list_tools", "id": "m", "server_label": "s", "tools": []},
    {"type": "mcp_call", "id": "m", "name": "n", "arguments": "{}", "server_label": "s", "output": "o"},
    {"type": "mcp_approval_request", "id": "m", "name": "n", "arguments": "{}", "server_label": "s"},
    {"type": "code_interpreter_call", "id": "i", "code": "1", "container_id": "c", "outputs": []},
    {"type": "computer_call", "call_id": "c", "id": "i", "action": {}},
    {"type": "web_search_call", "id": "w", "status": "completed"},
    {"type": "compaction", "encrypted_content": "x"},
    {"type": "novelty_call"},
]


@pytest.mark.parametrize("item", PAST_ITEMS, ids=lambda item: item["type"])
def test_items_of_the_past_are_left_out_and_named(item: dict[str, Any]) -> None:
    said = {"type": "message", "role": "user", "content": "hi"}
    done = translated(Surface.RESPONSES, {"model": "m", "input": [said, item, said]})
    assert "input.1" in done.dropped
    assert [message["content"] for message in orjson.loads(done.body)["messages"]] == ["hi", "hi"]


@pytest.mark.parametrize("item", [{"type": "item_reference", "id": "i"}, {"type": "compaction_trigger"}])
def test_items_that_ask_for_something_are_refused(item: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as refused:
        translated(Surface.RESPONSES, {"model": "m", "input": [{"role": "user", "content": "hi"}, item]})
    assert refused.value.param == "input.1.type"


def test_a_shell_that_the_client_ran_is_told_with_its_output() -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}, "status": "completed"},
        {"type": "local_shell_call_output", "call_id": "c", "output": "a.txt"},
    ]
    _, call, result = sent(Surface.RESPONSES, {"model": "m", "input": items})["messages"]
    assert orjson.loads(call["tool_calls"][0]["function"]["arguments"]) == {"command": ["ls"]}
    assert (result["tool_call_id"], result["content"]) == ("c", "a.txt")


@pytest.mark.parametrize("part", [{"type": "input_audio"}, {"type": "file"}, {"type": "video_url"}], ids=str)
def test_parts_of_a_past_chat_message_are_left_out_and_named(part: dict[str, Any]) -> None:
    talk = [
        {"role": "user", "content": [{"type": "text", "text": "q"}, part]},
        {"role": "assistant", "content": "a", "audio": {"id": "audio_1"}},
        {"role": "user", "content": "go on"},
    ]
    done = translated(Surface.CHAT, {"model": "m", "messages": talk}, Target(Surface.OLLAMA_CHAT))
    assert done.dropped == ("messages.0.content.1", "messages.1.audio")
    with pytest.raises(BadRequest) as refused:
        translated(Surface.CHAT, {"model": "m", "messages": talk[:1]}, Target(Surface.OLLAMA_CHAT))
    assert refused.value.param == "messages.0.content.1.type"


def test_the_old_form_of_a_call_is_a_call() -> None:
    talk = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}},
        {"role": "function", "name": "f", "content": "sun"},
    ]
    _, call, result = sent(Surface.CHAT, {"model": "m", "messages": talk}, Target(Surface.MESSAGES))["messages"]
    assert call["content"] == [{"type": "tool_use", "id": "f", "name": "f", "input": {"a": 1}}]
    assert result["content"][0]["tool_use_id"] == "f"


# --- the billing line of Claude Code


LINE = "x-anthropic-billing-header: cc_version=2.1; cch=0aaa9;"


@pytest.mark.parametrize(
    ("system", "left"),
    [
        (
            [{"type": "text", "text": LINE}, {"type": "text", "text": "be brief"}],
            [{"type": "text", "text": "be brief"}],
        ),
        ([{"type": "text", "text": f"{LINE}\nbe brief"}], [{"type": "text", "text": "be brief"}]),
        (f"{LINE}\n\nbe brief", "be brief"),
        (LINE, None),
        ([{"type": "text", "text": LINE}], None),
    ],
)
@pytest.mark.parametrize("surface", [Surface.MESSAGES, Surface.COUNT_TOKENS], ids=str)
def test_only_anthropic_gets_the_billing_line(surface: Surface, system: Any, left: Any) -> None:
    body = {"model": "m", "max_tokens": 9, "system": system, "messages": [{"role": "user", "content": "hi"}]}
    prepared = prepare(surface, orjson.dumps(body))
    assert orjson.loads(prepared.body).get("system") == left
    assert prepared.changed == ("billing-line",)
    assert orjson.loads(as_sent(prepared))["system"] == system
    if surface is Surface.MESSAGES:
        assert "billing-line" in translate(prepared, CHAT).changed


def test_a_system_prompt_that_only_speaks_of_the_line_stays() -> None:
    system = [{"type": "text", "text": f"never send {LINE}"}]
    body = {"model": "m", "max_tokens": 9, "system": system, "messages": [{"role": "user", "content": "hi"}]}
    prepared = prepare(Surface.MESSAGES, orjson.dumps(body))
    assert (orjson.loads(prepared.body)["system"], prepared.changed) == (system, ())
