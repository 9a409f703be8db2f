"""Responses' tools: functions, custom tools and namespaces, all offered to the other surface as plain functions.

In: ``tools`` and ``tool_choice`` of a request. Out: canonical tools, and how a call of one is spelled to the client.
Must not: offer what the provider itself would have to run (web search and the like): such a tool is dropped and named.

A custom tool takes text instead of JSON: its function has the one parameter ``input``. A namespace's functions get its
name as a prefix. The encoder turns calls back by the same names.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from edge.protocol.canonical import Tool, ToolChoice
from edge.protocol.fields import Fields

CUSTOM_INPUT = "input"
_CUSTOM_SCHEMA = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string"}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}


class Spelling(NamedTuple):
    """How the client names a tool that is offered upstream under ``flat_name``."""

    name: str
    namespace: str = ""
    custom: bool = False


class Offered(NamedTuple):
    """What can be offered, how that is spelled where the name is not all of it, and the paths of what cannot be."""

    tools: list[Tool]
    spellings: dict[str, Spelling]
    dropped: list[str]


def flat_name(name: str, namespace: str | None) -> str:
    """One name for a tool and its namespace."""
    if not namespace:
        return name
    return f"{namespace}{name}" if namespace.endswith("__") else f"{namespace}__{name}"


def read_tools(*places: Fields) -> Offered:
    """The tools of a request; of a namespace, its members.

    Args:
        places: Objects that have ``tools``: the request, and items of its input.

    Raises:
        BadRequest: one is malformed.
    """
    offered = Offered([], {}, [])
    for tool, namespace in (one for place in places for one in _each(place)):
        kind = tool.needed_text("type")
        if kind not in ("function", "custom"):
            offered.dropped.append(tool.path.removesuffix("."))
            continue
        custom = kind == "custom"
        name = tool.needed_text("name")
        flat = flat_name(name, namespace)
        offered.tools.append(_custom(tool, flat) if custom else _function(tool, flat))
        if custom or namespace:
            offered.spellings[flat] = Spelling(name, namespace, custom)
    return offered


def read_choice(fields: Fields, offered: Offered) -> tuple[ToolChoice | None, list[Tool]]:
    """The choice, and the tools that it leaves to choose from.

    Raises:
        BadRequest: it is malformed, or forces a tool that is not offered.
    """
    choice = fields.any("tool_choice")
    if isinstance(choice, dict):
        return _object_choice(fields.needed_object("tool_choice"), offered)
    match choice:
        case None:
            return None, offered.tools
        case "required" if offered.dropped and not offered.tools:
            raise fields.wrong(offered.dropped[0], "this upstream has no such tool, and tool_choice requires a call")
        case "auto" | "none" | "required":
            return ToolChoice(choice), offered.tools
    raise fields.wrong("tool_choice", "must be auto, none, required or an object that names a tool")


def _each(fields: Fields) -> Iterator[tuple[Fields, str]]:
    for tool in fields.objects("tools"):
        if tool.body.get("type") == "namespace":
            namespace = tool.needed_text("name")
            yield from ((member, namespace) for member in tool.objects("tools"))
        else:
            yield tool, ""


def _function(tool: Fields, name: str) -> Tool:
    parameters = tool.object("parameters")
    schema = None if parameters is None else parameters.body
    return Tool(name, tool.text("description"), schema, tool.flag("strict"))


def _custom(tool: Fields, name: str) -> Tool:
    said = [tool.text("description") or "", f"`{CUSTOM_INPUT}` is the whole input, as plain text."]
    form = tool.object("format")
    if form is not None and form.one_of("type", "text", "grammar") == "grammar":
        syntax, definition = form.needed_text("syntax"), form.needed_text("definition")
        said.append(f"It must match this {syntax} grammar:\n{definition}")
    return Tool(name, "\n\n".join(filter(None, said)), _CUSTOM_SCHEMA)


def _object_choice(choice: Fields, offered: Offered) -> tuple[ToolChoice, list[Tool]]:
    match choice.needed_text("type"):
        case "function" | "custom":
            return ToolChoice("tool", _offered_name(choice, offered)), offered.tools
        case "allowed_tools":
            mode = choice.one_of("mode", "auto", "required") or "auto"
            allowed = {
                _offered_name(tool, offered)
                for tool in choice.objects("tools")
                if tool.needed_text("type") in ("function", "custom")
            }
            if mode == "required" and not allowed:
                raise choice.wrong("tools", "this upstream has none of these tools, and one is required")
            left = [tool for tool in offered.tools if tool.name in allowed]
            return ToolChoice("required" if mode == "required" else "auto"), left
        case other:
            raise choice.wrong("type", f"a tool of type {other[:40]!r} cannot be forced: this upstream has none")


def _offered_name(named: Fields, offered: Offered) -> str:
    name: Any = flat_name(named.needed_text("name"), named.text("namespace"))
    if all(tool.name != name for tool in offered.tools):
        raise named.wrong("name", "is none of the tools")
    return str(name)
