"""Every failure that a client can meet before its stream begins, in the error shape of each family of surfaces."""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel, Step, chunk, end, head, json_answer, sse_error, stall, whole
from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, Answer, RawClient, ask
from support.running import Running, Serve
from support.shapes import COUNT_TOKENS, EVERY_SURFACE, assert_told, get, say, valid_body

KEY = "a-key-that-is-long-enough"
TRANSCRIPTIONS = "/v1/audio/transcriptions"
FAMILIES = [CHAT, RESPONSES, MESSAGES]
each_family = pytest.mark.parametrize("path", FAMILIES)


@dataclass(frozen=True)
class Failure:
    """A way to fail: what is sent, to what Edge, and what it must be told as.

    Attributes:
        raw: The body; a valid one if there is none.
        sections: Of Edge's settings.
        script: What the upstream does.
    """

    status: int
    code: str
    kind: str
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    method: str = "POST"
    sections: dict[str, Any] = field(default_factory=dict)
    script: tuple[Step, ...] = ()

    async def meet(self, port: int, path: str) -> Answer:
        async with RawClient(port) as client:
            if self.method == "POST":
                raw = orjson.dumps(valid_body(path, **self.extra)) if self.raw is None else self.raw
                await client.post(path, raw, self.headers)
            else:
                await client.get(path, self.headers, self.method)
            return await client.answer()


def bad(status: int, code: str, **more: Any) -> Failure:
    return Failure(status, code, "invalid_request_error", **more)


KEYED = {"auth": {"keys": [KEY]}}
OURS = {
    "bad json": bad(400, "invalid_request", raw=b'{"model":'),
    "empty": bad(400, "invalid_request", raw=b""),
    "no object": bad(400, "invalid_request", raw=b"[]"),
    "not utf-8": bad(400, "invalid_request", raw=b'{"model":"\xff"}'),
    "nan": bad(400, "invalid_request", raw=b'{"model":NaN}'),
    "model is no string": bad(400, "invalid_request", extra={"model": 7}),
    "stream is no boolean": bad(400, "invalid_request", extra={"stream": "yes"}),
    "form": bad(415, "unsupported_media_type", headers={"Content-Type": "application/x-www-form-urlencoded"}),
    "text": bad(415, "unsupported_media_type", headers={"Content-Type": "text/plain"}),
    "gzip": bad(415, "unsupported_media_type", headers={"Content-Encoding": "gzip"}),
    "too large": Failure(
        413, "request_too_large", "request_too_large", raw=b" " * 1025, sections={"server": {"max_body_bytes": 1024}}
    ),
    "too slow": Failure(
        408, "request_timeout", "timeout_error",
        headers={"Content-Length": "9999"}, sections={"server": {"body_s": 0.05}},
    ),
    "no room": Failure(
        503, "server_is_overloaded", "overloaded_error", raw=b" " * 1025,
        sections={"server": {"bodies_budget_bytes": 1024}},
    ),
    "method": bad(405, "method_not_allowed", method="GET"),
    "no key": Failure(401, "invalid_api_key", "authentication_error", sections=KEYED),
    "wrong key": Failure(
        401, "invalid_api_key", "authentication_error", headers={"x-api-key": "wrong"}, sections=KEYED
    ),
    "foreign host": Failure(403, "forbidden", "permission_error", headers={"Host": "evil.example"}),
    "foreign preflight": Failure(
        403, "forbidden", "permission_error", method="OPTIONS", headers={"Origin": "https://evil.example"}
    ),
    "unspoken": bad(501, "surface_not_supported", sections={"upstream": {"surfaces": ["completions"]}}),
}  # fmt: skip
THEIRS = {
    "said 400": bad(400, "invalid_request", script=tuple(json_answer({"error": "bad prompt"}, 400))),
    "said 404": Failure(404, "not_found", "not_found_error", script=tuple(json_answer({"detail": "no model"}, 404))),
    "said 429": Failure(
        429, "rate_limit_exceeded", "rate_limit_error", script=tuple(json_answer({"message": "slow down"}, 429))
    ),
    "said 500": Failure(500, "upstream_error", "api_error", script=tuple(whole(b"<h1>oops</h1>", 500))),
    "redirects": Failure(
        502, "upstream_error", "api_error", script=tuple(whole(b"", 302, {"Location": "http://127.0.0.1:9/v1"}))
    ),
    "no stream": Failure(
        502, "upstream_error", "api_error", script=tuple(whole(b"<p>hi", 200, {"Content-Type": "text/html"}))
    ),
    "error first": Failure(
        502, "upstream_error", "api_error", script=(head(), chunk(sse_error(code="upstream_error")), end())
    ),
    "cut first": Failure(502, "upstream_cut", "api_error", script=(head(), end())),
    "too late": Failure(
        504, "first_token_timeout", "timeout_error", sections={"stream": {"first_token_s": 0.05}}, script=(stall(),)
    ),
}


def assert_known(answer: Answer, failure: Failure, path: str) -> None:
    assert_told(answer, failure.status, path, failure.code, failure.kind)


async def start(serve: Serve, failure: Failure) -> Running:
    upstream = {**EVERY_SURFACE, **failure.sections.get("upstream", {})}
    return await serve(**{**failure.sections, "upstream": upstream})


@each_family
@pytest.mark.parametrize("failure", OURS.values(), ids=OURS)
async def test_what_edge_refuses_is_told_in_the_surfaces_shape_and_reaches_no_upstream(
    serve: Serve, fake: FakeModel, failure: Failure, path: str
) -> None:
    edge = await start(serve, failure)
    assert_known(await failure.meet(edge.port, path), failure, path)
    assert fake.requests == []


@each_family
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("failure", THEIRS.values(), ids=THEIRS)
async def test_what_the_upstream_does_wrong_is_told_in_the_surfaces_shape(
    serve: Serve, fake: FakeModel, failure: Failure, path: str, *, stream: bool
) -> None:
    fake.script(*failure.script)
    edge = await start(serve, failure)
    async with RawClient(edge.port) as client:
        await client.post(path, valid_body(path, stream=stream))
        assert_known(await client.answer(), failure, path)
    assert len(fake.requests) == 1


@each_family
async def test_an_upstream_that_is_gone_is_told_with_a_hint_when_to_come_again(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    """First the request that finds out, then those that need not try any more."""
    fake.close_after_answer = True  # so that no connection is left of Edge's look at it
    edge = await serve(upstream=EVERY_SURFACE)
    await fake.refuse()
    for status, code, kind in ((502, "upstream_unreachable", "api_error"), (503, "no_upstream", "overloaded_error")):
        async with RawClient(edge.port) as client:
            await client.post(path, valid_body(path))
            answer = await client.answer()
        assert_told(answer, status, path, code, kind)
        assert "x-should-retry" not in answer.headers
    assert 1 <= int(answer.headers["retry-after"]) <= 120


@pytest.mark.parametrize("path", [COMPLETIONS, EMBEDDINGS, COUNT_TOKENS])
async def test_the_other_surfaces_have_their_familys_shape(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(path, b"{")
        assert_told(await client.answer(), 400, path, "invalid_request", "invalid_request_error")
    assert fake.requests == []


UNKNOWN = [
    "/v1", "/v1/", "/favicon.ico", "/v1/chat/completions/", "/v1/chat", "/v1/files",
    "/pause", "/slots", "/props", "/v1/load_lora_adapter",
    "/v1/../api/delete", "/v1/%2e%2e/api/delete", "/v1/%2e%2e%2fapi%2fdelete", "/v1/..%2fapi/delete",
    "/v1/chat/../../api/delete", "/v1/model/../../api/delete", "/./api/delete", "/v1/chat/completions/../../../pause",
    "//v1/chat/completions", "/v1//chat/completions", "/v1/chat%2fcompletions", "/v1/chat/completions%00",
    "/v1/chat/completions;x", "/V1/CHAT/COMPLETIONS", "http://127.0.0.1/pause", "http://evil.example/pause",
]  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWN)
async def test_only_exact_routes_exist(serve: Serve, fake: FakeModel, path: str) -> None:
    """Nothing that a client writes into the path reaches an upstream."""
    edge = await serve()
    looks = len(fake.gets)
    async with RawClient(edge.port) as client:
        await client.post(path, valid_body(CHAT))
        answers = [await client.answer()]
    answers += [await get(edge.port, path, method=method) for method in ("GET", "DELETE")]
    for answer in answers:
        assert_told(answer, 404, path, "unknown_route")
    assert fake.requests == []
    assert len(fake.gets) == looks


async def test_a_models_id_may_hold_anything_and_leads_nowhere(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    looks = len(fake.gets)
    for name in ("../../api/delete", "%2e%2e/%2e%2e/api/delete", "http://127.0.0.1:1/", "a%1b", "%00"):
        assert_told(await get(edge.port, f"/v1/models/{name}"), 404, "/v1/models", "model_not_found")
        assert_told(
            await get(edge.port, f"/v1/models/{name}", method="DELETE"), 405, "/v1/models", "method_not_allowed"
        )
    assert len(fake.gets) == looks


async def test_an_unknown_route_has_anthropics_shape_for_anthropics_clients(serve: Serve) -> None:
    edge = await serve()
    version = {"anthropic-version": "2023-06-01"}
    assert_told(await get(edge.port, "/v1/files", version), 404, MESSAGES, kind="not_found_error")
    assert_told(await get(edge.port, "/v1/models/none", version), 404, MESSAGES, kind="not_found_error")
    assert_told(await get(edge.port, "/v1/messages/batches"), 404, MESSAGES, kind="not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, {"POST"}),
        ("DELETE", MESSAGES, {"POST"}),
        ("PUT", EMBEDDINGS, {"POST"}),
        ("POST", "/health", {"GET", "HEAD"}),
        ("POST", "/metrics", {"GET", "HEAD"}),
        ("DELETE", "/v1/models/m", {"GET", "HEAD"}),
        ("OPTIONS", CHAT, {"POST"}),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(serve: Serve, method: str, path: str, allow: set[str]) -> None:
    edge = await serve()
    answer = await get(edge.port, path, method=method)
    assert_told(answer, 405, path, "method_not_allowed", "invalid_request_error")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allow


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ("Content-Type: application/json; charset=utf-8", 200),
        ("Content-Type: APPLICATION/JSON", 200),
        ("", 200),
        ("Origin: http://localhost:3000", 415),
        ("Origin: https://evil.example\r\nContent-Type: text/plain;charset=UTF-8", 415),
        ("Content-Type: application/json, text/plain", 415),
        ("Content-Type: application/jsonp", 415),
        ("Content-Type:", 415),
    ],
)
async def test_a_body_is_json_or_undeclared_by_a_client_that_is_no_browser(
    serve: Serve, fake: FakeModel, headers: str, status: int
) -> None:
    """A page of any origin may post what is not declared as JSON without asking first, so that is refused."""
    edge = await serve()
    raw = orjson.dumps(valid_body(CHAT))
    lines = f"Host: localhost\r\nContent-Length: {len(raw)}" + ("\r\n" + headers if headers else "")
    answer = await say(edge.port, f"POST {CHAT} HTTP/1.1\r\n{lines}\r\n\r\n".encode() + raw)
    assert answer.status == status
    assert len(fake.requests) == (status == 200)


@each_family
async def test_an_upstreams_error_in_a_list_keeps_its_message_and_a_422_is_the_clients_fault(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    edge = await serve(upstream={"surfaces": ["chat"]})
    fake.script(*json_answer([{"error": {"message": "no such field", "status": "INVALID_ARGUMENT"}}], 422))
    answer = await ask(edge.port, path, valid_body(path))
    if path == MESSAGES:
        assert_told(answer, 422, path, kind="invalid_request_error")
    assert (answer.status, answer.json["error"]["message"]) == (422, "no such field")


@pytest.mark.parametrize("path", [CHAT, MESSAGES, TRANSCRIPTIONS])
async def test_a_415_says_which_encoding_is_taken_if_that_is_at_fault(serve: Serve, path: str) -> None:
    """And only then, as RFC 9110 demands."""
    edge = await serve(upstream={"relay": [TRANSCRIPTIONS]})
    for headers, accepted in (({"Content-Encoding": "gzip"}, "identity"), ({"Content-Type": "text/plain"}, None)):
        async with RawClient(edge.port) as client:
            await client.post(path, b"{}", headers)
            answer = await client.answer()
        assert_told(answer, 415, path, "unsupported_media_type")
        assert answer.headers.get("accept-encoding") == accepted


@pytest.mark.parametrize("framing", ["declared", "chunked"])
async def test_a_body_over_the_bound_is_refused_however_it_is_framed(
    serve: Serve, fake: FakeModel, framing: str
) -> None:
    """A declared one before it is read."""
    edge = await serve(server={"max_body_bytes": 1024})
    head_ = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    declared = f"{head_}Content-Length: {10**12}\r\n\r\n".encode()
    chunked = f"{head_}Transfer-Encoding: chunked\r\n\r\n".encode() + b"401\r\n" + b" " * 1025 + b"\r\n"
    answer = await say(edge.port, declared if framing == "declared" else chunked)
    assert_told(answer, 413, CHAT, "request_too_large")
    assert "max_body_bytes" in answer.json["error"]["message"]
    assert fake.requests == []


async def test_the_sdks_are_told_not_to_repeat_what_cannot_help(serve: Serve) -> None:
    edge = await serve(upstream={"surfaces": ["completions"]})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, valid_body(CHAT))
        assert (await client.answer()).headers["x-should-retry"] == "false"


async def test_a_connection_serves_on_after_a_refusal(serve: Serve) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        for status in (404, 404):
            await client.get("/nowhere")
            assert (await client.answer()).status == status
            client.buffer = b""
        await client.post(CHAT, valid_body(CHAT, stream=False))
        assert (await client.answer()).status == 200
