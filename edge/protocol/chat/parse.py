"""A chat request as its client sends it, read into the canonical form.

In: the decoded body of a chat request. Out: an ``Ask``. Must not: accept what no other surface could express
(audio, files by id), or lose a field without counting it.
Format: https://platform.openai.com/docs/api-reference/chat/create
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
from edge.protocol.images import image_of
from edge.protocol.json_text import dumps
from edge.protocol.sampling import read_sampling

# Of no meaning across surfaces, or dealt with before.
_SETTLED = ("stream", "stream_options", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key")
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
