"""Ollama requests of clients, into the canonical request.

In: the decoded body of an ``/api/chat`` or an ``/api/generate``. Out: an ``Ask``. Must not: accept what no other
surface could express (``context``, ``template``), or lose a field without counting it.
Format: https://github.com/ollama/ollama/blob/main/docs/api.md
"""

import binascii
from dataclasses import dataclass, field
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
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.fields import Fields
from edge.protocol.history import written_arguments

_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
# How the base64 text of an image begins: Ollama's clients do not say what kind it is.
_IMAGES = {"iVBORw0KGgo": "image/png", "/9j/": "image/jpeg", "R0lGOD": "image/gif", "UklGR": "image/webp"}
_MOST_LOGPROBS = 20  # Ollama's own bound
_LINE_ENDS = str.maketrans("", "", "\r\n")
_NAMES = {
    "max_tokens": "options.num_predict",
    "thinking": "think",
    "prompt": "raw",
    **{
        name: f"options.{name}"
        for name in (
            "temperature", "top_p", "top_k", "min_p", "seed", "stop", "presence_penalty", "frequency_penalty",
        )
    },
}  # fmt: skip


def parse_chat(body: dict[str, Any]) -> Ask:
    """Read a request for ``/api/chat``.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    calls = _Calls()
    ask = _shared(fields)
    ask.messages = [_message(message, calls) for message in fields.objects("messages")]
    ask.tools = [_tool(tool) for tool in fields.objects("tools")]
    ask.extra = fields.rest()
    return ask


def parse_generate(body: dict[str, Any]) -> Ask:
    """Read a request for ``/api/generate``: a prompt for the model's template, or with ``raw`` one to continue.

    Raises:
        BadRequest: a field is malformed, or means something that cannot be carried across.
    """
    fields = Fields(body)
    ask = _shared(fields)
    prompt, system, suffix = fields.text("prompt") or "", fields.text("system"), fields.text("suffix")
    images = _images(fields)
    if fields.any("context"):
        raise fields.wrong("context", "only the Ollama that made it can read it; send the conversation to /api/chat")
    if fields.flag("raw") or suffix:
        how = "raw" if body.get("raw") else "suffix"
        for name, given in (("system", system), ("images", images), ("format", ask.format)):
            if given:
                raise fields.wrong(name, f"cannot be sent together with {how}")
        ask.prompt, ask.suffix = prompt, suffix or None
        ask.names["prompt"] = how
    else:
        ask.messages = [Message("system", (TextPart(system),), "system")] if system else []
        ask.messages.append(Message("user", (TextPart(prompt), *images), "prompt"))
    ask.extra = fields.rest()
    return ask


def _shared(fields: Fields) -> Ask:
    fields.known("stream")
    options = fields.object("options") or Fields({}, "options.")
    if fields.text("template"):
        raise fields.wrong("template", "the upstream that has this model has its own; leave it out")
    logprobs, top_logprobs = fields.flag("logprobs"), fields.whole("top_logprobs", 0, _MOST_LOGPROBS)
    most = options.whole("num_predict")
    ask = Ask(
        model=fields.text("model"),
        format=_format(fields),
        thinking=_thinking(fields),
        max_tokens=most if most is not None and most > 0 else None,  # else without a limit
        temperature=options.number("temperature", 0),
        top_p=options.number("top_p", 0, 1),
        top_k=options.whole("top_k"),
        min_p=options.number("min_p", 0, 1),
        seed=options.whole("seed"),
        stop=options.texts("stop"),
        presence_penalty=options.number("presence_penalty"),
        frequency_penalty=options.number("frequency_penalty"),
        keep_alive=_keep_alive(fields),
        logprobs=logprobs or None,
        top_logprobs=top_logprobs if logprobs else None,  # as an Ollama, which ignores it alone
    )
    ask.options = options.rest()
    ask.names = {**_NAMES, "options": ", ".join(f"options.{name}" for name in ask.options)}
    return ask


def _keep_alive(fields: Fields) -> str | float | None:
    value = fields.any("keep_alive")
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise fields.wrong("keep_alive", "must be a duration, as text or in seconds")
    return value


def _format(fields: Fields) -> Format | None:
    wanted = fields.any("format")
    if wanted in (None, ""):
        return None
    if wanted == "json":
        return Format()
    if isinstance(wanted, dict):
        return Format(wanted)
    raise fields.wrong("format", 'must be "json" or a JSON schema')


def _thinking(fields: Fields) -> Thinking | None:
    think = fields.any("think")
    if think is None or isinstance(think, bool):
        return None if think is None else Thinking(think)
    if isinstance(think, str) and think:
        return Thinking(True, think)  # a word that is not known here is the server's business
    raise fields.wrong("think", "must be true, false or a word such as low, medium, high or max")


@dataclass(slots=True)
class _Calls:
    """The tool calls of a conversation: Ollama's need no ids, and their results may only name the tool."""

    count: int = 0
    open: list[ToolUsePart] = field(default_factory=list)

    def made(self, name: str, identity: str | None, arguments: str) -> ToolUsePart:
        """Another call, with an id."""
        call = ToolUsePart(identity or f"call_{self.count}", name, arguments)
        self.count += 1
        self.open.append(call)
        return call

    def answered(self, identity: str | None, name: str | None) -> str:
        """The id of the call that a result is for: the one that it names, else the first that has none yet."""
        named = [call for call in self.open if call.id == identity] or [call for call in self.open if call.name == name]
        for call in named or self.open:
            self.open.remove(call)
            return identity or call.id
        return identity or name or f"call_{self.count}"


def _message(fields: Fields, calls: _Calls) -> Message:
    role = _ROLES[fields.one_of("role", *_ROLES) or _missing(fields, "role")]
    where = fields.path.removesuffix(".")
    content, images = fields.text("content"), _images(fields)
    text = (TextPart(content),) if content else ()
    if role == "tool":
        name = fields.text("tool_name") or fields.text("name")
        identity = calls.answered(fields.text("tool_call_id"), name)
        return Message(role, (ToolResultPart(identity, (*text, *images), name=name or ""),), where)
    parts: list[Part] = [*text, *images]
    if role == "assistant":
        thought = fields.text("thinking")
        if thought:
            parts.insert(0, ThinkingPart(thought))
        calls.open.clear()
        parts += [_call(call, calls) for call in fields.objects("tool_calls")]
    elif images and role == "system":
        raise fields.wrong("images", "a system message holds text only")
    return Message(role, tuple(parts), where)


def _missing(fields: Fields, name: str) -> Any:
    raise fields.wrong(name, "required")


def _call(fields: Fields, calls: _Calls) -> ToolUsePart:
    function = fields.needed_object("function")
    written = written_arguments(function.any("arguments"))
    return calls.made(function.needed_text("name"), fields.text("id"), written)


def _images(fields: Fields) -> list[ImagePart]:
    found = []
    for number, given in enumerate(fields.texts("images")):
        data = given.translate(_LINE_ENDS)  # Ollama, like all of Go, leaves them out
        try:
            binascii.a2b_base64(data, strict_mode=True)
        except ValueError:
            raise fields.wrong(f"images.{number}", "must be an image in base64") from None
        kind = next((kind for start, kind in _IMAGES.items() if data.startswith(start)), "image/png")
        found.append(ImagePart(kind, data))
    return found


def _tool(fields: Fields) -> Tool:
    fields.one_of("type", "function")
    function = fields.needed_object("function")
    parameters = function.object("parameters")
    return Tool(
        function.needed_text("name"), function.text("description"), None if parameters is None else parameters.body
    )
