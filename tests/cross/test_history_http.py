"""What Edge changes of a prompt, and what it leaves out of a history, as a client and an operator are told of it."""

from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import FakeModel, chat_events, chunk, end, head, messages_events
from support.raw import CHAT, MESSAGES, RESPONSES, Answer, ask
from support.running import Running, Serve
from support.shapes import COUNT_TOKENS

LINE = "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;"
TOOL = {"type": "text", "text": "You are a tool", "cache_control": {"type": "ephemeral"}}
SYSTEM = [{"type": "text", "text": LINE}, TOOL]
HI = [{"role": "user", "content": "hi"}]
ASKED = {"model": "m", "max_tokens": 9, "messages": HI}
OLLAMA_CHAT = "/api/chat"
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


async def answered(edge: Running, path: str, body: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """An answer, and the line of the log about it."""
    answer = await ask(edge.port, path, body)
    assert answer.status == 200, answer.body
    return answer, await edge.record()


def message() -> list[Any]:
    return [head(), chunk(b"".join(messages_events())), end()]


@streamed_or_not
@pytest.mark.parametrize(
    ("system", "left"), [(SYSTEM, SYSTEM[1:]), (f"{LINE}\nYou are a tool", "You are a tool"), (LINE, None)]
)
async def test_a_server_that_is_not_anthropic_gets_no_billing_line_though_its_messages_are_relayed(
    serve: Serve, fake: FakeModel, system: Any, left: Any, *, stream: bool
) -> None:
    edge = await serve(upstream={"surfaces": ["messages", "count_tokens"]})
    fake.script(*message())
    answer, record = await answered(edge, MESSAGES, {**ASKED, "system": system, "stream": stream})
    assert (answer.headers["x-edge-changed"], record["changed"]) == ("billing-line", "billing-line")
    (request,) = fake.requests
    assert request.path == MESSAGES
    assert request.json.get("system") == left
    assert b"x-anthropic-billing-header" not in request.body


async def test_tokens_are_counted_without_the_billing_line(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"surfaces": ["messages", "count_tokens"]})
    counted = {name: value for name, value in ASKED.items() if name != "max_tokens"}
    answer, record = await answered(edge, COUNT_TOKENS, {**counted, "system": SYSTEM})
    assert (answer.headers["x-edge-changed"], record["changed"]) == ("billing-line", "billing-line")
    (request,) = fake.requests
    assert (request.path, request.json["system"]) == (COUNT_TOKENS, SYSTEM[1:])


@streamed_or_not
async def test_anthropic_gets_its_billing_line_as_it_was_sent(serve: Serve, fake: FakeModel, *, stream: bool) -> None:
    edge = await serve(upstream={"kind": "anthropic", "api_key": "sk-the-cloud-key", "surfaces": ["messages"]})
    fake.script(*message())
    answer, record = await answered(edge, MESSAGES, {**ASKED, "system": SYSTEM, "stream": stream})
    assert "x-edge-changed" not in answer.headers
    assert "changed" not in record
    assert fake.requests[0].json["system"] == SYSTEM


@streamed_or_not
async def test_a_system_message_in_mid_conversation_is_told_in_its_place_and_named(
    serve: Serve, fake: FakeModel, *, stream: bool
) -> None:
    edge = await serve()
    fake.script(head(), *(chunk(event) for event in chat_events()), end())
    said = (("user", "hi"), ("assistant", "a"), ("user", "q"), ("system", "9 left"))
    talk = [{"role": role, "content": text} for role, text in said]
    answer, record = await answered(edge, MESSAGES, {**ASKED, "system": SYSTEM, "messages": talk, "stream": stream})
    named = set(answer.headers["x-edge-changed"].split(", "))
    assert named == set(record["changed"].split(", ")) == {"billing-line", "system-reminder"}
    (request,) = fake.requests
    assert request.path == CHAT
    assert request.json["messages"] == [
        {"role": "system", "content": "You are a tool"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "q\n\n<system-reminder>9 left</system-reminder>"},
    ]


async def test_a_relayed_request_keeps_its_system_messages_where_they_are(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    talk = [*HI, {"role": "system", "content": "9 left"}, *HI]
    answer, record = await answered(edge, CHAT, {"model": "m", "messages": talk})
    assert "x-edge-changed" not in answer.headers
    assert "changed" not in record
    assert fake.requests[0].json["messages"] == talk


CUT = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "b'}}]
SHELL = {"type": "local_shell_call", "call_id": "c", "action": {"command": ["ls"]}, "status": "completed"}
# By surface: a history that holds what a server cannot be told of, and how the client names that.
HISTORIES: dict[str, tuple[dict[str, Any], str, str]] = {
    "chat": (
        {
            "messages": [
                *HI,
                {"role": "assistant", "content": [{"type": "novelty"}, {"type": "text", "text": "a"}],
                 "tool_calls": CUT},
                {"role": "tool", "tool_call_id": "c", "content": "failed"},
                *HI,
            ],
            "tools": [{"type": "function", "function": {"name": "f"}}],
        },
        "messages.1.content.0",
        "tool-arguments",
    ),
    "messages": (
        {
            "max_tokens": 9,
            "messages": [
                *HI,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
                        {"type": "text", "text": "a"},
                    ],
                },
                *HI,
            ],
        },
        "messages.1.content.0, messages.1.content.1",
        "",
    ),
    "responses": (
        {
            "input": [
                *HI, SHELL, {"type": "compaction", "encrypted_content": "x"},
                {"type": "function_call", "call_id": "d", "name": "f", "arguments": '{"a": "b'},
                {"type": "function_call_output", "call_id": "d", "output": "failed"},
                *HI,
            ],
        },
        "input.1, input.2",
        "tool-arguments",
    ),
    "ollama": (
        {
            "messages": [*HI, {"role": "assistant", "content": "a", "images": ["QUJD"]}, *HI],
            "stream": False,
        },
        "messages.1",
        "",
    ),
}  # fmt: skip
PATHS = {"chat": CHAT, "messages": MESSAGES, "responses": RESPONSES, "ollama": OLLAMA_CHAT}


@pytest.mark.parametrize("surface", HISTORIES)
async def test_a_history_never_makes_a_request_a_400(serve: Serve, fake: FakeModel, surface: str) -> None:
    """What the server cannot be told of is left out and named, to the client and in the log."""
    body, dropped, changed = HISTORIES[surface]
    if surface == "chat":  # relayed, unless the server is an Ollama
        edge = await serve(upstream={"surfaces": ["ollama_chat"]})
        fake.script(*ollama.ollama_answer([ollama.token("a"), ollama.last()]))
    else:
        edge = await serve(upstream={"surfaces": ["chat"]})
        fake.script(head(), *(chunk(event) for event in chat_events()), end())
    answer, record = await answered(edge, PATHS[surface], {"model": "m", **body})
    assert (answer.headers["x-edge-dropped-params"], record["dropped"]) == (dropped, dropped)
    assert (answer.headers.get("x-edge-changed", ""), record.get("changed", "")) == (changed, changed)
    (request,) = fake.requests
    assert request.path == (OLLAMA_CHAT if surface == "chat" else CHAT)
    assert orjson.loads(request.body)["messages"][0]["content"] == "hi"
