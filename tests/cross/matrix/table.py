"""The matrix: which client meets which kind of upstream, and in which surface that one is then asked.

``CELLS`` is the whole product; nobody's code is asked for it, so it also says what the answer must be. A cell without a
surface cannot be, and ``CANNOT`` says why, beside all the single things that cannot be asked for. What a surface has no
word for is in ``NO_WORD`` (requests) and ``NO_PLACE`` (answers).

To add a client surface: a row in ``CELLS``. To add a kind of upstream: a line in ``WIRES`` and a column in ``CELLS``.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cross.matrix.said import Json
from cross.matrix.speakers import (
    TOOL,
    ChatClient,
    CompletionsClient,
    MessagesClient,
    SessionClient,
    Speaker,
    image_by_url,
)
from cross.matrix.speakers_ollama import GenerateClient, OllamaClient, RawGenerateClient
from cross.matrix.speakers_responses import ResponsesClient
from cross.matrix.tongues import Chat, Completions, Messages, OllamaChat, OllamaGenerate, Responses, Tongue


@dataclass(frozen=True)
class Wire:
    """A kind of upstream, as it is configured."""

    name: str
    settings: dict[str, Any]


# One certificate is read in 1 ms; those of the system, which nobody here has, in 25.
_CLOUD = {"api_key": "sk-x", "ca_file": str(Path(__file__).parents[2] / "support" / "certificate.pem")}
WIRES = (
    Wire("chat-server", {"surfaces": ["chat"]}),
    Wire("completions-server", {"surfaces": ["completions"]}),
    Wire("messages-server", {"surfaces": ["messages"]}),
    Wire("anthropic", {"kind": "anthropic", **_CLOUD}),
    Wire("ollama", {"kind": "ollama"}),
    Wire("openai", {"kind": "openai", **_CLOUD}),
)

_C, _K, _M, _O, _G, _R = Chat(), Completions(), Messages(), OllamaChat(), OllamaGenerate(), Responses()

# One row for each client, one column for each of WIRES.
CELLS: dict[Speaker, tuple[Tongue | None, ...]] = {
    ChatClient():        (_C,   None, _M,   _M,   _O, _C),
    CompletionsClient(): (None, _K,   None, None, _G, _K),
    MessagesClient():    (_C,   None, _M,   _M,   _O, _C),
    OllamaClient():      (_C,   None, _M,   _M,   _O, _C),
    GenerateClient():    (_C,   None, _M,   _M,   _G, _C),
    RawGenerateClient(): (None, None, None, None, _G, _K),
    SessionClient():     (_C,   None, _M,   _M,   _O, _C),
    ResponsesClient():   (_C,   None, _M,   _M,   _O, _R),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A client in front of an upstream."""

    speaker: Speaker
    wire: Wire
    tongue: Tongue

    @property
    def modes(self) -> tuple[bool, ...]:
        """Streaming and not, as far as the client's surface has both."""
        return (True, False) if self.speaker.whole else (True,)

    def __str__(self) -> str:
        return f"{self.speaker.name}-on-{self.wire.name}"


POSSIBLE = tuple(
    Cell(speaker, wire, tongue)
    for speaker, row in CELLS.items()
    for wire, tongue in zip(WIRES, row, strict=True)
    if tongue is not None
)


@dataclass(frozen=True)
class Cannot:
    """What cannot be asked, and the clear answer to it.

    Attributes:
        extra: Fields of the request, in the client's spelling; without any the whole cell cannot be.
        param: The field that the answer names.
    """

    speakers: str
    wires: str
    status: int
    why: str
    extra: Json = field(default_factory=dict)
    param: str = ""


_TWO: Json = {"n": 2}
_ANY_JSON: Json = {"response_format": {"type": "json_object"}}
_FORCED: Json = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
_FORCED_M: Json = {"tools": [{"name": "clock", "input_schema": {}}], "tool_choice": {"type": "any"}}
_FORCED_R: Json = {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"}
_ANY_JSON_R: Json = {"text": {"format": {"type": "json_object"}}}
_CLAUDE = "messages-server anthropic"
CANNOT = (
    Cannot("chat messages responses ollama-chat session", "completions-server", 501, "completions have no messages"),
    Cannot("ollama-generate ollama-generate-raw", "completions-server", 501, "only with raw could it continue a "
           "prompt, and an upstream is offered for a surface as a whole"),
    Cannot("completions", f"chat-server {_CLAUDE}", 501, "chats put a template around a prompt"),
    Cannot("ollama-generate-raw", f"chat-server {_CLAUDE}", 400, "likewise", param="raw"),
    Cannot("chat", f"ollama {_CLAUDE}", 400, "they give one answer", _TWO, "n"),
    Cannot("completions", "ollama", 400, "it gives one answer", _TWO, "n"),
    Cannot("completions", "ollama", 400, "it continues one prompt", {"prompt": ["a", "b"]}, "prompt"),
    Cannot("completions", "ollama", 400, "it does not repeat the prompt", {"echo": True}, "echo"),
    Cannot("chat", _CLAUDE, 400, "it reports none", {"logprobs": True}, "logprobs"),
    Cannot("completions", "ollama", 400, "it is not asked for them", {"logprobs": 3}, "logprobs"),
    Cannot("chat", _CLAUDE, 400, "structured output takes a schema there", _ANY_JSON, "response_format"),
    Cannot("ollama-chat ollama-generate", _CLAUDE, 400, "likewise", {"format": "json"}, "format"),
    Cannot("chat", "ollama", 400, "no call can be forced", _FORCED, "tool_choice"),
    Cannot("messages", "ollama", 400, "no call can be forced", _FORCED_M, "tool_choice"),
    Cannot("chat", "ollama", 400, "it fetches no images", image_by_url("chat"), "messages.0"),
    Cannot("messages", "ollama", 400, "it fetches no images", image_by_url("messages"), "messages.0"),
    Cannot("ollama-generate-raw", "openai", 400, "no template could place it", {"images": ["QUJD"]}, "images"),
    Cannot("ollama-generate-raw", "openai", 400, "no template could place it", {"system": "x"}, "system"),
    Cannot("ollama-generate-raw", "openai", 400, "completions have none", {"format": "json"}, "format"),
    Cannot("ollama-generate", "chat-server openai anthropic", 400, "it is the numbers of another server's tokens",
           {"context": [1]}, "context"),
    Cannot("messages", "chat-server ollama openai", 400, "a message is one answer", _TWO, "n"),
    Cannot("responses", f"chat-server ollama {_CLAUDE}", 400, "it has one answer", _TWO, "n"),
    Cannot("responses", "ollama", 400, "no call can be forced", _FORCED_R, "tool_choice"),
    Cannot("responses", "ollama", 400, "it fetches no images", image_by_url("responses"), "input.0"),
    Cannot("responses", _CLAUDE, 400, "structured output takes a schema there", _ANY_JSON_R, "text.format"),
    *(Cannot("responses", f"chat-server ollama {_CLAUDE}", 400, "no response is kept", extra, "".join(extra))
      for extra in ({"store": True}, {"background": True}, {"previous_response_id": "resp_1"})),
    Cannot("session", "chat-server ollama anthropic openai messages-server", 400, "its answers are always streamed",
           {"stream": False}, "stream"),
)  # fmt: skip

# What a client's surface has no word for, and the field that a client might try all the same.
NO_WORD: dict[str, dict[str, Json]] = {
    "completions": {
        "image": {"images": ["QUJD"]}, "schema": {"response_format": {}}, "tools": {"tools": []},
        "system": {"system": "x"}, "history": {"messages": []},
    },
    "ollama-generate": {"tools": {"tools": []}, "history": {"messages": []}},
    "ollama-generate-raw": {
        "image": {}, "schema": {}, "system": {},  # they are refused: see CANNOT
        "tools": {"tools": []}, "history": {"messages": []},
    },
    "session": {
        "image": {"images": ["QUJD"]}, "stop": {"stop": ["x"]}, "schema": {"format": "json"}, "tools": {"tools": []},
        "history": {"messages": []},
    },
}  # fmt: skip

# What an answer in a client's surface has no place for: it is left out, and the rest is whole.
NO_PLACE: dict[str, frozenset[str]] = {
    "chat": frozenset({"stop_sequence"}),
    "completions": frozenset({"reasoning", "calls", "stop_sequence"}),
    "ollama-chat": frozenset({"stop_sequence"}),
    "ollama-generate": frozenset({"stop_sequence"}),
    "ollama-generate-raw": frozenset({"stop_sequence"}),
    "responses": frozenset({"stop_sequence"}),
    "session": frozenset({"reasoning", "calls", "stop_sequence"}),
}

REQUESTS = frozenset({"image", "stop", "schema", "tools", "system", "history"})
ANSWERS = frozenset({"reasoning", "calls", "stop_sequence"})
