"""The conversation so far, made fit for a surface that cannot carry all of it as it was sent.

In: the canonical messages of a request that is to be translated. Out: the messages to render, and what was changed or
left out. Must not: refuse a request for what is only history, move anything forward, or lose anything silently.

What was sent in one turn has to stay the beginning of what is sent in the next: servers keep the prompts that they
have read, and read only what follows. So each message is rewritten by itself, whatever comes after it.
"""

from dataclasses import replace
from typing import NamedTuple

import orjson

from edge.errors import BadRequest
from edge.protocol.canonical import (
    ImagePart,
    Message,
    Part,
    Target,
    TextPart,
    ToolResultPart,
    ToolUsePart,
    UnsupportedPart,
)
from edge.protocol.fields import Fields
from edge.protocol.json_text import dumps, loads
from edge.protocol.surface import OLLAMA

# What ``x-edge-changed`` calls the changes.
REMINDER = "system-reminder"
ARGUMENTS = "tool-arguments"

_SHOWN_CHARS = 40  # of a word of the client's

Held = TextPart | ImagePart | UnsupportedPart  # what a tool can have given


class Settled(NamedTuple):
    """The messages to render.

    Attributes:
        changed: Names of the kinds of change, each once.
        dropped: Paths of parts that were left out.
    """

    messages: list[Message]
    changed: tuple[str, ...]
    dropped: tuple[str, ...]


def settle(messages: list[Message], to: Target) -> Settled:
    """Make a conversation fit for its target.

    Raises:
        BadRequest: the latest message of the user holds what the target cannot read: an answer would pass over it.
    """
    settling = _Settling(to)
    said = [number for number, message in enumerate(messages) if message.role == "assistant"]
    latest = said[-1] if said else -1
    for number, message in enumerate(messages):
        settling.add(message, past=number < latest)
    return Settled(settling.messages, tuple(dict.fromkeys(settling.changed)), tuple(settling.dropped))


class _Settling:
    def __init__(self, to: Target) -> None:
        self.messages: list[Message] = []
        self.changed: list[str] = []
        self.dropped: list[str] = []
        self._to = to
        self._begun = False  # something other than a system message has come

    def add(self, message: Message, *, past: bool) -> None:
        """Take the next message; ``past``: the assistant has spoken since."""
        past = past or message.role != "user"  # only a user asks for something
        parts = tuple(part for held in message.parts for part in self._part(held, message, past=past))
        if message.role == "system":
            self._system(replace(message, parts=parts))
            return
        self._begun = True
        if parts or not message.parts:
            self.messages.append(replace(message, parts=parts))

    def _part(self, part: Part, message: Message, *, past: bool) -> list[Part]:
        match part:
            case ToolUsePart(_, _, arguments):
                settled = settled_arguments(arguments)
                if settled == arguments:
                    return [part]
                self.changed.append(ARGUMENTS)
                return [replace(part, arguments=settled)]
            case ToolResultPart(_, parts):
                return [replace(part, parts=self._given(parts, message))]
        unsupported = self._unsupported(part, message)
        if unsupported is None:
            return [part]
        if not past:
            raise unsupported.error
        self.dropped.append(unsupported.path)
        return []

    def _given(self, parts: tuple[Held, ...], message: Message) -> tuple[Held, ...]:
        """What a tool gave. A word stands for what is left out, or the model would take it for an empty result."""
        given: list[Held] = []
        for part in parts:
            unsupported = self._unsupported(part, message)
            if unsupported is None:
                given.append(part)
                continue
            self.dropped.append(unsupported.path)
            given.append(TextPart(f"[{unsupported.kind}: left out, {self._to.name} cannot read it]"))
        return tuple(given)

    def _unsupported(self, part: Part, message: Message) -> UnsupportedPart | None:
        if isinstance(part, UnsupportedPart):
            return part
        if not isinstance(part, ImagePart):
            return None
        if message.role in ("system", "assistant"):
            why = "an image can only be in a message of the user's or in what a tool gave"
        elif not part.data and self._to.surface in OLLAMA:
            why = f"{self._to.name} fetches no images; send them as data: URLs"
        else:
            return None
        return UnsupportedPart("image", message.path, BadRequest(f"{message.path}: {why}", param=message.path))

    def _system(self, message: Message) -> None:
        """Leave it where it is at the front; else say it in its place, as most models take none there."""
        if not self._begun:
            self.messages.append(message)
            return
        text = message.text()
        if not text:
            return
        self.changed.append(REMINDER)
        reminder = f"<system-reminder>{text}</system-reminder>"
        before = self.messages[-1]
        match before.role, before.parts:
            case "user", _:
                apart = "\n\n" if before.parts else ""
                self.messages[-1] = replace(before, parts=(*before.parts, TextPart(apart + reminder)))
            case "tool", (ToolResultPart(_, parts) as result,):
                held = (*parts, TextPart(f"\n\n{reminder}" if parts else reminder))
                self.messages[-1] = replace(before, parts=(replace(result, parts=held),))
            case _:
                self.messages.append(Message("user", (TextPart(reminder),), message.path))


def unsupported(fields: Fields, kind: str, why: str, name: str = "type") -> UnsupportedPart:
    """The part that these fields are, which no other surface can express.

    Args:
        fields: The part.
        kind: What the client calls it.
        why: What to say of it if it is part of what is asked now.
        name: The field that says so.
    """
    kind = kind[:_SHOWN_CHARS]
    return UnsupportedPart(kind, fields.path.removesuffix("."), fields.wrong(name, f"{kind!r}: {why}"))


def written_arguments(given: object) -> str:
    """The arguments of a past call as JSON text, whatever stands in their place; see ``settled_arguments``."""
    if given is None or given == "":
        return "{}"
    return given if isinstance(given, str) else dumps(given).decode()


def settled_arguments(arguments: str) -> str:
    """The arguments of a past call; ``{}`` if they are no JSON object: a model was cut, or wrote something else.

    The call has been answered since, so it is no reason to refuse what is asked now.
    """
    try:
        given = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return _mended_arguments(arguments)
    return arguments if isinstance(given, dict) else "{}"


def _mended_arguments(arguments: str) -> str:
    """With what no strict parser takes (half characters, NaN) replaced, so that the server's can read them."""
    try:
        given = loads(arguments)
        return dumps(given).decode() if isinstance(given, dict) else "{}"
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return "{}"
