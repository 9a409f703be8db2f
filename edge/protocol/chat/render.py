"""A canonical request as the body of a chat request, for an upstream that speaks chat.

In: an ``Ask``. Out: a body, and what had to be left out of it. Must not: lose a field without counting it.
"""

from typing import Any

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
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.images import url_of

# What makes another answer of it than the client's surface has: two choices would be read as one.
SHAPING = frozenset(
    {
        "messages", "prompt", "tools", "tool_choice", "functions", "function_call", "response_format", "n", "best_of",
        "echo", "logprobs", "top_logprobs", "prompt_logprobs", "audio", "modalities",
    }
)  # fmt: skip
# Templates of open models know three words, OpenAI none above xhigh.
_LOCAL_EFFORTS = {"minimal": "low", "xhigh": "high", "max": "high", "ultra": "high"}
_CLOUD_EFFORTS = {"max": "xhigh", "ultra": "xhigh"}


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
        return {"role": "tool", "tool_call_id": result.id, "content": _tool_content(result)}
    if message.role != "assistant":
        return {"role": message.role, "content": _rendered_content(message.parts)}
    fields: dict[str, Any] = {"role": "assistant", "content": message.text() or None}
    thought = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    if thought:
        fields["reasoning_content"] = thought
    calls = [
        {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": part.arguments}}
        for part in message.parts
        if isinstance(part, ToolUsePart)
    ]
    if calls:
        fields["tool_calls"] = calls
    elif fields["content"] is None:
        fields["content"] = ""
    return fields


def _tool_content(result: ToolResultPart) -> Any:
    if any(isinstance(part, ImagePart) for part in result.parts):
        return _rendered_content(result.parts)
    return result.text()


def _rendered_content(parts: tuple[Part, ...]) -> Any:
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    fields: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, TextPart):
            fields.append({"type": "text", "text": part.text})
        elif isinstance(part, ImagePart):
            fields.append({"type": "image_url", "image_url": {"url": url_of(part)}})
    return fields


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
