"""What is answered: bodies, errors of each family of surfaces, and headers.

In: nothing. Out: components of the document by name. Must not: promise more of a relayed answer than its surface does;
what a server adds is passed on.
"""

from typing import Any, Literal

from edge.api.openapi_schema import Schema, anything, either, flag, items, record, ref, text, whole, word

JSON, TEXT, EVENTS, LINES = "application/json", "text/plain", "text/event-stream", "application/x-ndjson"
BINARY = "application/octet-stream"
Family = Literal["OpenAI", "Anthropic", "Ollama"]

# What each status of an error means, whatever the surface; "default" is any other.
FAILURES: dict[str, str] = {
    "400": "The request is malformed, or the upstream cannot express it; the field is named.",
    "401": "No credential, or not a valid one.",
    "403": "This Host or Origin is not allowed, the operator does not allow this, or the key does not.",
    "404": "There is no such model, session, stream or route.",
    "408": "The request body did not arrive within server.body_s.",
    "409": "The session is busy, and sessions.busy is conflict; or the stream was stopped before it brought anything.",
    "410": "What is asked for of the stream is not kept any more, or never was.",
    "413": "The request body is over server.max_body_bytes.",
    "415": "The request body is not declared as application/json, or is encoded.",
    "417": "The request has an Expect other than 100-continue.",
    "429": "A limit or a budget is used up, too many of the caller's requests wait, or credentials were often wrong.",
    "431": "The head of the request, or a line of it, is over server.max_header_bytes.",
    "500": "A bug in Edge.",
    "501": "No upstream can answer this surface.",
    "502": "The upstream could not be reached, broke off, or sent what makes no sense.",
    "503": "No upstream is up, none has had a slot in time, Edge is leaving or full, or cannot check who may call.",
    "504": "A clock for the upstream ran out.",
    "default": "What the upstream said, with its own status.",
}
_EVERYWHERE = ("x-request-id", "request-id")
_QUEUE = ("x-edge-queue-position", "x-edge-queue-length", "x-edge-queue-estimate")
_AGAIN = ("Retry-After", *_QUEUE)
_WITH_FAILURE = {"401": ("WWW-Authenticate",), "429": _AGAIN, "503": _AGAIN, "default": ("Retry-After",)}


def headers() -> dict[str, Any]:
    """Response headers by name."""
    fields = {
        "x-request-id": "The request's own x-request-id if it is up to 64 letters, digits or . _ -, else a new one.",
        "request-id": "The same, where the Anthropic SDK looks for it.",
        "x-stream-id": "Names the answer.",
        "x-edge-upstream": "The upstream that answers.",
        "x-edge-dropped-params": "Fields of the request that have no place at the upstream, as a.b, c.",
        "x-edge-changed": "What was changed of the prompt: system-reminder, tool-arguments, billing-line.",
        "x-edge-estimated": "true: the count is an estimate, since the upstream cannot count.",
        "Server-Timing": "Milliseconds up to the status: queued, connect, upstream, edge.",
        "Retry-After": "Seconds.",
        "x-edge-queue-position": "Where the request was among those that wait for a slot, or would have been.",
        "x-edge-queue-length": "How many wait.",
        "x-edge-queue-estimate": "Seconds until the one at that position would be served.",
        "WWW-Authenticate": "Bearer.",
    }
    return {name: {"description": about, "schema": {"type": "string"}} for name, about in fields.items()}


def headers_of(*names: str) -> dict[str, Any]:
    """References to these headers, and to those that all answers have."""
    return {name: ref(name, "headers") for name in (*_EVERYWHERE, *names)}


def failure(family: Family, status: str) -> dict[str, Any]:
    """An error as a response of the document."""
    return {
        "description": FAILURES[status],
        "headers": headers_of("x-stream-id", *_WITH_FAILURE.get(status, ())),
        "content": {JSON: {"schema": ref(f"{family}Error")}},
    }


def schemas() -> dict[str, Schema]:
    """All answers but Ollama's."""
    count, said = whole(0, needed=True), text(needed=True)
    about = {"message": said, "type": text(), "param": text(), "code": {"type": ["string", "integer", "null"]}}
    kinds = record({"type": said, "message": said}, "type", "message")
    choice = {"index": count, "finish_reason": text(), "logprobs": anything()}
    usage = anything("Token counts.")
    head = {"id": said, "object": text(), "created": whole(), "model": text(), "usage": usage}
    vector = either(items({"type": "number"}, needed=True), text(needed=True), about="base64 if that was asked for.")
    turn = {"role": word("user", "assistant", needed=True), "content": said, "at": count, "partial": flag()}
    card = record({"id": said, "object": word("model", needed=True), "created": whole(), "owned_by": text()}, "id")
    return {
        "OpenAIError": record({"error": record(about, "message")}, "error"),
        "AnthropicError": record(
            {"type": word("error", needed=True), "error": kinds, "request_id": text()}, "type", "error"
        ),
        "OllamaError": record({"error": said}, "error"),
        "ChatCompletion": record(
            {**head, "choices": items(record({**choice, "message": anything()}), needed=True)}, "choices"
        ),
        "Completion": record({**head, "choices": items(record({**choice, "text": text()}), needed=True)}, "choices"),
        "Embeddings": record(
            {"data": items(record({"index": count, "embedding": vector}, "embedding"), needed=True), "usage": usage},
            "data",
        ),
        "Response": record(
            {"id": said, "object": text(), "status": text(), "output": items(anything()), "usage": usage}, "id"
        ),
        "AssistantMessage": record(
            {"id": said, "role": text(), "content": items(anything()), "stop_reason": text(), "usage": usage}, "content"
        ),
        "TokenCount": record({"input_tokens": count}, "input_tokens"),
        "Model": card,
        "Models": record({"object": word("list", needed=True), "data": items(ref("Model"), needed=True)}, "data"),
        "Session": record(
            {"id": said, "turns": items(record(turn, "role", "content", "at"), needed=True), "created": count,
             "updated": count},
            "id", "turns", "created", "updated",
        ),
        "Ticket": record(
            {"object": word("ticket", needed=True), "ticket": said, "expires_at": count, "stream": text()},
            "object", "ticket", "expires_at",
        ),
        "Stream": _stream(said, count),
        "Streams": record({"object": word("list", needed=True), "data": items(ref("Stream"), needed=True)}, "data"),
        "Health": record({"status": word("ok", needed=True)}, "status"),
        "Ready": record(
            {"ready": {"type": "boolean"}, "upstreams": record({}, about="By name."), "reason": text()}, "ready"
        ),
        "Events": {"description": "Server-sent events, or lines of JSON, as the surface has them."},
        "Text": {"type": "string"},
        "Blob": {"description": "Bytes."},
        "RelayedAnswer": record({}, about="As the server has it."),
        "Document": record({"openapi": said}, "openapi"),
    }  # fmt: skip


def _stream(said: Schema, count: Schema) -> Schema:
    number = {"type": "number"}
    return record(
        {"id": said, "object": word("stream", needed=True), "state": word("live", "ended", needed=True),
         "outcome": text(), "surface": said, "model": text(), "upstream": text(), "session": text(),
         "resumable": flag(), "first": count, "last": count, "created": number, "age_s": number, "readers": whole(),
         "reconnections": count},
        "id", "state", "surface", "first", "last", "created",
    )  # fmt: skip
