"""Canonical events: what any answer is made of, whatever surface it is spoken in.

In: nothing. Out: plain values, from the decoder of one dialect to the encoder of another. Must not: hold anything that
only one dialect knows.

The chunk kinds of the usual guides map onto these: *token* is ``Text``, ``Reasoning``, ``ToolCallStart``,
``ToolCallArguments`` and ``Refusal``; *metadata* is ``Start``, ``Annotation`` and the usage, which codecs report beside
the events (``batch.Usage``); *done* is ``Finish``; *error* is the batch's error, with which a stream ends.
"""

from typing import Any, Literal, NamedTuple

Reason = Literal["stop", "length", "tool_calls", "content_filter"]


class Start(NamedTuple):
    """The answer begins; before anything else, once. ``model`` as the upstream names it, empty if it does not."""

    model: str = ""


class Text(NamedTuple):
    """A piece of the answer's text; ``choice`` counts the choices from 0, here and below."""

    text: str
    choice: int = 0


class Logprobs(NamedTuple):
    """How likely the tokens of the next piece of text were, in the form of OpenAI's chat completions."""

    tokens: list[dict[str, Any]]
    choice: int = 0


class Reasoning(NamedTuple):
    """A piece of what the model thinks; or, with no text, the signature of what it has thought."""

    text: str
    signature: str = ""
    choice: int = 0


class ToolCallStart(NamedTuple):
    """A tool call begins. ``call`` counts the calls of a choice from 0; ``id`` is empty where the upstream has none."""

    call: int
    id: str
    name: str
    choice: int = 0


class ToolCallArguments(NamedTuple):
    """A piece of the JSON text of a call's arguments."""

    call: int
    json: str
    choice: int = 0


class Refusal(NamedTuple):
    """A piece of the model's refusal, apart from its text."""

    text: str
    choice: int = 0


class Annotation(NamedTuple):
    """A citation or the like, in the spelling of the dialect it came from; kept even where it cannot be shown."""

    data: dict[str, Any]
    choice: int = 0


class Finish(NamedTuple):
    """A choice is whole. ``stop_sequence`` is the one that ended it, if that is known."""

    reason: Reason
    stop_sequence: str | None = None
    choice: int = 0


Event = Start | Text | Logprobs | Reasoning | ToolCallStart | ToolCallArguments | Refusal | Annotation | Finish

# A line of 48 KiB is the most that all clients take (aiohttp's readers of lines fail at 128): in the worst script or
# escaping a character takes six bytes.
_LONGEST_CHARS = 8 * 1024


def short(event: Event) -> list[Event]:
    """The event, in several of its kind if its text is too long for one line."""
    match event:
        case Text(text, choice) if len(text) > _LONGEST_CHARS:
            return [Text(piece, choice) for piece in _pieces(text)]
        case Reasoning(text, signature, choice) if len(text) > _LONGEST_CHARS:
            *pieces, last = _pieces(text)
            return [*(Reasoning(piece, "", choice) for piece in pieces), Reasoning(last, signature, choice)]
        case ToolCallArguments(call, json, choice) if len(json) > _LONGEST_CHARS:
            return [ToolCallArguments(call, piece, choice) for piece in _pieces(json)]
    return [event]


def _pieces(text: str) -> list[str]:
    return [text[start : start + _LONGEST_CHARS] for start in range(0, len(text), _LONGEST_CHARS)]
