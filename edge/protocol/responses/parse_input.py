"""Responses' ``input``: from a flat list of items to messages.

In: ``input`` and ``instructions`` of a request. Out: canonical messages, and the paths of items that were left out.
Must not: look anything up: what only a stored response would know is refused.

A thought, a text and the calls of one turn are items of their own here and one assistant's message everywhere else.
"""

from typing import NoReturn

from edge.protocol.canonical import (
    ImagePart,
    Message,
    Part,
    Role,
    TextPart,
    ThinkingPart,
    ToolResultPart,
    ToolUsePart,
    UnsupportedPart,
)
from edge.protocol.fields import Fields
from edge.protocol.history import unsupported, written_arguments
from edge.protocol.images import image_of
from edge.protocol.json_text import dumps
from edge.protocol.responses.reasoning import unseal
from edge.protocol.responses.tools import CUSTOM_INPUT, flat_name

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
# What asks for something that only a store of responses has; every other item is history.
_WISHES = {
    "item_reference": "no responses are stored here: send the item itself",
    "compaction_trigger": "conversations are not compacted here",
}
# A provider's own tool that the client ran: passed on like a function of this name, if its output is there too.
_CLIENT_RUN = {"local_shell_call": "local_shell", "shell_call": "shell", "apply_patch_call": "apply_patch"}


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
        self._ran: set[str] = set()  # ids of calls that the client has run, and whose output is there

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
        items = fields.objects("input")
        self._ran = _with_output(items)
        for item in items:
            self._item(item)
        if not self._turns:
            raise fields.wrong("input", "none of its items can be sent to this upstream")

    def _item(self, item: Fields) -> None:  # noqa: C901 - one case per type of item
        path = item.path.removesuffix(".")
        match item.text("type") or ("message" if item.any("role") is not None else None):
            case "message":
                self._message(item, path)
            case "reasoning":
                thought = _thought(item)
                if thought is not None:
                    self._assist([thought], path)
            case "function_call":
                self._assist([_call(item, written_arguments(item.any("arguments")))], path)
            case "custom_tool_call":
                typed = {CUSTOM_INPUT: item.text("input") or ""}
                self._assist([_call(item, dumps(typed).decode())], path)
            case "function_call_output" | "custom_tool_call_output":
                result = ToolResultPart(item.needed_text("call_id"), _output(item))
                self._say("tool", [result], path)
            case "additional_tools":
                self.tools.append(item)
            case None:
                _missing(item, "type")
            case kind if kind in _WISHES:
                raise item.wrong("type", _WISHES[kind])
            case kind if kind.removesuffix("_output") in _CLIENT_RUN and item.any("call_id") in self._ran:
                self._client_ran(kind, item, path)
            case _:
                self.dropped.append(path)

    def _client_ran(self, kind: str, item: Fields, path: str) -> None:
        identity = item.needed_text("call_id")
        name = _CLIENT_RUN.get(kind)
        if name is None:
            output = item.any("output")
            text = output if isinstance(output, str) else dumps(output).decode()
            self._say("tool", [ToolResultPart(identity, (TextPart(text),))], path)
        else:
            did = item.any("action") or item.any("operation") or {}
            self._assist([ToolUsePart(identity, name, written_arguments(did))], path)

    def _message(self, item: Fields, path: str) -> None:
        role = _ROLES[item.one_of("role", *_ROLES) or _missing(item, "role")]
        parts: list[Part] = [*_content(item, "content")]
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


def _with_output(items: list[Fields]) -> set[str]:
    """Ids of the calls of ``_CLIENT_RUN`` that have an output."""
    ids: dict[bool, set[str]] = {False: set(), True: set()}
    for item in items:
        kind, identity = item.body.get("type"), item.body.get("call_id")
        if isinstance(kind, str) and isinstance(identity, str) and kind.removesuffix("_output") in _CLIENT_RUN:
            ids[kind.endswith("_output")].add(identity)
    return ids[False] & ids[True]


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


def _output(item: Fields) -> tuple[TextPart | ImagePart | UnsupportedPart, ...]:
    if item.any("output") is None:
        _missing(item, "output")
    return tuple(_content(item, "output"))


def _content(item: Fields, name: str) -> list[TextPart | ImagePart | UnsupportedPart]:
    content = item.any(name)
    if content is None:
        return []
    if isinstance(content, str):
        return [TextPart(content)]
    if not isinstance(content, list):
        raise item.wrong(name, "must be a string or a list of parts")
    return [_part(part) for part in item.objects(name)]


def _part(part: Fields) -> TextPart | ImagePart | UnsupportedPart:
    kind = part.needed_text("type")
    if kind in _TEXTS:
        return TextPart(part.needed_text(_TEXTS[kind]))
    if kind == "input_image":
        if part.any("file_id") is not None:
            why = "no files are stored here: send the image as a data: URL in image_url"
            return unsupported(part, kind, why, "file_id")
        return image_of(part.needed_text("image_url"))
    return unsupported(part, kind, "a part of this type cannot be sent to this upstream")
