"""Anthropic Messages requests, out of the canonical request.

In: an ``Ask``. Out: the body for ``/v1/messages``. Must not: lose a field without counting it, change a prompt without
naming that, or write what Anthropic is known to refuse: blank text, a last message of the assistant's that ends in
blanks, blank stop sequences, an image under another media type than its own.
Format: https://docs.anthropic.com/en/api/messages
"""

import re
from typing import Any

from edge.protocol.canonical import (
    Ask,
    ImagePart,
    Part,
    Rendering,
    Target,
    TextPart,
    ThinkingPart,
    Tool,
    ToolResultPart,
    ToolUsePart,
    UnsupportedPart,
)
from edge.protocol.images import image_type
from edge.protocol.json_text import loads

DEFAULT_MAX_TOKENS = 4096  # the field is required; every model can answer this long
_LEAST_BUDGET = 1024
# Tokens to think with, for OpenAI's words; the inverse of how a budget becomes an effort of chat completions.
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 32768}
_NOT_OF_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")
_CHOICES = {"auto": "auto", "none": "none", "required": "any", "tool": "tool"}
_LEAST_TOP_P_THINKING = 0.95

# What ``x-edge-changed`` calls the changes.
BLANK_TEXT = "blank-text"
BLANK_STOP = "blank-stop"
PREFILL_END = "prefill-end"
IMAGE_TYPE = "image-type"

_NOTHING_SAID = "(blank)"  # in place of a message of the user's: without it, the answer before would be continued


def render(ask: Ask, to: Target) -> Rendering:
    """Write a request.

    Raises:
        BadRequest: it cannot be said in Messages, and would be missed.
    """
    out = Rendering(ask, to)
    if ask.n is not None and ask.n > 1:
        raise out.refuse("n", f"{to.name} gives one answer at a time; ask {ask.n} times")
    if ask.logprobs or ask.top_logprobs:
        raise out.refuse("logprobs", f"{to.name} has none; leave it out")
    out.put("model", ask.model)
    system = [message.text() for message in ask.messages if message.role == "system"]
    out.put("system", "\n\n".join(text for text in system if not _is_blank(text, out)) or None)
    turns = out.body["messages"] = _turns(out)
    if not turns:
        raise out.refuse("messages", "there is nothing in them but the system prompt")
    _tools(out)
    if ask.format is not None:
        if ask.format.schema is None:
            raise out.refuse("format", f"{to.name} has no JSON mode without a schema; use json_schema")
        out.body["output_config"] = {"format": {"type": "json_schema", "schema": ask.format.schema}}
    _sampling(out, thinks=_budget(out))
    stops = [stop for stop in ask.stop if stop.strip()]
    if len(stops) < len(ask.stop):
        out.changed.append(BLANK_STOP)
    out.put("stop_sequences", stops)
    out.put("metadata", None if ask.user is None else {"user_id": ask.user})
    out.body["stream"] = True
    out.drop("seed", "presence_penalty", "frequency_penalty", "min_p", "keep_alive", "options")
    out.drop_extra()
    return out


def _turns(out: Rendering) -> list[dict[str, Any]]:
    """User and assistant by turns; what tools gave is said by the user. None if nobody says anything."""
    turns: list[dict[str, Any]] = []
    anything = False
    for message in out.ask.messages:
        if message.role == "system":
            continue
        blocks = [block for part in message.parts for block in _blocks(part, out)]
        anything = anything or bool(blocks)
        if not blocks and message.role == "user":
            out.changed.append(BLANK_TEXT)
            blocks = [{"type": "text", "text": _NOTHING_SAID}]
        if not blocks:
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if turns and turns[-1]["role"] == "assistant":
        _end_prefill(turns[-1]["content"][-1], out)
    return turns if anything else []


def _end_prefill(block: dict[str, Any], out: Rendering) -> None:
    """Take the blanks from the end of what the model is to continue."""
    text = block.get("text", "")
    if text != text.rstrip():
        block["text"] = text.rstrip()
        out.changed.append(PREFILL_END)


def _is_blank(text: str, out: Rendering) -> bool:
    """Whether there is nothing to read in a text, which is then to be left out."""
    if text and text.strip():
        return False
    if text:
        out.changed.append(BLANK_TEXT)
    return True


def _blocks(part: Part, out: Rendering) -> list[dict[str, Any]]:  # noqa: PLR0911 - one case per kind of part
    """None for what Anthropic would not take: blank text, and thought that it did not sign."""
    match part:
        case TextPart(text):
            return [] if _is_blank(text, out) else [{"type": "text", "text": text}]
        case ImagePart():
            return [_image(part, out)]
        case ThinkingPart(text, signature, redacted):
            if redacted:
                return [{"type": "redacted_thinking", "data": redacted}]
            return [{"type": "thinking", "thinking": text, "signature": signature}] if signature else []
        case ToolUsePart(identity, name):
            given = loads(part.arguments)
            return [{"type": "tool_use", "id": _id(identity), "name": name, "input": given}]
        case ToolResultPart(identity, parts, is_error):
            result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _id(identity)}
            content = [block for held in parts for block in _blocks(held, out)]
            if content:
                result["content"] = content
            return [{**result, "is_error": True} if is_error else result]
        case UnsupportedPart():
            return []  # ``history`` has left none


def _image(image: ImagePart, out: Rendering) -> dict[str, Any]:
    if image.url:
        return {"type": "image", "source": {"type": "url", "url": image.url}}
    kind = image_type(image.data) or image.media_type
    if kind != image.media_type:
        out.changed.append(IMAGE_TYPE)
    return {"type": "image", "source": {"type": "base64", "media_type": kind, "data": image.data}}


def _id(identity: str) -> str:
    return _NOT_OF_AN_ID.sub("_", identity)


def _tools(out: Rendering) -> None:
    ask = out.ask
    if not ask.tools:
        return
    out.body["tools"] = [_tool(tool) for tool in ask.tools]
    choice: dict[str, Any] = {}
    if ask.tool_choice is not None:
        choice["type"] = _CHOICES[ask.tool_choice.mode]
        if ask.tool_choice.mode == "tool":
            choice["name"] = ask.tool_choice.name
    if ask.parallel_tools is False and choice.get("type") != "none":
        choice = {"type": "auto", **choice, "disable_parallel_tool_use": True}
    out.put("tool_choice", choice)


def _tool(tool: Tool) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        fields["description"] = tool.description
    fields["input_schema"] = {"type": "object", **(tool.parameters or {"properties": {}})}
    if tool.strict is not None:
        fields["strict"] = tool.strict
    return fields


def _budget(out: Rendering) -> bool:
    """Set how long the answer and the thinking may be; whether there is to be any thinking."""
    ask, thinking = out.ask, out.ask.thinking
    most = out.body["max_tokens"] = ask.max_tokens or DEFAULT_MAX_TOKENS
    if thinking is None:
        return False
    if thinking.enabled is False:
        out.body["thinking"] = {"type": "disabled"}
        return False
    budget = max(_LEAST_BUDGET, thinking.budget or _BUDGETS.get(thinking.effort or "", _BUDGETS["medium"]))
    if ask.max_tokens is not None:
        budget = min(budget, most // 2)  # the rest is for the answer
    forced = out.body.get("tool_choice", {}).get("type") in ("any", "tool")
    if budget < _LEAST_BUDGET or forced or _thoughtless(out.body["messages"]):
        out.drop("thinking")
        return False
    if ask.max_tokens is None:
        out.body["max_tokens"] = most + budget
    out.body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    return True


def _thoughtless(turns: list[dict[str, Any]]) -> bool:
    """The model is in the middle of a turn with tools, and what it thought before is lost.

    With thinking on, Anthropic insists on having that back. Only its own surface has a place for the signature.
    """
    *_, before, last = [{"content": []}, *turns]
    called = any(block["type"] == "tool_result" for block in last["content"])
    return called and not any(block["type"].endswith("thinking") for block in before["content"])


def _sampling(out: Rendering, *, thinks: bool) -> None:
    """Temperature or ``top_p``, since newer models take one of them alone, and thinking ones hardly any."""
    ask = out.ask
    temperature, top_p = ask.temperature, ask.top_p
    if temperature is not None and temperature > 1:
        raise out.refuse("temperature", f"{out.target.name} takes at most 1")
    if thinks and temperature not in (None, 1):
        out.drop("temperature")
        temperature = None
    if top_p is not None and (temperature is not None or (thinks and top_p < _LEAST_TOP_P_THINKING)):
        out.drop("top_p")
        top_p = None
    out.put("temperature", temperature)
    out.put("top_p", top_p)
    if thinks:
        out.drop("top_k")
    else:
        out.put("top_k", ask.top_k)
