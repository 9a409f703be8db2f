"""How an error looks in each family of surfaces, as HTTP body and in-band; and how an upstream's error is read.

In: an ``EdgeError``, or the upstream's decoded JSON. Out: plain dicts, or an ``UpstreamSaid``.
Must not: encode (the dialects do), or invent a message: what the upstream said is what goes out.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from edge.errors import EdgeError, TooLong, UpstreamSaid
from edge.protocol.too_long import too_long

# Anthropic's error types by status, where they are no invalid_request_error (4xx) or api_error (5xx):
# https://docs.anthropic.com/en/api/errors
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    501: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


# Where servers put the text of an error: most; FastAPI's own errors; each of FastAPI's list; errors inside errors; and
# what is better than nothing.
_SAYS = ("message", "detail", "msg", "error", "code", "type")
_DEEPEST = 4
_TOO_LONG_STATUS = (400, 413, 422, 500, 502)  # llama.cpp's older versions fail with 500; 502 is one inside a 200
_ANTHROPIC_TOO_LONG = "prompt is too long"
_STATUS_DIGITS = 3
_WHOLE_LEVELS = 100  # a body that is deeper is not kept: orjson reads 1,024 levels but writes about 300


# What to make of an error inside a 200, by the words that servers have for its kind. What is not here is a 502.
_STATUS_BY_WORD = {
    "overloaded_error": 529,
    "overloaded": 529,
    "engine_overloaded": 529,
    "server_is_overloaded": 503,
    "unavailable": 503,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "rate_limited": 429,
    "too_many_requests": 429,
    "insufficient_quota": 429,
    "resource_exhausted": 429,
    "invalid_request_error": 400,
    "invalid_request": 400,
    "invalid_argument": 400,
    "invalid_prompt": 400,
    "badrequesterror": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "permission_denied": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "timeout_error": 504,
}


def openai_body(error: EdgeError) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code"}}``; an upstream's own envelope is kept whole.

    Anthropic's looks like it, and is not: an OpenAI client that reads ``code`` finds none there.
    """
    body = error.body if isinstance(error, UpstreamSaid) else None
    if body is not None and is_openai(body) and not is_anthropic(body):
        inner = body["error"]
        if error.too_long is not None and isinstance(inner, dict):
            return {**body, "error": {**inner, "code": error.code}}  # agents look for that
        return dict(body)
    code: object = error.code
    param: object = error.param
    if body is not None and body.get("type") == "error" and is_responses_error(body) and error.too_long is None:
        code, param = body.get("code") or code, body.get("param") or param
    return {"error": {"message": error.message, "type": error.type, "param": param, "code": code}}


def responses_error(error: EdgeError) -> dict[str, Any]:
    """``code``, ``message`` and ``param`` of a Responses ``error`` event: text, or null but for the message.

    Servers also write numbers there (vLLM the status), which typed clients cannot read.
    """
    inner = openai_body(error)["error"]
    return {
        "code": _as_text(inner.get("code")),
        "message": _as_text(inner.get("message")) or error.message,
        "param": _as_text(inner.get("param")),
    }


def is_responses_error(event: Mapping[str, object]) -> bool:
    """Whether a server's ``error`` event of Responses is one that typed clients can read."""
    return isinstance(event.get("message"), str) and all(
        isinstance(event.get(name), str | None) for name in ("code", "param")
    )


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def anthropic_body(error: EdgeError, request_id: str) -> dict[str, Any]:
    """``{"type": "error", "error": {"type", "message"}, "request_id"}``; an upstream's own envelope is kept whole."""
    if isinstance(error, UpstreamSaid) and error.body is not None and is_anthropic(error.body):
        if error.too_long is None:
            return {**error.body, "request_id": error.body.get("request_id") or request_id}
        request_id = str(error.body.get("request_id") or request_id)
    rest = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, rest)
    message = error.message
    if error.too_long is not None:
        kind, message = "invalid_request_error", _anthropics_words(error.too_long, message)
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def _anthropics_words(by: TooLong, message: str) -> str:
    """By which Claude Code knows that it is to compact, and by how much."""
    if by.tokens is None or by.maximum is None:
        return message if message.startswith(_ANTHROPIC_TOO_LONG) else f"{_ANTHROPIC_TOO_LONG}: {message}"
    return f"{_ANTHROPIC_TOO_LONG}: {by.tokens} tokens > {by.maximum} maximum"


def is_openai(body: Mapping[str, object]) -> bool:
    """Whether an SDK finds the message where it looks for it, in no other family's envelope."""
    inner = body.get("error")
    return isinstance(inner, dict) and isinstance(inner.get("message"), str) and not is_anthropic(body)


def is_anthropic(body: Mapping[str, object]) -> bool:
    """Whether the Anthropic SDK finds type and message where it looks for them."""
    inner = body.get("error")
    return (
        body.get("type") == "error"
        and isinstance(inner, dict)
        and isinstance(inner.get("message"), str)
        and isinstance(inner.get("type"), str)
    )


def upstream_said(said: object, status: int, headers: Mapping[str, str] | None = None) -> UpstreamSaid:
    """Read an upstream's error, in any of the shapes that servers use.

    Args:
        said: The decoded JSON: mostly an object, from Google a list with one in it.
        status: The HTTP status it came with; inside a 200, what to make of it where the object does not say.
        headers: Response headers to pass on.
    """
    if isinstance(said, list) and len(said) == 1:
        said = said[0]
    body = said if isinstance(said, Mapping) else None
    inner = _unwrapped(said if body is None else body.get("error", body))
    if isinstance(inner, dict) and status == 502:
        status = _status_in(inner)
    text = _text(inner) or "the upstream failed: no reason given"
    kept = body if body is not None and _shallow(body) else None
    error = UpstreamSaid(text, status=status, body=kept, headers=headers)
    if status in _TOO_LONG_STATUS and (by := too_long(inner, text)) is not None:
        error.too_long, error.type, error.code = by, "invalid_request_error", "context_length_exceeded"
        error.status, error.retryable = status if status < 500 else 400, False
    return error


def _unwrapped(inner: Any) -> Any:
    """An Ollama passes on its runner's error as a text that is JSON."""
    if isinstance(inner, str) and inner.startswith("{"):
        try:
            fields = orjson.loads(inner)
        except orjson.JSONDecodeError:
            return inner
        return fields.get("error", fields) if isinstance(fields, dict) else inner
    return inner


def is_error(answer: object) -> bool:
    """Whether a whole answer with status 200 is an error all the same; a failed Responses answer is an answer."""
    if isinstance(answer, list) and len(answer) == 1:
        answer = answer[0]
    return isinstance(answer, dict) and bool(answer.get("error")) and "output" not in answer


def _status_in(inner: Mapping[str, Any]) -> int:
    """The HTTP status that an error inside a 200 stands for: its own number, or else the words for its kind."""
    fields = [inner.get(name) for name in ("code", "status", "type")]
    for value in fields:
        number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) == _STATUS_DIGITS else value
        if type(number) is int and 400 <= number <= 599:
            return number
    words = [value.lower() for value in fields if isinstance(value, str)]
    return next((_STATUS_BY_WORD[word] for word in words if word in _STATUS_BY_WORD), 502)


def _shallow(value: object, levels: int = _WHOLE_LEVELS) -> bool:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return levels > 0 and all(_shallow(item, levels - 1) for item in items)


def _text(said: object, depth: int = 0) -> str:
    """What an error says, wherever its server put that; empty if it says nothing."""
    if isinstance(said, str):
        return said.strip()
    if depth < _DEEPEST and isinstance(said, dict):
        for name in _SAYS:
            if text := _text(said.get(name), depth + 1):
                where = said.get("loc")  # FastAPI: the path of the field at fault
                return f"{_path(where)}: {text}" if isinstance(where, list) else text
    if depth < _DEEPEST and isinstance(said, list):
        return "; ".join(filter(None, (_text(item, depth + 1) for item in said)))
    return ""


def _path(parts: list[object]) -> str:
    return ".".join(str(part) for part in parts if isinstance(part, str | int))
