"""Every failure in each family's error shape, and every server's errors read for what they say."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from edge.errors import EdgeError, Side, UpstreamSaid
from edge.protocol.dialects import DIALECTS
from edge.protocol.shapes import anthropic_body, is_anthropic, is_openai, openai_body, responses_error, upstream_said
from edge.protocol.surface import OLLAMA, Surface

ANTHROPIC_TYPES = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
    "rate_limit_error", "timeout_error", "billing_error", "api_error", "overloaded_error",
}  # fmt: skip
MESSAGE = 'it "broke"\nhere: é🎈\u2028'


def kinds(of: type[EdgeError] = EdgeError) -> Iterator[type[EdgeError]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def every_error() -> list[EdgeError]:
    """One of each class, and the upstream's own with each status that means something."""
    errors = [kind(MESSAGE, param="x") for kind in kinds() if kind is not UpstreamSaid]
    statuses = (400, 401, 402, 403, 404, 408, 413, 418, 422, 429, 500, 501, 502, 503, 504, 529)
    return [*errors, *(UpstreamSaid(MESSAGE, status=status) for status in statuses)]


def named(error: EdgeError) -> str:
    return f"{type(error).__name__}-{error.status}"


every = pytest.mark.parametrize("error", every_error(), ids=named)


@every
def test_every_error_says_who_what_and_how(error: EdgeError) -> None:
    assert 400 <= error.status <= 599
    assert error.code
    assert error.type
    assert isinstance(error.side, Side)
    assert error.retryable is False or error.status >= 500 or error.status in (408, 429)
    assert (error.side is Side.CLIENT) <= (error.status < 500), "the client's fault is told as a 4xx"
    assert str(error) == error.message == MESSAGE


@every
@pytest.mark.parametrize("surface", list(DIALECTS))
def test_every_error_in_every_surface_is_one_line_in_its_shape(error: EdgeError, surface: Surface) -> None:
    body = DIALECTS[surface].format(None, "req_1").error_body(error)
    assert b"\n" not in body
    decoded = orjson.loads(body)
    if surface in (Surface.MESSAGES, Surface.COUNT_TOKENS):
        kind = decoded["error"]["type"]
        assert kind in ANTHROPIC_TYPES
        assert decoded == {"type": "error", "error": {"type": kind, "message": MESSAGE}, "request_id": "req_1"}
        assert is_anthropic(decoded)
    elif surface in OLLAMA:
        assert decoded == {"error": MESSAGE}
    else:
        told = {"message": MESSAGE, "type": error.type, "param": error.param, "code": error.code}
        assert decoded == {"error": told}
        assert is_openai(decoded)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (403, "permission_error"), (404, "not_found_error"),
     (413, "request_too_large"), (429, "rate_limit_error"), (500, "api_error"), (502, "api_error"),
     (503, "overloaded_error"), (504, "timeout_error"), (529, "overloaded_error"), (418, "invalid_request_error")],
)  # fmt: skip
def test_anthropics_error_type_follows_the_status(status: int, kind: str) -> None:
    assert anthropic_body(UpstreamSaid("m", status=status), "r")["error"]["type"] == kind


LLAMA_CPP = {"error": {"code": 400, "message": "m", "type": "exceed_context_size_error", "n_prompt_tokens": 9}}
VLLM = {"error": {"message": "m", "type": "BadRequestError", "param": None, "code": 400}}
VLLM_OLD = {"object": "error", "message": "m", "type": "BadRequestError", "param": None, "code": 400}
OPENROUTER = {"error": {"message": "m", "code": 429, "metadata": {"raw": "busy"}}, "user_id": "u"}
ANTHROPIC = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}, "request_id": "theirs"}
FASTAPI_LIST = {
    "detail": [
        {"type": "missing", "loc": ["body", "messages"], "msg": "Field required", "input": {}},
        {"type": "int", "loc": ["body", "tools", 0], "msg": "Not a tool"},
    ]
}


@pytest.mark.parametrize(
    ("body", "message", "inside"),
    [
        (LLAMA_CPP, "m", 400),
        (VLLM, "m", 400),
        (VLLM_OLD, "m", 400),
        (OPENROUTER, "m", 429),
        (ANTHROPIC, "m", 529),
        ({"detail": "Not Found"}, "Not Found", 502),
        (FASTAPI_LIST, "body.messages: Field required; body.tools.0: Not a tool", 502),
        ({"error": "model 'x' not found"}, "model 'x' not found", 502),  # Ollama, TGI
        ({"error": {"error": {"message": "m"}}}, "m", 502),
        ({"error": {"detail": "m", "status": 503}}, "m", 503),
        ({"error": {"message": {"detail": "m"}}}, "m", 502),
        ({"error": {"message": "", "detail": "m"}}, "m", 502),
        ({"message": "m"}, "m", 502),
        ({"error": {"code": 7}}, "the upstream failed: no reason given", 502),
        ({"error": {"message": "", "code": "busy", "type": "t"}}, "busy", 502),
        ({"error": {"code": True, "status": "UNAVAILABLE", "message": "m"}}, "m", 503),
        ({"error": {"code": "429", "message": "m"}}, "m", 429),
        ({"error": ["a", 1, {"message": "b"}]}, "a; b", 502),
        ({}, "the upstream failed: no reason given", 502),
        ({"error": None}, "the upstream failed: no reason given", 502),
        ({"error": " "}, "the upstream failed: no reason given", 502),
        ({"error": {}}, "the upstream failed: no reason given", 502),
        ({"error": {"message": None}}, "the upstream failed: no reason given", 502),
        ({"detail": []}, "the upstream failed: no reason given", 502),
    ],
)
def test_what_an_upstream_said(body: dict[str, Any], message: str, inside: int) -> None:
    """Its words, wherever it put them; its status if it told one inside a 200, else the one it answered with."""
    told = upstream_said(body, 502)
    assert (told.message, told.status, told.body) == (message, inside, body)
    outside = upstream_said(body, 422, {"retry-after": "1"})
    assert (outside.message, outside.status, outside.headers) == (message, 422, {"retry-after": "1"})


@pytest.mark.parametrize(
    ("said", "message", "status"),
    [
        ([{"error": {"code": 400, "message": "m", "status": "INVALID_ARGUMENT"}}], "m", 400),  # Google
        ([{"error": {"message": "m"}}, {"error": {"message": "n"}}], "m; n", 502),
        ([{"msg": "m", "loc": ["body", "x"]}], "body.x: m", 502),
        (["m"], "m", 502),
        ("m", "m", 502),
        ([], "the upstream failed: no reason given", 502),
    ],
)
def test_an_error_that_is_no_object_keeps_its_message(said: object, message: str, status: int) -> None:
    """In every surface."""
    told = upstream_said(said, 502)
    assert (told.message, told.status) == (message, status)
    for dialect in DIALECTS.values():
        assert message in dialect.format(None, "r").error_body(told).decode()


@pytest.mark.parametrize("status", [402, 405, 409, 415, 418, 422, 426, 431])
def test_a_4xx_is_the_clients_fault_to_messages_clients(status: int) -> None:
    kind = anthropic_body(UpstreamSaid("m", status=status), "r")["error"]["type"]
    assert kind == ("billing_error" if status == 402 else "invalid_request_error")


@pytest.mark.parametrize(
    ("code", "told"), [(500, "500"), (1.5, "1.5"), ("c", "c"), (None, None), (True, None), ({"a": 1}, None)]
)
def test_the_code_of_a_responses_error_is_text_or_null(code: object, told: str | None) -> None:
    """And so is the field at fault; typed clients cannot read anything else."""
    error = upstream_said({"error": {"message": "m", "type": "t", "param": code, "code": code}}, 502)
    assert responses_error(error) == {"code": told, "message": "m", "param": told}


def test_a_hostile_error_is_survived() -> None:
    """However deep it is."""
    deep: Any = "m"
    for _ in range(900):
        deep = {"error": [deep]}
    assert upstream_said(deep, 502).message == "the upstream failed: no reason given"
    for body in ({"error": {"message": "m", "x": deep}}, {"detail": [{"msg": "m", "loc": [deep]}]}):
        error = upstream_said(body, 502)
        for dialect in DIALECTS.values():
            told = orjson.loads(dialect.format(None, "r").error_body(error))["error"]
            assert (told if dialect.surface in OLLAMA else told["message"]).endswith("m")


@pytest.mark.parametrize("body", [LLAMA_CPP, VLLM, OPENROUTER])
def test_an_envelope_of_the_family_is_kept_whole(body: dict[str, Any]) -> None:
    """Whatever else is in it: a client may know more of this server than Edge does."""
    assert openai_body(upstream_said(body, 502)) == body


@pytest.mark.parametrize("body", [VLLM_OLD, FASTAPI_LIST, {"error": "m"}, {"error": {"message": 7}}, {}])
def test_any_other_is_put_into_the_envelope(body: dict[str, Any]) -> None:
    """Where the SDKs find the message."""
    error = upstream_said(body, 404)
    told = {"message": error.message, "type": "not_found_error", "param": None, "code": "not_found"}
    assert openai_body(error) == {"error": told}
    assert anthropic_body(error, "r")["error"] == {"type": "not_found_error", "message": error.message}


def test_anthropics_envelope_is_kept_whole_with_a_request_id() -> None:
    assert anthropic_body(upstream_said(ANTHROPIC, 502), "ours") == ANTHROPIC
    bare = {name: value for name, value in ANTHROPIC.items() if name != "request_id"}
    assert anthropic_body(upstream_said(bare, 502), "ours") == {**bare, "request_id": "ours"}
