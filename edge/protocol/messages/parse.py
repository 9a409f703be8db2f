"""Anthropic Messages requests, into the canonical request.

In: the decoded body of one. Out: an ``Ask``. Must not: offer tools that run at Anthropic to anybody else, refuse what
is only history, or complain about what only Anthropic has a use for (``cache_control``).
Format: https://docs.anthropic.com/en/api/messages
"""

from typing import Any

from edge.protocol.canonical import (
    Ask,
    Format,
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    Thinking,
    ThinkingPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
    UnsupportedPart,
)
from edge.protocol.fields import Fields
from edge.protocol.history import unsupported, written_arguments

# Of no meaning across surfaces, or dealt with before.
_SETTLED = ("stream", "service_tier", "cache_control", "diagnostics")
# Wishes that only Anthropic can fulfil, without which the answer means the same.
_IGNORED = ("context_management", "inference_geo", "speed", "user_profile_id")
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
_NAMES = {
    "stop": "stop_sequences",
    "user": "metadata.user_id",
    "parallel_tools": "tool_choice.disable_parallel_tool_use",
}


def parse(body: dict[str, Any]) -> Ask:
    """Read a request.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    fields.known(*_SETTLED, "output_format")
    most = fields.whole("max_tokens", 1)
    if most is None:
        raise fields.wrong("max_tokens", "required, a whole number")
    messages, tools = conversation(fields)
    choice, parallel = _tool_choice(fields)
    metadata = fields.object("metadata")
    config = fields.object("output_config")
    name, wanted = _format(fields, config)
    ask = Ask(
        model=fields.text("model"),
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tools=parallel,
        format=wanted,
        thinking=_thinking(fields, config),
        max_tokens=most,
        temperature=fields.number("temperature", 0, 1),
        top_p=fields.number("top_p", 0, 1),
        top_k=fields.whole("top_k"),
        stop=_stop(fields),
        user=None if metadata is None else metadata.text("user_id"),
        names={**_NAMES, "format": name},
        ignored=[name for name in _IGNORED if fields.any(name) is not None],
    )
    if config is not None:
        ask.ignored += [f"{config.path}{name}" for name in config.rest()]
    if (fields.whole("n", 1) or 1) > 1:
        raise fields.wrong("n", "a message is one answer")
    for name in ("container", "mcp_servers"):
        if fields.any(name) not in (None, []):
            raise fields.wrong(name, "has no equivalent at the upstream that has this model")
    ask.extra = fields.rest()
    return ask


def conversation(fields: Fields) -> tuple[list[Message], list[Tool]]:
    """What the model is given to read: the system prompt and the messages, and the tools.

    Raises:
        BadRequest: as in ``parse``.
    """
    payload = _system(fields)
    spoken = fields.objects("messages")
    if not spoken:
        raise fields.wrong("messages", "required, a list of at least one message")
    for message in spoken:
        payload += _message(message)
    return payload, [_tool(tool) for tool in fields.objects("tools")]


def _system(fields: Fields) -> list[Message]:
    prompt = fields.any("system")
    if prompt is None:
        return []
    parts = [TextPart(prompt)] if isinstance(prompt, str) else [_text(block) for block in fields.objects("system")]
    return [Message("system", tuple(parts), "system")] if parts else []


def _message(fields: Fields) -> list[Message]:
    """A message; a user's becomes several if it holds what tools gave, which comes first."""
    role = fields.one_of("role", *_ROLES)
    where = fields.path.removesuffix(".")
    content = fields.any("content")
    if content is None or role is None:
        raise fields.wrong("role" if role is None else "content", "required")
    if isinstance(content, str):
        return [Message(_ROLES[role], (TextPart(content),), where)]
    if not isinstance(content, list):
        raise fields.wrong("content", "must be a string or a list of blocks")
    blocks = fields.objects("content")
    match role:
        case "system":
            return [Message("system", tuple(map(_users, blocks)), where)]
        case "assistant":
            return [Message("assistant", tuple(map(_assistants, blocks)), where)]
    parts = [(_users(block), block.path.removesuffix(".")) for block in blocks]
    if not parts:
        raise fields.wrong("content", "must not be empty")
    results = [Message("tool", (part,), path) for part, path in parts if isinstance(part, ToolResultPart)]
    others = tuple(part for part, _ in parts if not isinstance(part, ToolResultPart))
    return [*results, Message("user", others, where)] if others else results


def _text(block: Fields) -> TextPart:
    if block.needed_text("type") != "text":
        raise _misplaced(block, "here only text can stand")
    return TextPart(block.needed_text("text"))


def _assistants(block: Fields) -> Part:
    match block.needed_text("type"):
        case "text":
            return TextPart(block.needed_text("text"))
        case "thinking":
            return ThinkingPart(block.needed_text("thinking"), block.text("signature") or "")
        case "redacted_thinking":
            return ThinkingPart("", redacted=block.needed_text("data"))
        case "tool_use":
            given = written_arguments(block.any("input"))
            return ToolUsePart(block.needed_text("id"), block.needed_text("name"), given)
        case other:
            return unsupported(block, other, "it cannot be sent to this upstream as a part of an assistant's message")


def _users(block: Fields) -> Part:
    if block.needed_text("type") == "tool_result":
        return ToolResultPart(block.needed_text("tool_use_id"), _given(block), bool(block.flag("is_error")))
    return _shown(block)


def _shown(block: Fields) -> TextPart | ImagePart | UnsupportedPart:
    """A block of what a user or a tool shows to the model."""
    match block.needed_text("type"):
        case "text":
            return TextPart(block.needed_text("text"))
        case "image":
            return _image(block)
        case "document":
            return _document(block)
        case "search_result":
            found = "\n".join(text.text("text") or "" for text in block.objects("content"))
            return TextPart(_titled(found, block.text("title"), block.text("source")))
        case "tool_reference":
            return TextPart(f"[tool: {block.needed_text('tool_name')}]")
        case other:
            return unsupported(block, other, "it cannot be sent to this upstream as a part of a user's message")


def _document(block: Fields) -> TextPart | UnsupportedPart:
    """A document that is text, or is made of blocks of text; nobody else reads PDFs, or has Anthropic's files."""
    source = block.object("source") or Fields({})
    titles = block.text("title"), block.text("context")
    match source.text("type"):
        case "text":
            return TextPart(_titled(source.needed_text("data"), *titles))
        case "content":
            held = source.any("content")
            texts = [held] if isinstance(held, str) else [part.text("text") for part in source.objects("content")]
            if all(texts):
                return TextPart(_titled("\n".join(filter(None, texts)), *titles))
    return unsupported(block, "document", "this upstream reads documents of plain text only; send it as text")


def _titled(text: str, *titles: str | None) -> str:
    return "\n".join([*filter(None, titles), text])


def _given(result: Fields) -> tuple[TextPart | ImagePart | UnsupportedPart, ...]:
    content = result.any("content")
    if content is None:
        return ()
    if isinstance(content, str):
        return (TextPart(content),)
    if not isinstance(content, list):
        raise result.wrong("content", "must be a string or a list of blocks")
    return tuple(map(_shown, result.objects("content")))


def _misplaced(block: Fields, why: str) -> Exception:
    return block.wrong("type", f"{str(block.any('type'))[:40]!r}: {why}")


def _image(block: Fields) -> ImagePart | UnsupportedPart:
    source = block.needed_object("source")
    match source.needed_text("type"):
        case "base64":
            return ImagePart(source.needed_text("media_type"), source.needed_text("data"))
        case "url":
            return ImagePart(url=source.needed_text("url"))
        case other:
            return unsupported(source, other, "must be base64 or url; files are not kept here")


def _tool(fields: Fields) -> Tool:
    kind = fields.text("type") or "custom"
    if kind != "custom":
        raise fields.wrong("type", f"{kind[:40]!r}: this upstream has none of Anthropic's own tools; use custom ones")
    return Tool(
        fields.needed_text("name"),
        fields.text("description"),
        fields.needed_object("input_schema").body,
        fields.flag("strict"),
    )


def _tool_choice(fields: Fields) -> tuple[ToolChoice | None, bool | None]:
    """Which tools are to be called, and whether several at once."""
    choice = fields.object("tool_choice")
    if choice is None:
        return None, None
    kind = choice.one_of("type", "auto", "any", "tool", "none")
    alone = choice.flag("disable_parallel_tool_use")
    parallel = None if alone is None else not alone
    match kind:
        case "tool":
            return ToolChoice("tool", choice.needed_text("name")), parallel
        case "any":
            return ToolChoice("required"), parallel
        case "auto" | "none":
            return ToolChoice(kind), parallel
    raise choice.wrong("type", "required")


def _format(fields: Fields, config: Fields | None) -> tuple[str, Format | None]:
    """Structured output, and the field that asks for it: the present one or the one that was there before it."""
    for name, there in (("format", config), ("output_format", fields)):
        wanted = None if there is None else there.object(name)
        if there is not None and wanted is not None:
            if wanted.one_of("type", "json_schema") is None:
                raise wanted.wrong("type", "required, json_schema")
            return f"{there.path}{name}", Format(wanted.needed_object("schema").body)
    return "output_config.format", None


def _thinking(fields: Fields, config: Fields | None) -> Thinking | None:
    effort = None if config is None else config.one_of("effort", *_EFFORTS)
    effort = "xhigh" if effort == "max" else effort
    thinking = fields.object("thinking")
    if thinking is not None:
        match thinking.one_of("type", "enabled", "disabled", "adaptive"):
            case "enabled":
                budget = thinking.whole("budget_tokens", 1)
                if budget is None:
                    raise thinking.wrong("budget_tokens", "required, a whole number")
                return Thinking(True, effort, budget)
            case "disabled":
                return Thinking(False)
            case None:
                raise thinking.wrong("type", "required")
    # Adaptive leaves it to the model, as does who says nothing: a model that cannot think must not be asked to.
    return None if effort is None else Thinking(None, effort)


def _stop(fields: Fields) -> list[str]:
    if isinstance(fields.any("stop_sequences"), str):
        raise fields.wrong("stop_sequences", "must be a list of strings")
    return fields.texts("stop_sequences")
