"""Every route of Edge's, with what it takes and what it answers, by the names of the document's components.

In: nothing. Out: ``Operation``s. Must not: say what a schema or a status means.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from edge.api.openapi_answers import BINARY, EVENTS, JSON, LINES, TEXT, Family
from edge.protocol.surface import GENERATING, RELAYED, SESSION_PATHS, UPLOADS, UPSTREAM_PATHS, Surface

_BODY = (400, 408, 413, 415)  # of whoever reads one; 503 where there is no room for it
_ROUTED = (404, 501, 503)
_ASKED = (*_BODY, *_ROUTED, 429, 502, 504)
_AGAIN = {204: "The stream of Last-Event-ID has ended with that event: there is nothing to come back for."}
_TRACED = ("x-stream-id", "x-edge-upstream", "x-edge-dropped-params", "x-edge-changed", "Server-Timing")


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path.

    Attributes:
        answers: Schemas of a successful answer by content type; empty if it has no body.
        request: The schema of the body, or none.
        takes: The content type of the body.
        fails: Statuses of errors, besides those that every route may answer.
        passes: An upstream's own status and error may be the answer.
        parameters: Names of components.
        headers: Of a successful answer.
        also: Other successful statuses, none of which has a body, and when.
        open: Needs no key.
        ticket: Takes a ticket in place of one.
    """

    method: str
    path: str
    name: str
    about: str
    family: Family
    answers: Mapping[str, str]
    request: str | None = None
    takes: str = JSON
    fails: tuple[int, ...] = ()
    passes: bool = False
    parameters: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    also: Mapping[int, str] = field(default_factory=dict)
    open: bool = False
    ticket: bool = False


def operations() -> Iterator[Operation]:
    """All of them; a surface of which nothing is said here has at least its route and its answers' kinds."""
    described = [*_openai(), *_anthropic(), *_ollama(), *_relayed()]
    yield from described
    paths = {one.path for one in described}
    for surface in (surface for surface, path in UPSTREAM_PATHS.items() if path not in paths):
        either = {JSON: "RelayedAnswer", EVENTS: "Events"}
        yield _asked(surface, f"ask{surface.title()}", f"The surface {surface}.", "RelayedRequest", either)
    yield from _management()
    yield from _sessions()
    yield from _streams()
    yield from _tickets()
    yield from _operator()


def _asked(
    surface: Surface, name: str, about: str, request: str, answers: Mapping[str, str], *parameters: str
) -> Operation:
    """A request that an upstream answers."""
    path = UPSTREAM_PATHS[surface]
    family: Family = "Ollama" if path.startswith("/api/") else "Anthropic" if "messages" in path else "OpenAI"
    asked = Operation(
        "post", path, name, about, family, answers, request,
        fails=_ASKED, passes=True, parameters=(*parameters, "Lane"), headers=_TRACED,
    )  # fmt: skip
    if surface not in GENERATING:
        return asked
    return replace(
        asked,
        fails=(*_ASKED, 409, 410),
        parameters=(*asked.parameters, "Resume", "QueryResume", "LastEventId"),
        also=_AGAIN,
    )


def _openai() -> Iterator[Operation]:
    either = {JSON: "ChatCompletion", EVENTS: "Events"}
    yield _asked(Surface.CHAT, "chat", "OpenAI chat completions.", "ChatRequest", either)
    either = {JSON: "Completion", EVENTS: "Events"}
    yield _asked(Surface.COMPLETIONS, "complete", "OpenAI completions (legacy).", "CompletionRequest", either)
    one = {JSON: "Embeddings"}
    yield _asked(Surface.EMBEDDINGS, "embed", "OpenAI embeddings.", "EmbeddingsRequest", one)
    either = {JSON: "Response", EVENTS: "Events"}
    yield _asked(Surface.RESPONSES, "respond", "OpenAI Responses.", "ResponsesRequest", either, "OpenAIBeta")
    yield Operation("get", "/v1/models", "listModels", "All models there are now.", "OpenAI", {JSON: "Models"})
    yield Operation(
        "get", "/v1/models/{id}", "showModel", "One of them.", "OpenAI", {JSON: "Model"},
        fails=(404,), parameters=("ModelId",),
    )  # fmt: skip


def _anthropic() -> Iterator[Operation]:
    versions = ("AnthropicVersion", "AnthropicBeta")
    either = {JSON: "AssistantMessage", EVENTS: "Events"}
    yield _asked(Surface.MESSAGES, "message", "Anthropic Messages.", "MessagesRequest", either, *versions)
    count = _asked(
        Surface.COUNT_TOKENS, "countTokens", "The length of a Messages request.", "CountTokensRequest",
        {JSON: "TokenCount"}, *versions,
    )  # fmt: skip
    yield replace(count, headers=(*_TRACED, "x-edge-estimated"))


def _ollama() -> Iterator[Operation]:
    lines = {LINES: "Events", JSON: "OllamaChat"}
    yield _asked(Surface.OLLAMA_CHAT, "ollamaChat", "Ollama chat.", "OllamaChatRequest", lines)
    lines = {LINES: "Events", JSON: "OllamaGenerate"}
    yield _asked(Surface.OLLAMA_GENERATE, "ollamaGenerate", "Ollama generate.", "OllamaGenerateRequest", lines)
    one = {JSON: "OllamaEmbed"}
    yield _asked(Surface.OLLAMA_EMBED, "ollamaEmbed", "Ollama embeddings.", "OllamaEmbedRequest", one)
    one, old = {JSON: "OllamaEmbeddings"}, "Ollama embeddings (older)."
    yield _asked(Surface.OLLAMA_EMBEDDINGS, "ollamaEmbeddings", old, "OllamaEmbeddingsRequest", one)
    for path, name, about, answer in (
        ("/api/version", "ollamaVersion", "The version of the API.", "OllamaVersion"),
        ("/api/tags", "ollamaModels", "All models there are now.", "OllamaModels"),
        ("/api/ps", "ollamaLoaded", "Those that are loaded.", "OllamaModels"),
        ("/api/status", "ollamaStatus", "Whether Ollama's cloud can be used: never through Edge.", "OllamaAnswer"),
    ):
        yield Operation("get", path, name, about, "Ollama", {JSON: answer})
    who = "Who is signed in to Ollama's cloud: nobody."
    yield Operation("post", "/api/me", "ollamaMe", who, "Ollama", {}, fails=(401,))
    yield Operation(
        "post", "/api/show", "ollamaShow", "What is known of a model.", "Ollama", {JSON: "OllamaShow"},
        "OllamaShowRequest", fails=(*_BODY, 404, 503),
    )  # fmt: skip
    yield Operation("get", "/", "home", "A sign of life, as an Ollama gives it.", "OpenAI", {TEXT: "Text"})


def _relayed() -> Iterator[Operation]:
    """Passed on to upstreams that list the route under ``relay``; without one, 501."""
    for surface in sorted(RELAYED):
        name = "relay" + surface.title().replace("/", "")
        about = f"{surface} of a model server, where the operator relays it."
        if surface in UPLOADS:
            answers = {JSON: "RelayedAnswer", TEXT: "Text", "text/vtt": "Text", EVENTS: "Events"}
            yield replace(_asked(surface, name, about, "Upload", answers), takes="multipart/form-data")
        else:
            yield _asked(surface, name, about, "RelayedRequest", {JSON: "RelayedAnswer", BINARY: "Blob"})


def _management() -> Iterator[Operation]:
    """Passed on to the one upstream with ``allow_management``; without one, 403."""
    lines = {LINES: "Events", JSON: "OllamaAnswer", TEXT: "Text"}
    for method, word in (
        ("post", "pull"),
        ("post", "push"),
        ("post", "create"),
        ("post", "copy"),
        ("delete", "delete"),
    ):
        yield Operation(
            method, f"/api/{word}", f"ollama{word.capitalize()}", f"Ollama {word}, where the operator allows it.",
            "Ollama", lines, "OllamaManagementRequest",
            fails=(*_BODY, 404, 501, 502, 503), passes=True, headers=("x-stream-id", "x-edge-upstream"),
        )  # fmt: skip
    blob = Operation(
        "head", "/api/blobs/{digest}", "ollamaHasBlob", "Whether an Ollama has a blob.", "Ollama", {},
        fails=(404, 501, 502, 503), passes=True, parameters=("Digest",), headers=("x-stream-id", "x-edge-upstream"),
    )  # fmt: skip
    yield blob
    taken = {201: "It has been taken."}
    yield replace(
        blob, method="post", name="ollamaGiveBlob", about="Give a blob to an Ollama.", request="Blob",
        takes=BINARY, also=taken,
    )  # fmt: skip


def _sessions() -> Iterator[Operation]:
    for number, path in enumerate(SESSION_PATHS):
        for method, name in (("get", "listen"), ("post", "say")):
            reads = method == "post"
            query = () if reads else ("Prompt", "QuerySessionId", "QueryModel", "QuerySystem", "QueryMetadata")
            yield Operation(
                method, path, f"{name}{'Alias' * bool(number)}", "A message to a conversation that Edge remembers.",
                "OpenAI", {EVENTS: "Events"}, "SessionRequest" if reads else None,
                fails=tuple(sorted({400, 409, 410, 429, *_ROUTED, *(_BODY if reads else ())})),
                parameters=(*query, "Lane", "LastEventId"), headers=_TRACED, also=_AGAIN, ticket=not reads,
            )  # fmt: skip
    path, key = "/v1/sessions/{id}", ("SessionId",)
    about = "What is kept of a conversation."
    yield Operation("get", path, "showSession", about, "OpenAI", {JSON: "Session"}, fails=(404,), parameters=key)
    yield Operation(
        "delete", path, "deleteSession", "Forget it.", "OpenAI", {},
        fails=(404,), parameters=key, also={204: "It is forgotten."},
    )  # fmt: skip


def _streams() -> Iterator[Operation]:
    """Errors are in the shape of the stream's surface."""
    path, key = "/v1/streams/{id}", ("StreamId",)
    listed = Operation(
        "get", "/v1/streams", "listStreams", "The caller's streams, the latest first; with follow=1 several in one.",
        "OpenAI", {JSON: "Streams", EVENTS: "Events"},
        fails=(400, 404, 410, 503), parameters=("Ids", "Follow", "Cursor", "LastEventIds"), also=_AGAIN, ticket=True,
    )  # fmt: skip
    yield listed
    yield Operation(
        "get", path, "readStream", "What was missed of a stream, and what follows.", "OpenAI",
        {EVENTS: "Events", LINES: "Events"}, fails=(400, 404, 409, 410, 502, 503, 504), passes=True,
        parameters=(*key, "StartingAfter", "LastEventId"), headers=_TRACED, also=_AGAIN, ticket=True,
    )  # fmt: skip
    yield Operation(
        "delete", path, "stopStream", "Stop the model.", "OpenAI", {JSON: "Stream"},
        fails=(404, 503), parameters=key, also={202: "The process that generates it has been asked to stop."},
    )  # fmt: skip


def _tickets() -> Iterator[Operation]:
    yield Operation(
        "post", "/v1/tickets", "giveTicket", "A ticket for an EventSource, which can send no key: ?ticket=…", "OpenAI",
        {JSON: "Ticket"}, "TicketRequest", fails=(*_BODY, 503),
    )  # fmt: skip


def _operator() -> Iterator[Operation]:
    yield Operation("get", "/health", "health", "The process lives.", "OpenAI", {JSON: "Health"}, open=True)
    yield Operation(
        "get",
        "/ready",
        "ready",
        "Whether it can serve, and why not; ?self ignores the upstreams.",
        "OpenAI",
        {JSON: "Ready"},
        open=True,
        parameters=("Self",),
    )
    yield Operation("get", "/metrics", "metrics", "For Prometheus.", "OpenAI", {TEXT: "Text"})
    yield Operation("get", "/openapi.json", "describe", "This document.", "OpenAI", {JSON: "Document"})
