"""The canonical request: what is asked of a model, whatever surface it was asked in.

In: what a surface's ``parse`` has read. Out: what another surface's ``render`` writes. Must not: know how either spells
it. A field that is None was not given, and is not sent.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from edge.errors import BadRequest
from edge.protocol.surface import Surface

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class TextPart:
    """Text of a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image: base64 ``data`` with its media type (``image/png``), or a ``url`` that the upstream is to fetch."""

    media_type: str = ""
    data: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class ThinkingPart:
    """What the model has thought before; ``redacted`` is thought that only its own provider can read."""

    text: str
    signature: str = ""
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class ToolUsePart:
    """A tool call of an assistant's message; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class UnsupportedPart:
    """A part that only its own surface can carry: a document, sound, the trace of a provider's own tool.

    Attributes:
        kind: What the client calls it.
        path: Where it stands in the client's request.
        error: What to say of it if it is part of what is asked now; of the past it is left out (``history.settle``).
    """

    kind: str
    path: str
    error: BadRequest


@dataclass(frozen=True, slots=True)
class ToolResultPart:
    """What a tool gave; the only part of a ``tool`` message. ``name`` is that of the tool, if it is known."""

    id: str
    parts: tuple[TextPart | ImagePart | UnsupportedPart, ...]
    is_error: bool = False
    name: str = ""

    def text(self) -> str:
        """All its text, joined; with a word in front that says of a failure that it is one."""
        text = "".join(part.text for part in self.parts if isinstance(part, TextPart))
        return f"Error: {text}" if self.is_error and not text.lower().startswith("error") else text


Part = TextPart | ImagePart | ThinkingPart | ToolUsePart | ToolResultPart | UnsupportedPart


@dataclass(frozen=True, slots=True)
class Message:
    """One message. A system message holds text only; ``path`` is where it stands in the client's request."""

    role: Role
    parts: tuple[Part, ...]
    path: str = ""

    def text(self) -> str:
        """All its text, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; ``parameters`` is a JSON schema."""

    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether tools are to be called; ``name`` for the mode ``tool``."""

    mode: Literal["auto", "none", "required", "tool"]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Format:
    """Structured output: any JSON object, or one after a schema."""

    schema: dict[str, Any] | None = None
    name: str = "answer"
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether and how much the model is to think; ``budget`` in tokens.

    With ``enabled`` None whether it thinks is the model's own business, and the effort is for all of its work.
    """

    enabled: bool | None
    effort: str | None = None
    budget: int | None = None


@dataclass(slots=True, kw_only=True)
class Ask:
    """One request.

    Attributes:
        messages: The conversation; system messages stand where the client put them.
        prompt: Raw text to continue, in place of messages.
        names: How the client spells a canonical field where it differs (``max_tokens`` as ``max_output_tokens``).
        options: Ollama's ``options``, for an upstream that has a place for them.
        extra: Fields that are not known here, as they came.
        ignored: Names of fields that mean nothing in the client's own surface, or nothing outside of it.
        echo: What the client's answer needs of its request: what it repeats, how it spells tools.
    """

    model: str | None
    messages: list[Message] = field(default_factory=list)
    prompt: str | None = None
    suffix: str | None = None
    tools: list[Tool] = field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tools: bool | None = None
    format: Format | None = None
    thinking: Thinking | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: list[str] = field(default_factory=list)
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None
    user: str | None = None
    keep_alive: str | float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    echo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """Whom a request is written for.

    Attributes:
        name: What to call it in messages (``Ollama``).
        cloud: A provider that refuses fields it does not know, where local servers have extensions or ignore them.
        num_ctx, keep_alive: What to ask an Ollama for where the request names none; 0 and None leave it to the server.
        refuses_cuts: When an Ollama is to refuse a prompt rather than cut it: ``auto`` is with tools.
        needed_for: See ``Prepared.format_field``: only requests with one of these are written for it; empty is all.
    """

    surface: Surface
    name: str = "this upstream"
    cloud: bool = False
    num_ctx: int = 0
    keep_alive: str | int | None = None
    refuses_cuts: Literal["never", "auto", "always"] = "never"
    needed_for: frozenset[str] = frozenset()


class Rendering:
    """Writes a request for one target, and keeps count of what it has no place for."""

    def __init__(self, ask: Ask, target: Target) -> None:
        self.ask = ask
        self.target = target
        self.body: dict[str, Any] = {}
        self.dropped: list[str] = list(ask.ignored)
        self.changed: list[str] = []  # by the names that ``x-edge-changed`` has for it

    def put(self, name: str, value: Any) -> None:
        """Set a field of the body, unless there is nothing to set."""
        if value is not None and value not in ([], {}):
            self.body[name] = value

    def drop(self, *names: str) -> None:
        """These canonical fields have no place in the target, and the answer means the same without them."""
        for name in names:
            if getattr(self.ask, name) not in (None, [], {}):
                self.dropped.append(self.ask.names.get(name, name))

    def put_extra(self, taken: frozenset[str]) -> None:
        """Pass on the fields nobody knows, but for those that the target would take for its own."""
        for name, value in self.ask.extra.items():
            if name in self.body or name in taken:
                self.dropped.append(name)
            else:
                self.body[name] = value

    def drop_extra(self) -> None:
        """Nor have the fields nobody knows."""
        self.dropped += self.ask.extra

    def refuse(self, name: str, why: str) -> BadRequest:
        """The error for what changes the meaning if it is left out; ``why`` follows the name of the field."""
        spelled = self.ask.names.get(name, name)
        return BadRequest(f"{spelled}: {why}", param=spelled)
