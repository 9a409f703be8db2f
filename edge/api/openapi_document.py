"""The OpenAPI document, put together of its parts.

In: whether there are keys, and metrics. Out: the document as plain dicts. Must not: be imported before somebody asks
for it.
"""

from typing import Any

from edge import __version__
from edge.api import openapi_answers, openapi_ollama, openapi_requests
from edge.api.openapi_answers import failure, headers_of
from edge.api.openapi_operations import Operation, operations
from edge.api.openapi_schema import ref, text, whole, word
from edge.policy.queue.lanes import Lane

_ABOUT = """\
What Edge answers, whichever model server is behind it. Request schemas name the fields that Edge reads and how it reads
them when it translates a request; a server that speaks the surface itself is given all fields as they are, and unknown
ones always pass or are named in `x-edge-dropped-params`. A field may be null wherever it may be left out.

Errors after a stream has begun come in the stream, in the surface's own shape. Every `GET` route but the session
API's streams answers `HEAD` too, and every route answers a browser's preflight.
"""
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "azure": {"type": "apiKey", "in": "header", "name": "api-key"},
}
_TICKET = {"ticket": {"type": "apiKey", "in": "query", "name": "ticket"}}
_NEEDED: list[dict[str, list[str]]] = [{name: []} for name in _SECURITY]
_LICENCE = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_ALWAYS = (403, 417, 431, 500)


def document(*, have_keys: bool, have_metrics: bool) -> dict[str, Any]:
    """The document of an Edge with these routes.

    Args:
        have_keys: Callers need one.
        have_metrics: ``/metrics`` is here, and not on addresses of its own.
    """
    paths: dict[str, dict[str, Any]] = {}
    failures: dict[str, Any] = {}
    for one in operations():
        if one.path == "/metrics" and not have_metrics:
            continue
        fails = _fails(one, have_keys=have_keys)
        failures.update({f"{one.family}{status.title()}": failure(one.family, status) for status in fails})
        paths.setdefault(one.path, {})[one.method] = {
            **_operation(one, fails), **(_security(one) if have_keys else {})
        }  # fmt: skip
    return {
        "openapi": "3.1.0",
        "info": {"title": "Edge", "version": __version__, "description": _ABOUT, "license": _LICENCE},
        "paths": paths,
        "components": {
            "schemas": {
                **openapi_requests.schemas(),
                **openapi_answers.schemas(),
                **openapi_ollama.requests(),
                **openapi_ollama.answers(),
            },
            "parameters": _parameters(),
            "headers": openapi_answers.headers(),
            "responses": failures,
            **({"securitySchemes": {**_SECURITY, **_TICKET}} if have_keys else {}),
        },
        **({"security": _NEEDED} if have_keys else {}),
    }


def _fails(one: Operation, *, have_keys: bool) -> list[str]:
    needs_key = have_keys and not one.open
    statuses = sorted({*_ALWAYS, *one.fails, *((401, 429, 503) if needs_key else ())})
    return [*map(str, statuses), *(("default",) if one.passes else ())]


def _security(one: Operation) -> dict[str, Any]:
    """Where it is not as for most of them."""
    if one.open:
        return {"security": []}
    return {"security": [*_NEEDED, {"ticket": []}]} if one.ticket else {}


def _operation(one: Operation, fails: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "operationId": one.name,
        "summary": one.about,
        "tags": [one.family],
        "parameters": [ref(name, "parameters") for name in (*one.parameters, "RequestId")],
        "responses": {
            **{status: ref(f"{one.family}{status.title()}", "responses") for status in fails},
            **_answers(one),
        },
    }
    if one.request:
        fields["requestBody"] = {"required": True, "content": {one.takes: {"schema": ref(one.request)}}}
    return fields


def _answers(one: Operation) -> dict[str, Any]:
    headers = headers_of(*one.headers)
    fields: dict[str, Any] = {
        str(status): {"description": about, "headers": headers} for status, about in one.also.items()
    }
    if one.answers or not one.also:
        content = {kind: {"schema": ref(name)} for kind, name in one.answers.items()}
        fields["200"] = {"description": "The answer.", "headers": headers, **({"content": content} if content else {})}
    if one.path == "/ready":
        fields["503"] = {**fields["200"], "description": "It cannot serve; reason says why."}
    return fields


_EVENT_ID = "st_[0-9a-f]{32}:(0|[1-9][0-9]{0,9})"
_MERGED_ID = _EVENT_ID.replace(":(", ":(end|")


def _parameters() -> dict[str, Any]:
    session = openapi_requests.session_fields("prompt")
    query = {name: {**schema, "type": "string"} for name, schema in session.items()}
    query["metadata"] = {"type": "boolean"}
    return {
        "ModelId": _parameter("path", "id", text("It may hold slashes.", needed=True, minLength=1)),
        "SessionId": _parameter("path", "id", text(needed=True, minLength=1)),
        "Digest": _parameter("path", "digest", text(needed=True, pattern="^sha256[:-][0-9a-f]{64}$")),
        "Self": _parameter("query", "self", text("Ask about this Edge alone, whatever its upstreams do.")),
        "Prompt": _parameter("query", "prompt", query["prompt"], required=True),
        "QuerySessionId": _parameter("query", "session_id", query["session_id"]),
        "QueryModel": _parameter("query", "model", query["model"]),
        "QuerySystem": _parameter("query", "system", query["system"]),
        "QueryMetadata": _parameter("query", "metadata", query["metadata"]),
        "RequestId": _parameter("header", "x-request-id", text(needed=True)),
        "LastEventId": _parameter(
            "header", "Last-Event-ID", text("Sent by a reader that comes back.", needed=True, pattern=f"^{_EVENT_ID}$")
        ),
        "LastEventIds": _parameter(
            "header",
            "Last-Event-ID",
            text("The same, of several.", needed=True, pattern=f"^{_MERGED_ID}(,{_MERGED_ID})*(,done)?$"),
        ),
        "StreamId": _parameter("path", "id", text(needed=True, pattern="^st_[0-9a-f]{32}$")),
        "StartingAfter": _parameter(
            "query", "starting_after", whole(0, about="Number of the last event that was seen.")
        ),
        "Ids": _parameter("query", "ids", text("Of streams, separated by commas.", needed=True)),
        "Follow": _parameter("query", "follow", word("0", "1", about="1: read them, over this one connection.")),
        "Cursor": _parameter("query", "cursor", text("As Last-Event-ID, for the first request.", needed=True)),
        "Resume": _parameter("header", "x-edge-resume", word("0", "1", about="1: the stream can be come back to.")),
        "QueryResume": _parameter("query", "resume", word("0", "1", about="The same.")),
        "Lane": _parameter(
            "header", "x-edge-lane", word(*Lane, about="batch waits behind interactive, where requests have to wait.")
        ),
        "AnthropicVersion": _parameter("header", "anthropic-version", text("Passed on.", needed=True)),
        "AnthropicBeta": _parameter("header", "anthropic-beta", text("Passed on.", needed=True)),
        "OpenAIBeta": _parameter("header", "openai-beta", text("Passed on.", needed=True)),
    }


def _parameter(place: str, name: str, schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required or place == "path", "schema": schema}
