"""What the models of the simulator say.

In: a canonical request. Out: canonical events, one for each token. Must not: know a surface, or time.

A token is a word with the blanks after it; one of more than 40 characters is several.
"""

import re
from collections.abc import Iterable, Iterator
from enum import Enum
from itertools import islice

import orjson

from edge.errors import BadRequest
from edge.protocol.canonical import Ask, ImagePart, Message, TextPart, Tool, ToolResultPart
from edge.protocol.events import Event, Finish, Reasoning, Text, ToolCallArguments, ToolCallStart
from edge.upstream.simulator.plausible import plausible
from edge.upstream.simulator.prompted_schema import schema_in

SCRIPT = "script"
MODELS = ("echo", "lorem", "tools", "think", "error", "error-mid", "cut", "stall")

_WORD = re.compile(r"\S{1,40}\s{0,40}|\s{1,40}")
_PIECE = re.compile(r".{1,8}", re.DOTALL)  # of a tool call's arguments
_LOREM = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore. ",
    "Ut enim ad minim veniam, quis nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat. ",
    "Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu fugiat nulla pariatur. ",
    "Excepteur sint occaecat cupidatat non proident, sunt in culpa qui officia deserunt mollit anim id est laborum. ",
)
_LEAST_WORDS = 16  # in each of these sentences
_MOST_LOREM = 100_000  # words
_BEFORE_FAILING = 3  # words
_THOUGHT = "The user wants an answer. I shall repeat what was said. "


class Ending(Enum):
    """How an answer ends."""

    WHOLE = "whole"
    ERROR = "error"  # in-band
    CUT = "cut"  # the connection breaks
    SILENCE = "silence"  # nothing comes any more


ENDINGS = {"error-mid": Ending.ERROR, "cut": Ending.CUT, "stall": Ending.SILENCE}


def words(text: str) -> Iterator[str]:
    """The tokens of a text; joined they are the text."""
    return (match.group() for match in _WORD.finditer(text))


def prompt_words(ask: Ask) -> int:
    """How many tokens the request has."""
    texts = [ask.prompt or "", *(_text(message) for message in ask.messages)]
    return sum(1 for text in texts for _ in words(text))


def say(model: str, ask: Ask, script: str | None, choice: int) -> Iterator[Event]:
    """One choice of the answer of a model; without a ``Finish`` if the model is one that fails.

    Raises:
        BadRequest: a tool is to be called that was not offered.
    """
    if model in ENDINGS:
        return islice(_spoken(_LOREM[0], [], choice), _BEFORE_FAILING)
    tool = _tool(ask) if model == "tools" else None
    events = _answer(model, ask, script, choice) if tool is None else _call(tool, choice)
    return _bounded(events, ask.max_tokens, choice)


def _answer(model: str, ask: Ask, script: str | None, choice: int) -> Iterator[Event]:
    if model == "think" and (ask.thinking is None or ask.thinking.enabled):
        yield from (Reasoning(word, "", choice) for word in words(_THOUGHT))
    if model == SCRIPT:
        text = script or ""
    elif ask.format is not None:
        schema = ask.format.schema or schema_in(map(_text, ask.messages))
        text = orjson.dumps({"text": _heard(ask)} if schema is None else plausible(schema)).decode()
    elif model == "lorem":
        text = _lorem(ask.max_tokens, choice)
    elif model == "tools":
        text = _without_tool(ask)
    else:
        text = _heard(ask)
    yield from _spoken(text, ask.stop, choice)


def _spoken(text: str, stops: list[str], choice: int) -> Iterator[Event]:
    """A text to its end, or to the first of the stop sequences."""
    found = [(at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0]
    at, stopped = min(found, default=(len(text), None), key=lambda one: one[0])
    yield from (Text(word, choice) for word in words(text[:at]))
    yield Finish("stop", stopped, choice)


def _call(tool: Tool, choice: int) -> Iterator[Event]:
    yield ToolCallStart(0, "", tool.name, choice)
    arguments = orjson.dumps(plausible(tool.parameters)).decode()
    yield from (ToolCallArguments(0, piece, choice) for piece in _PIECE.findall(arguments))
    yield Finish("tool_calls", None, choice)


def _bounded(events: Iterable[Event], most: int | None, choice: int) -> Iterator[Event]:
    """At most so many tokens; where there would be more, that is the reason of the end."""
    count = 0
    for event in events:
        if not isinstance(event, Finish | ToolCallStart):
            if count == most:
                yield Finish("length", None, choice)
                return
            count += 1
        yield event


def _tool(ask: Ask) -> Tool | None:
    """The tool to call: the one that is named, else the first; none once a tool has returned its result."""
    choice = ask.tool_choice
    if choice is not None and choice.mode == "tool":
        tool = next((tool for tool in ask.tools if tool.name == choice.name), None)
        if tool is None:
            raise BadRequest("tool_choice: names a tool that is not among the tools", param="tool_choice")
        return tool
    pieces = bool(ask.messages) and ask.messages[-1].role == "tool"
    unwanted = pieces or (choice is not None and choice.mode == "none")
    return None if unwanted or not ask.tools else ask.tools[0]


def _without_tool(ask: Ask) -> str:
    if ask.messages and ask.messages[-1].role == "tool":
        return f"The tool said: {_text(ask.messages[-1])}"
    return "There is no tool to call."


def _lorem(most: int | None, choice: int) -> str:
    """A paragraph, or as much as it takes to reach ``most``; each choice begins with another sentence."""
    first = choice % len(_LOREM)
    paragraph = "".join(_LOREM[first:] + _LOREM[:first])
    if most is None:
        return paragraph.rstrip()
    return paragraph * (min(most, _MOST_LOREM) // (_LEAST_WORDS * len(_LOREM)) + 1)


def _heard(ask: Ask) -> str:
    """The prompt, or else the last thing that the user said."""
    if ask.prompt is not None:
        return ask.prompt
    said = next((message for message in reversed(ask.messages) if message.role == "user"), None)
    return "There is no message of a user." if said is None else _text(said)


def _text(message: Message) -> str:
    """All its text, a tool's result too, with a word for each image."""
    shown = ""
    for part in message.parts:
        for inner in part.parts if isinstance(part, ToolResultPart) else (part,):
            if isinstance(inner, TextPart | ImagePart):
                shown += inner.text if isinstance(inner, TextPart) else "[image]"
    return shown
