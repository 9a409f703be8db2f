"""Ollama requests, out of the canonical request.

In: an ``Ask``. Out: the body for ``/api/chat`` or ``/api/generate``. Must not: lose a field without counting it.
Format: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

from typing import Any

from edge.protocol.canonical import (
    Ask,
    ImagePart,
    Message,
    Part,
    Rendering,
    Target,
    Thinking,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.json_text import loads

_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "max_tokens": "num_predict",
}
# Only gpt-oss takes these words; every other thinking model wants true or false.
_EFFORTS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}


def render_chat(ask: Ask, to: Target) -> Rendering:
    """Write a request for ``/api/chat``.

    Raises:
        BadRequest: it cannot be said there, and would be missed.
    """
    out = _rendered(ask, to)
    if not ask.messages:  # there it would mean: load the model, and the answer is no stream
        raise out.refuse("messages", f"{to.name} needs at least one")
    names = {part.id: part.name for message in ask.messages for part in message.parts if isinstance(part, ToolUsePart)}
    out.body["messages"] = [_message(message, names) for message in ask.messages]
    out.put("logprobs", ask.logprobs)
    out.put("top_logprobs", ask.top_logprobs)
    choice = ask.tool_choice
    if choice is not None and choice.mode in ("required", "tool") and ask.tools:
        raise out.refuse("tool_choice", f"{to.name} cannot be made to call a tool; use auto")
    if choice is None or choice.mode != "none":
        out.put("tools", [_tool(tool) for tool in ask.tools])
    return out


def render_generate(ask: Ask, to: Target) -> Rendering:
    """Write a request for ``/api/generate``, which continues a prompt as it stands.

    Raises:
        BadRequest: it cannot be said there, and would be missed.
    """
    out = _rendered(ask, to)
    if ask.logprobs or ask.top_logprobs:
        raise out.refuse("logprobs", f"{to.name} does not give them in the form of completions; leave it out")
    out.body["prompt"] = ask.prompt or ""
    out.put("suffix", ask.suffix)
    if not ask.suffix:
        out.body["raw"] = True  # no template around it
    return out


def _rendered(ask: Ask, to: Target) -> Rendering:
    out = Rendering(ask, to)
    if ask.n is not None and ask.n > 1:
        raise out.refuse("n", f"{to.name} gives one answer at a time; ask {ask.n} times")
    out.put("model", ask.model)
    out.body["stream"] = True
    options: dict[str, Any] = {} if not to.num_ctx else {"num_ctx": to.num_ctx}
    for name, theirs in _OPTIONS.items():
        value = getattr(ask, name)
        if value not in (None, []):
            options[theirs] = value
    options.update(ask.options)
    out.put("options", options)
    if ask.format is not None:
        out.body["format"] = "json" if ask.format.schema is None else ask.format.schema
    if ask.thinking is not None:
        out.put("think", _think(ask, ask.thinking))
    out.put("keep_alive", to.keep_alive if ask.keep_alive is None else ask.keep_alive)
    if to.refuses_cuts == "always" or (to.refuses_cuts == "auto" and ask.tools):
        out.body["truncate"] = False
    out.drop("parallel_tools", "user")
    out.drop_extra()
    return out


def _think(ask: Ask, thinking: Thinking) -> bool | str | None:
    if thinking.enabled is False or not thinking.effort:
        return thinking.enabled
    if thinking.effort not in _EFFORTS:
        return "max" if thinking.effort == "ultra" else thinking.effort  # max, and whatever Ollama may come to know
    return _EFFORTS[thinking.effort] if "gpt-oss" in (ask.model or "").lower() else thinking.enabled


def _message(message: Message, names: dict[str, str]) -> dict[str, Any]:
    if message.role == "tool":
        (result,) = message.parts
        assert isinstance(result, ToolResultPart)  # noqa: S101 - a tool message is nothing else
        fields: dict[str, Any] = {"role": "tool", "content": result.text()}
        name = result.name or names.get(result.id)
        if name:
            fields["tool_name"] = name
        images = _images(result.parts)
        return {**fields, "images": images} if images else fields
    fields = {"role": message.role, "content": message.text()}
    images = _images(message.parts)
    if images:
        fields["images"] = images
    thought = "".join(part.text for part in message.parts if isinstance(part, ThinkingPart))
    if thought:
        fields["thinking"] = thought
    calls = [_call(part) for part in message.parts if isinstance(part, ToolUsePart)]
    if calls:
        fields["tool_calls"] = calls
    return fields


def _images(parts: tuple[Part, ...]) -> list[str]:
    return [part.data for part in parts if isinstance(part, ImagePart)]


def _call(part: ToolUsePart) -> dict[str, Any]:
    return {"function": {"name": part.name, "arguments": loads(part.arguments)}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description or ""}
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": function}
