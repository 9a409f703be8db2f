"""The words of the matrix: what a client wants, what a model says, and what the client is told in the end.

In: nothing. Out: plain values. Must not: know any surface.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

Json = dict[str, Any]
Finish = Literal["stop", "length", "tool_calls"]

HELLO = ("Hel", "lo", " there")
PNG = "iVBORw0KGgo="
IMAGE_URL = "https://example.org/cat.png"
SCHEMA: Json = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLS: tuple[tuple[str, Json], ...] = (
    ("clock", {"tz": "Łódź", "twelve": False}),
    ("moon", {"tz": "東京 🕰", "deep": {"list": [1, 2.5, None]}}),
)

# A conversation before the last message: what the user said, what the model said and called, and what that gave.
RESULTS = ("noon", "夜 🌙")
HISTORY: tuple[tuple[object, ...], ...] = (
    ("user", "the time?"), ("assistant", "I look"), *(("call", *call) for call in CALLS),
    *(("result", name, text) for (name, _), text in zip(CALLS, RESULTS, strict=True)),
    ("assistant", "It is late"),
)  # fmt: skip

PROMPT_TOKENS, ANSWER_TOKENS = 7, 3


@dataclass(frozen=True)
class Want:
    """What a client asks for, beside an answer to "hi".

    Attributes:
        history: It has called tools before, and tells what they gave.
        extra: Fields in its own spelling.
    """

    stream: bool = True
    system: str = ""
    image: bool = False
    stop: tuple[str, ...] = ()
    schema: Json | None = None
    tools: bool = False
    history: bool = False
    extra: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Said:
    """What a model says.

    Attributes:
        mixed: The pieces of its calls come in turns, where the wire has pieces.
    """

    words: tuple[str, ...] = HELLO
    thought: tuple[str, ...] = ()
    calls: tuple[tuple[str, Json], ...] = ()
    mixed: bool = False
    finish: Finish = "stop"
    stop_sequence: str | None = None


@dataclass(frozen=True)
class Heard:
    """What a model server has been asked, read from the body it was sent.

    Attributes:
        text: The last message's.
        history: What was said before it, as the calls of ``HISTORY``; and which call each result belongs to.
    """

    text: str
    system: str = ""
    images: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    schema: Json | None = None
    tools: tuple[str, ...] = ()
    history: tuple[tuple[object, ...], ...] = ()


@dataclass
class Told:
    """What a client has read out of an answer.

    Attributes:
        usage: Tokens of the prompt and of the answer.
        done: The surface's own sign that the answer is whole; one JSON body is one.
    """

    status: int
    text: str = ""
    reasoning: str = ""
    calls: list[tuple[str, Json]] = field(default_factory=list)
    call_ids: list[str] = field(default_factory=list)
    finish: str | None = None
    stop_sequence: str | None = None
    usage: tuple[int, int] | None = None
    error: str | None = None
    done: bool = False
