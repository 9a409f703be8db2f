"""Responses' tools: what is offered to the other surface, under which names, and what is forced."""

from typing import Any

import pytest

from edge.protocol.canonical import Ask, Target, Tool, ToolChoice
from edge.protocol.chat.render import render
from edge.protocol.responses.parse import parse
from edge.protocol.surface import Surface

CHAT = Target(Surface.CHAT, "up")
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edit files."}
SEARCH = {"type": "web_search", "external_web_access": False}
NAMESPACE = {"type": "namespace", "name": "mcp__github", "description": "d", "tools": [{**WEATHER, "name": "search"}]}
USER = {"role": "user", "content": "hi"}


def asked(**fields: Any) -> Ask:
    return parse({"model": "m", "input": "hi", "stream": True, **fields})


def test_functions_are_read_in_their_flat_form() -> None:
    ask = asked(tools=[WEATHER, {"type": "function", "name": "now", "description": "Now.", "parameters": None}])
    assert ask.tools == [Tool("weather", None, SCHEMA, True), Tool("now", "Now.", None)]
    assert ask.tool_choice is None


def test_custom_tools_are_offered_as_functions_of_one_text() -> None:
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: /x/"}
    plain, strict = asked(tools=[PATCH, {**PATCH, "format": grammar}]).tools
    assert plain.parameters is not None
    assert plain.parameters["required"] == ["input"]
    assert plain.description == "Edit files.\n\n`input` is the whole input, as plain text."
    assert strict.description == f"{plain.description}\n\nIt must match this lark grammar:\nstart: /x/"


def test_tools_that_only_the_provider_could_run_are_dropped_and_told() -> None:
    ask = asked(tools=[SEARCH, WEATHER, {"type": "local_shell"}, {**NAMESPACE, "tools": [WEATHER, {"type": "mcp"}]}])
    assert [tool.name for tool in ask.tools] == ["weather", "mcp__github__weather"]
    assert render(ask, CHAT).dropped == ["tools.0", "tools.2", "tools.3.tools.1"]


def test_tools_that_come_with_the_input_are_tools_too() -> None:
    """As Codex sends them for its newest models."""
    functions = {"type": "namespace", "name": "functions", "description": "", "tools": [PATCH]}
    more = {"type": "additional_tools", "role": "developer", "tools": [functions, SEARCH]}
    ask = asked(input=[more, USER], tools=[WEATHER])
    assert [tool.name for tool in ask.tools] == ["weather", "functions__apply_patch"]
    assert ask.ignored == ["input.0.tools.1"]
    assert len(ask.messages) == 1


@pytest.mark.parametrize(
    ("given", "read", "offered"),
    [
        ("auto", ToolChoice("auto"), ["weather", "apply_patch"]),
        ("none", ToolChoice("none"), ["weather", "apply_patch"]),
        ("required", ToolChoice("required"), ["weather", "apply_patch"]),
        ({"type": "function", "name": "weather"}, ToolChoice("tool", "weather"), ["weather", "apply_patch"]),
        ({"type": "custom", "name": "apply_patch"}, ToolChoice("tool", "apply_patch"), ["weather", "apply_patch"]),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [SEARCH, {"type": "function", "name": "weather"}]},
            ToolChoice("auto"),
            ["weather"],
        ),
        (
            {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "apply_patch"}]},
            ToolChoice("required"),
            ["apply_patch"],
        ),
    ],
    ids=str,
)
def test_every_choice_of_tools_is_understood(given: Any, read: ToolChoice, offered: list[str]) -> None:
    ask = asked(tools=[WEATHER, PATCH, SEARCH], tool_choice=given)
    assert ask.tool_choice == read
    assert [tool.name for tool in ask.tools] == offered
