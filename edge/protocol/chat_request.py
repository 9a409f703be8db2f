"""Chat completions requests: into the canonical request, and out of it.

In: the decoded body of one, or an ``Ask``. Out: the other. Must not: accept what no other surface could be told of
(audio, files by id), or lose a field without counting it.
Format: https://platform.openai.com/docs/api-reference/chat/create
"""

import re
from typing import Any

from edge.protocol.canonical import (
    Ask,
    Format,
    ImagePart,
    Message,
    Part,
    Rendering,
    Role,
    Target,
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
from edge.protocol.image_types import image_type
from edge.protocol.json_text import dumps

# Of no meaning across surfaces, or dealt with before.
_SETTLED = ("stream", "stream_options", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")
# What makes another answer of it than the client's surface has: two choices would be read as one.
SHAPING = frozenset(
    {
        "messages", "prompt", "tools", "tool_choice", "functions", "function_call", "response_format", "n", "best_of",
        "echo", "logprobs", "top_logprobs", "prompt_logprobs", "audio", "modalities",
    }
)  # fmt: skip
_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+)?(?:;[^,]*)?;base64,", re.ASCII)
# Templates of open models know three words, OpenAI none above xhigh.
_LOCAL_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high", "ultra": "high"}
_CLOUD_EFFORTS = {"max": "xhigh", "ultra": "xhigh"}
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def parse(body: dict[str, Any]) -> Ask:
    """Read a request.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    fields.known(*_SETTLED)
    most = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    fields.known("max_tokens")
    ask = Ask(
        model=fields.text("model"),
        messages=[_message(message) for message in fields.objects("messages")],
        tools=[_tool(tool) for tool in fields.objects("tools")],
        tool_choice=_tool_choice(fields),
        parallel_tools=fields.flag("parallel_tool_calls"),
        format=_format(fields),
        thinking=_thinking(fields),
        max_tokens=_most_tokens(fields, most),
        logprobs=fields.flag("logprobs"),
        top_logprobs=fields.whole("top_logprobs", 0),
        n=fields.whole("n", 1),
        names={
            "max_tokens": most, "parallel_tools": "parallel_tool_calls", "format": "response_format",
            "thinking": "reasoning_effort",
        },
    )  # fmt: skip
    read_sampling(fields, ask)
    for name in ("functions", "function_call"):
        if fields.any(name) is not None:
            raise fields.wrong(name, "is the old form of tools and cannot be translated; use tools and tool_choice")
    for name in ("audio", "modalities", "prediction", "web_search_options", "prompt_logprobs"):
        if fields.any(name) not in (None, ["text"]):
            raise fields.wrong(name, "has no equivalent at the upstream that has this model")
    ask.extra = fields.rest()
    return ask


def _most_tokens(fields: Fields, name: str) -> int | None:
    """How long the answer may be; -1 is no limit to llama.cpp, LM Studio and Ollama, whose clients send it."""
    return None if fields.any(name) == -1 else fields.whole(name, 1)


def read_sampling(fields: Fields, ask: Ask) -> None:
    """Read what all of OpenAI's generating requests spell alike, and what Ollama's clients put beside it.

    Raises:
        BadRequest: a field is malformed.
    """
    ask.temperature = fields.number("temperature", 0)
    ask.top_p = fields.number("top_p", 0, 1)
    ask.top_k = fields.whole("top_k")
    ask.min_p = fields.number("min_p", 0, 1)
    ask.seed = fields.whole("seed")
    ask.stop = fields.texts("stop")
    ask.presence_penalty = fields.number("presence_penalty")
    ask.frequency_penalty = fields.number("frequency_penalty")
    ask.user = fields.text("user")
    ask.keep_alive = fields.any("keep_alive")
    options = fields.object("options")
    ask.options = {} if options is None else options.body


def _message(fields: Fields) -> Message:
    role = _ROLES[fields.one_of("role", *_ROLES) or _missing(fields, "role")]
    where = fields.path.removesuffix(".")
    if role == "tool":
        name = fields.text("name") or ""
        identity = fields.text("tool_call_id") or name or _missing(fields, "tool_call_id")
        content = tuple(part for part in _content(fields) if isinstance(part, TextPart | ImagePart | UnsupportedPart))
        return Message(role, (ToolResultPart(identity, content, name=name),), where)
    parts: list[Part] = []
    thought = fields.text("reasoning_content") or fields.text("reasoning")
    if thought and role == "assistant":
        parts.append(ThinkingPart(thought))
    parts += _content(fields)
    if role == "assistant":
        refusal = fields.text("refusal")
        if refusal:
            parts.append(TextPart(refusal))
        parts += _calls(fields)
        if fields.any("audio") is not None:
            parts.append(UnsupportedPart("audio", f"{where}.audio", fields.wrong("audio", "cannot be sent upstream")))
    elif not parts:
        _missing(fields, "content")
    return Message(role, tuple(parts), where)


def _calls(message: Fields) -> list[ToolUsePart]:
    """The calls that an assistant has made, in any of the forms that there were."""
    calls = []
    for call in message.objects("tool_calls"):
        custom = call.object("custom")
        if custom is not None:
            typed = dumps({"input": custom.text("input") or ""}).decode()
            calls.append(ToolUsePart(call.text("id") or "", custom.needed_text("name"), typed))
            continue
        function = call.needed_object("function")
        arguments = written_arguments(function.any("arguments"))
        calls.append(ToolUsePart(call.text("id") or "", function.needed_text("name"), arguments))
    old = message.object("function_call")
    if old is not None:  # its result names the function, and no id
        name = old.needed_text("name")
        calls.append(ToolUsePart(name, name, written_arguments(old.any("arguments"))))
    return calls


def _missing(fields: Fields, name: str) -> Any:
    raise fields.wrong(name, "required")


def _content(fields: Fields) -> list[Part]:
    content = fields.any("content")
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise fields.wrong("content", "must be a string or a list of parts")
    return [_part(part) for part in fields.objects("content")]


def _part(fields: Fields) -> Part:
    match fields.needed_text("type"):
        case "text":
            return TextPart(fields.needed_text("text"))
        case "refusal":
            return TextPart(fields.needed_text("refusal"))
        case "image_url":
            image = fields.any("image_url")
            url = image if isinstance(image, str) else fields.needed_object("image_url").needed_text("url")
            return image_of(url)
        case other:
            return unsupported(fields, other, "a part of this type cannot be sent to this upstream")


def image_of(url: str) -> ImagePart:
    """An image by its URL; what a data URL holds is taken out of it."""
    match = _DATA_URL.match(url)
    if match is None:
        return ImagePart(url=url)
    data = url[match.end() :]
    return ImagePart(match[1] or image_type(data) or "image/png", data)


def url_of(image: ImagePart) -> str:
    """The URL for an image."""
    return image.url or f"data:{image.media_type};base64,{image.data}"


def _tool(fields: Fields) -> Tool:
    kind = fields.text("type") or "function"
    if kind != "function":
        raise fields.wrong("type", f"a tool of type {kind[:40]!r} cannot be offered to this upstream; use function")
    function = fields.needed_object("function")
    parameters = function.object("parameters")
    return Tool(
        function.needed_text("name"),
        function.text("description"),
        None if parameters is None else parameters.body,
        function.flag("strict"),
    )


def _tool_choice(fields: Fields) -> ToolChoice | None:
    choice = fields.any("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, dict):
        return ToolChoice("tool", fields.needed_object("tool_choice").needed_object("function").needed_text("name"))
    match choice:
        case "auto" | "none" | "required":
            return ToolChoice(choice)
    raise fields.wrong("tool_choice", "must be auto, none, required or an object that names a function")


def _format(fields: Fields) -> Format | None:
    wanted = fields.object("response_format")
    if wanted is None:
        return None
    match wanted.one_of("type", "text", "json_object", "json_schema"):
        case "json_object":
            return Format()
        case "json_schema":
            schema = wanted.needed_object("json_schema")
            return Format(schema.needed_object("schema").body, schema.text("name") or "answer", schema.flag("strict"))
    return None


def _thinking(fields: Fields) -> Thinking | None:
    """OpenAI's effort, or Ollama's ``think`` beside it, which is more direct."""
    think = fields.any("think")
    effort = fields.text("reasoning_effort")  # a word that is not known here is the server's business
    if isinstance(think, bool):
        return Thinking(think, effort)
    if isinstance(think, str):
        return Thinking(True, think)
    return None if effort is None else Thinking(effort != "none", effort)


def render(ask: Ask, to: Target) -> Rendering:
    """Write a request.

    Raises:
        BadRequest: it cannot be said in chat completions.
    """
    out = Rendering(ask, to)
    out.put("model", ask.model)
    out.body["messages"] = [_rendered(message) for message in _messages(ask)]
    out.body["stream"] = True
    out.body["stream_options"] = {"include_usage": True}
    out.put("tools", [_rendered_tool(tool) for tool in ask.tools])
    if ask.tool_choice is not None and ask.tools:
        named = ask.tool_choice.mode == "tool"
        function = {"type": "function", "function": {"name": ask.tool_choice.name}}
        out.put("tool_choice", function if named else ask.tool_choice.mode)
    if ask.tools:
        out.put("parallel_tool_calls", ask.parallel_tools)
    if ask.format is not None:
        out.put("response_format", _rendered_format(ask.format))
    if ask.thinking is not None:
        effort = ask.thinking.effort or _effort(ask.thinking)
        known = _CLOUD_EFFORTS if to.cloud else _LOCAL_EFFORTS
        out.put("reasoning_effort", None if effort is None else known.get(effort, effort))
    out.put("max_completion_tokens" if to.cloud else "max_tokens", ask.max_tokens)
    for name in ("temperature", "top_p", "seed", "stop", "presence_penalty", "frequency_penalty"):
        out.put(name, getattr(ask, name))
    for name in ("logprobs", "top_logprobs", "n", "user"):
        out.put(name, getattr(ask, name))
    out.drop("keep_alive", "options")
    if to.cloud:
        out.drop("top_k", "min_p")
        out.drop_extra()
    else:
        out.put("top_k", ask.top_k)
        out.put("min_p", ask.min_p)
        out.put_extra(SHAPING)
    return out


def _messages(ask: Ask) -> list[Message]:
    """Local templates take a system message only at the front, and only one; ``history`` has left no other there."""
    system = [message for message in ask.messages if message.role == "system"]
    if not system:
        return ask.messages
    joined = TextPart("\n\n".join(message.text() for message in system))
    return [Message("system", (joined,)), *(message for message in ask.messages if message.role != "system")]


def _effort(thinking: Thinking) -> str | None:
    """A budget in tokens, as one of OpenAI's words."""
    if thinking.enabled is False:
        return "none"
    if thinking.budget is None:
        return None
    return "low" if thinking.budget < 4096 else "medium" if thinking.budget < 16384 else "high"


def _rendered(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        (result,) = message.parts
        assert isinstance(result, ToolResultPart)  # noqa: S101 - a tool message is nothing else
        return {"role": "tool", "tool_call_id": result.id, "content": _told(result)}
    if message.role != "assistant":
        return {"role": message.role, "content": _rendered_content(message.parts)}
    told: dict[str, Any] = {"role": "assistant", "content": message.text() or None}
    thought = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    if thought:
        told["reasoning_content"] = thought
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolUsePart)
    ]
    if calls:
        told["tool_calls"] = calls
    elif told["content"] is None:
        told["content"] = ""
    return told


def _told(result: ToolResultPart) -> Any:
    if any(isinstance(part, ImagePart) for part in result.parts):
        return _rendered_content(result.parts)
    return result.text()


def _rendered_content(parts: tuple[Part, ...]) -> Any:
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    told: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, TextPart):
            told.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            told.append({"type": "image_url", "image_url": {"url": url_of(part)}})
    return told


def _rendered_tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.parameters is not None:
        function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _rendered_format(wanted: Format) -> dict[str, Any]:
    if wanted.schema is None:
        return {"type": "json_object"}
    schema: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": schema}
