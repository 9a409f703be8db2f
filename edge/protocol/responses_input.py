"""Responses' ``input``: from a flat list of items to messages.

In: ``input`` and ``instructions`` of a request. Out: canonical messages, and the paths of items that were left out.
Must not: look anything up: what only a stored response would tell is refused.

A thought, a text and the calls of one turn are items of their own here and one assistant's message everywhere else.
"""

from typing import NoReturn

import orjson

from edge.protocol.canonical import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.chat_request import image_of
from edge.protocol.fields import Fields
from edge.protocol.responses_thought import unseal
from edge.protocol.responses_tools import CUSTOM_INPUT, flat_name

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
_TRACES = ("web_search_call", "file_search_call")  # what was found is in the text that followed


class Reading:
    """Reads items in order.

    Attributes:
        dropped: Paths of items that say nothing to another model.
        tools: Items that offer further tools.
    """

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.tools: list[Fields] = []
        self._turns: list[tuple[Role, list[Part], str]] = []

    @property
    def messages(self) -> list[Message]:
        """What has been read."""
        return [Message(role, tuple(parts), path) for role, parts, path in self._turns]

    def read(self, fields: Fields) -> None:
        """``instructions`` and ``input`` of a request.

        Raises:
            BadRequest: an item is malformed, or cannot be carried across.
        """
        instructions = fields.text("instructions")
        if instructions:
            self._say("system", [TextPart(instructions)], "instructions")
        given = fields.any("input")
        if isinstance(given, str):
            self._say("user", [TextPart(given)], "input")
            return
        if not isinstance(given, list) or not given:
            raise fields.wrong("input", "required, a string or a list of items")
        for item in fields.objects("input"):
            self._item(item)

    def _item(self, item: Fields) -> None:
        path = item.path.removesuffix(".")
        match item.text("type") or ("message" if item.any("role") is not None else None):
            case "message":
                self._message(item, path)
            case "reasoning":
                thought = _thought(item)
                if thought is not None:
                    self._assist([thought], path)
            case "function_call":
                self._assist([_call(item, item.text("arguments") or "{}")], path)
            case "custom_tool_call":
                typed = {CUSTOM_INPUT: item.needed_text("input")}
                self._assist([_call(item, orjson.dumps(typed).decode())], path)
            case "function_call_output" | "custom_tool_call_output":
                result = ToolResultPart(item.needed_text("call_id"), _output(item))
                self._say("tool", [result], path)
            case "additional_tools":
                self.tools.append(item)
            case kind if kind in _TRACES:
                self.dropped.append(path)
            case kind:
                raise item.wrong("type", _no_place(kind))

    def _message(self, item: Fields, path: str) -> None:
        role = _ROLES[item.one_of("role", *_ROLES) or _missing(item, "role")]
        parts: list[Part] = [*_content(item, "content", texts_only=role in ("system", "assistant"))]
        if role == "assistant":
            self._assist(parts, path)
        elif parts:
            self._say(role, parts, path)
        else:
            _missing(item, "content")

    def _say(self, role: Role, parts: list[Part], path: str) -> None:
        self._turns.append((role, parts, path))

    def _assist(self, parts: list[Part], path: str) -> None:
        """Into the turn that is under way, unless that has had its say and this begins another."""
        held = self._turns[-1][1] if self._turns and self._turns[-1][0] == "assistant" else None
        if held is None or (_has(held, TextPart) and not _has(held + parts, ToolUsePart)):
            self._say("assistant", parts, path)
        else:  # nothing may come between calls and their results, not even what was said after them
            held += parts


def _has(parts: list[Part], kind: type[Part]) -> bool:
    return any(isinstance(part, kind) for part in parts)


def _no_place(kind: str | None) -> str:
    if kind is None:
        return "required"
    if kind == "item_reference":
        return "no responses are stored here: send the item itself"
    return f"an item of type {kind[:40]!r} cannot be sent to this upstream"


def _missing(fields: Fields, name: str) -> NoReturn:
    raise fields.wrong(name, "required")


def _call(item: Fields, arguments: str) -> ToolUsePart:
    name = flat_name(item.needed_text("name"), item.text("namespace"))
    return ToolUsePart(item.needed_text("call_id"), name, arguments)


def _thought(item: Fields) -> ThinkingPart | None:
    """What was thought, or if that is not there its summary; None if only somebody else can read it."""
    sealed = unseal(item.text("encrypted_content") or "")
    text = "".join(part.text("text") or "" for part in item.objects("content"))
    text = text or "\n\n".join(part.text("text") or "" for part in item.objects("summary"))
    return sealed or (ThinkingPart(text) if text else None)


def _output(item: Fields) -> tuple[TextPart | ImagePart, ...]:
    if item.any("output") is None:
        _missing(item, "output")
    return tuple(_content(item, "output"))


def _content(item: Fields, name: str, *, texts_only: bool = False) -> list[TextPart | ImagePart]:
    content = item.any(name)
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise item.wrong(name, "must be a string or a list of parts")
    return [_part(part, texts_only=texts_only) for part in item.objects(name)]


def _part(part: Fields, *, texts_only: bool) -> TextPart | ImagePart:
    kind = part.needed_text("type")
    if kind in _TEXTS:
        return TextPart(part.needed_text(_TEXTS[kind]))
    if kind == "input_image" and not texts_only:
        if part.any("file_id") is not None:
            raise part.wrong("file_id", "no files are stored here: send the image as a data: URL in image_url")
        return image_of(part.needed_text("image_url"))
    raise part.wrong("type", f"a part of type {kind[:40]!r} cannot be sent to this upstream")
