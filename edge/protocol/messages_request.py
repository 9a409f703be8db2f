"""Anthropic Messages requests: into the canonical request, and out of it.

In: the decoded body of one, or an ``Ask``. Out: the other. Must not: accept a block or a tool that only Anthropic's own
servers can serve, or lose a field without counting it.
Format: https://docs.anthropic.com/en/api/messages
"""

import re
from typing import Any

import orjson

from edge.errors import BadRequest
from edge.protocol.canonical import (
    Ask,
    Format,
    ImagePart,
    Message,
    Part,
    Rendering,
    Target,
    TextPart,
    Thinking,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.chat_request import image_of
from edge.protocol.fields import Fields

MAX_TOKENS = 4096  # Anthropic insists on a limit; this one is sent where a client of another surface gave none
_SETTLED = ("stream", "cache_control", "metadata", "service_tier", "container", "inference_geo", "speed", "diagnostics")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 24576, "max": 32000}
_LEAST_BUDGET = 1024
_NOT_IN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def parse(body: dict[str, Any], *, generates: bool = True) -> Ask:
    """Read a request, or one whose tokens are to be counted and that generates nothing.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    fields.known(*_SETTLED)
    most = fields.whole("max_tokens", 1)
    if most is None and generates:
        raise fields.wrong("max_tokens", "required, a whole number")
    metadata = fields.object("metadata")
    config = fields.object("output_config")
    choice, parallel = _tool_choice(fields)
    ask = Ask(
        model=fields.text("model"),
        messages=[*_system(fields), *(said for one in fields.objects("messages") for said in _messages(one))],
        tools=[_tool(tool) for tool in fields.objects("tools")],
        tool_choice=choice,
        parallel_tools=parallel,
        format=None if config is None else _format(config),
        thinking=_thinking(fields, config),
        max_tokens=most,
        temperature=fields.number("temperature", 0, 1),
        top_p=fields.number("top_p", 0, 1),
        top_k=fields.whole("top_k", 0),
        stop=fields.texts("stop_sequences"),
        user=None if metadata is None else metadata.text("user_id"),
        names={
            "stop": "stop_sequences", "user": "metadata.user_id", "format": "output_config.format",
            "parallel_tools": "tool_choice.disable_parallel_tool_use",
        },
    )  # fmt: skip
    for name in ("mcp_servers", "context_management"):
        if fields.any(name):
            raise fields.wrong(name, "only Anthropic's own servers can do this")
    ask.extra = fields.rest()
    return ask


def _system(fields: Fields) -> list[Message]:
    system = fields.any("system")
    if system is None or system in ("", []):
        return []
    if isinstance(system, str):
        return [Message("system", (TextPart(system),), "system")]
    if not isinstance(system, list):
        raise fields.wrong("system", "must be a string or a list of text blocks")
    blocks = [block.needed_text("text") for block in fields.objects("system")]
    return [Message("system", (TextPart("\n\n".join(blocks)),), "system")]


def _messages(fields: Fields) -> list[Message]:
    """One message, or several: what tools gave are messages of their own in every other surface."""
    role = fields.one_of("role", "user", "assistant", "system")
    if role is None:
        raise fields.wrong("role", "required: user or assistant")
    where = fields.path.removesuffix(".")
    content = fields.any("content")
    if content is None:
        raise fields.wrong("content", "required, a string or a list of blocks")
    if isinstance(content, str):
        return [Message("assistant" if role == "assistant" else role, (TextPart(content),), where)]  # type: ignore[arg-type]  # of the roles above
    parts = [_block(block) for block in fields.objects("content")]
    told = [Message("tool", (part,), where) for part in parts if isinstance(part, ToolResultPart)]
    rest = tuple(part for part in parts if not isinstance(part, ToolResultPart))
    if rest or not told:
        told.append(Message(role, rest, where))  # type: ignore[arg-type]  # of the roles above
    return told


def _block(fields: Fields) -> Part:
    match fields.needed_text("type"):
        case "text":
            return TextPart(fields.needed_text("text"))
        case "image":
            return _image(fields.needed_object("source"))
        case "thinking":
            return ThinkingPart(fields.needed_text("thinking"), fields.text("signature") or "")
        case "redacted_thinking":
            return ThinkingPart("", redacted=fields.needed_text("data"))
        case "tool_use":
            given = fields.object("input")
            arguments = orjson.dumps({} if given is None else given.body).decode()
            return ToolUsePart(fields.needed_text("id"), fields.needed_text("name"), arguments)
        case "tool_result":
            is_error = fields.flag("is_error") or False
            return ToolResultPart(fields.needed_text("tool_use_id"), _result(fields), is_error)
        case other:
            raise fields.wrong("type", f"a block of type {other[:40]!r} cannot be sent to this upstream")


def _result(fields: Fields) -> tuple[TextPart | ImagePart, ...]:
    content = fields.any("content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    parts = []
    for block in fields.objects("content"):
        part = _block(block)
        if not isinstance(part, TextPart | ImagePart):
            raise block.wrong("type", "what a tool gave can be text and images")
        parts.append(part)
    return tuple(parts)


def _image(source: Fields) -> ImagePart:
    match source.one_of("type", "base64", "url"):
        case "base64":
            return ImagePart(source.needed_text("media_type"), source.needed_text("data"))
        case "url":
            return image_of(source.needed_text("url"))
    raise source.wrong("type", "required: base64 or url")


def _tool(fields: Fields) -> Tool:
    kind = fields.text("type") or "custom"
    if kind != "custom":
        raise fields.wrong("type", f"the tool {kind[:40]!r} runs on Anthropic's own servers only")
    schema = fields.needed_object("input_schema")
    return Tool(fields.needed_text("name"), fields.text("description"), schema.body, fields.flag("strict"))


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    choice = fields.object("tool_choice")
    if choice is None:
        return None, None
    parallel = False if choice.flag("disable_parallel_tool_use") else None
    match choice.one_of("type", "auto", "any", "tool", "none"):
        case "any":
            return ToolChoice("required"), parallel
        case "tool":
            return ToolChoice("tool", choice.needed_text("name")), parallel
        case "none":
            return ToolChoice("none"), parallel
        case "auto":
            return ToolChoice("auto"), parallel
    raise choice.wrong("type", "required: auto, any, tool or none")


def _format(config: Fields) -> Format | None:
    wanted = config.object("format")
    if wanted is None:
        return None
    wanted.one_of("type", "json_schema")
    return Format(wanted.needed_object("schema").body)


def _thinking(fields: Fields, config: Fields | None) -> Thinking | None:
    effort = None if config is None else config.one_of("effort", *_EFFORTS)
    effort = "xhigh" if effort == "max" else effort
    thinking = fields.object("thinking")
    if thinking is None:
        return None if effort is None else Thinking(True, effort)
    match thinking.one_of("type", "enabled", "disabled", "adaptive"):
        case "disabled":
            return Thinking(False)
        case "adaptive":
            return Thinking(True, effort)
        case "enabled":
            return Thinking(True, effort, thinking.whole("budget_tokens", 1))
    raise thinking.wrong("type", "required: enabled, disabled or adaptive")


def render(ask: Ask, to: Target) -> Rendering:
    """Write a request.

    Raises:
        BadRequest: it cannot be said in Messages, and would be missed.
    """
    out = Rendering(ask, to)
    if ask.n is not None and ask.n > 1:
        raise out.refuse("n", f"{to.name} gives one answer at a time; ask {ask.n} times")
    if ask.logprobs or ask.top_logprobs:
        raise out.refuse("logprobs", f"{to.name} reports none; leave it out")
    if ask.format is not None and ask.format.schema is None:
        raise out.refuse("format", f"{to.name} needs a schema for structured output; use json_schema")
    out.put("model", ask.model)
    out.put("system", "\n\n".join(message.text() for message in ask.messages if message.role == "system"))
    out.body["messages"] = _rendered_messages(ask.messages)
    out.body["max_tokens"] = ask.max_tokens or MAX_TOKENS
    out.body["stream"] = True
    out.put("temperature", None if ask.temperature is None else min(1.0, ask.temperature))
    for name, theirs in (("top_p", "top_p"), ("top_k", "top_k"), ("stop", "stop_sequences")):
        out.put(theirs, getattr(ask, name))
    out.put("tools", [_rendered_tool(tool) for tool in ask.tools])
    _render_choice(out, ask)
    if ask.format is not None:
        out.body["output_config"] = {"format": {"type": "json_schema", "schema": ask.format.schema}}
    _render_thinking(out, ask)
    if ask.user is not None:
        out.body["metadata"] = {"user_id": ask.user}
    out.drop("min_p", "seed", "presence_penalty", "frequency_penalty", "keep_alive", "options")
    out.drop_extra()
    return out


def _rendered_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Alternating user and assistant messages; what tools gave comes first in the user's."""
    told: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        role = "assistant" if message.role == "assistant" else "user"
        blocks = [block for part in message.parts if (block := _rendered_block(part, message.path)) is not None]
        if told and told[-1]["role"] == role:
            told[-1]["content"] += blocks
        elif blocks:
            told.append({"role": role, "content": blocks})
    return told


def _rendered_block(part: Part, path: str) -> dict[str, Any] | None:
    match part:
        case TextPart(text):
            return {"type": "text", "text": text} if text.strip() else None  # an empty block is refused there
        case ImagePart(media_type, data, url):
            source = {"type": "base64", "media_type": media_type, "data": data}
            return {"type": "image", "source": {"type": "url", "url": url} if url else source}
        case ThinkingPart(text, signature, redacted):
            if redacted:
                return {"type": "redacted_thinking", "data": redacted}
            # Thought that Anthropic has not signed is not taken back by it.
            return {"type": "thinking", "thinking": text, "signature": signature} if signature else None
        case ToolUsePart(identity, name, arguments):
            try:
                given = orjson.loads(arguments or "{}")
            except orjson.JSONDecodeError:
                given = None
            if not isinstance(given, dict):
                raise BadRequest(f"{path}: the arguments of the call of {name} are no JSON object", param=path)
            return {"type": "tool_use", "id": _id(identity), "name": name, "input": given}
        case ToolResultPart(identity, parts, is_error):
            content = [block for one in parts if (block := _rendered_block(one, path)) is not None]
            result = {"type": "tool_result", "tool_use_id": _id(identity), "content": content}
            return {**result, "is_error": True} if is_error else result


def _id(identity: str) -> str:
    """An id as Anthropic takes it."""
    return _NOT_IN_ID.sub("_", identity) or "_"


def _rendered_tool(tool: Tool) -> dict[str, Any]:
    told: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description is not None:
        told["description"] = tool.description
    if tool.strict is not None:
        told["strict"] = tool.strict
    return told


def _render_choice(out: Rendering, ask: Ask) -> None:
    if not ask.tools or (ask.tool_choice is None and ask.parallel_tools is not False):
        return
    choice = ask.tool_choice or ToolChoice("auto")
    kind = {"required": "any"}.get(choice.mode, choice.mode)
    told: dict[str, Any] = {"type": kind}
    if choice.mode == "tool":
        told["name"] = choice.name
    if ask.parallel_tools is False and kind != "none":
        told["disable_parallel_tool_use"] = True
    out.body["tool_choice"] = told


def _render_thinking(out: Rendering, ask: Ask) -> None:
    thinking = ask.thinking
    if thinking is None:
        return
    if not thinking.enabled:
        out.body["thinking"] = {"type": "disabled"}
        return
    budget = thinking.budget or _BUDGETS.get(thinking.effort or "medium", _BUDGETS["medium"])
    budget = max(_LEAST_BUDGET, budget)
    out.body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    # The limit is for thought and answer together there: the client's is for the answer.
    if out.body["max_tokens"] <= budget:
        out.body["max_tokens"] += budget
    for name in ("temperature", "top_k", "top_p"):  # not taken together with thinking
        if out.body.pop(name, None) is not None:
            out.drop(name)
