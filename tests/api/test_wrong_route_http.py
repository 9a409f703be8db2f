"""A route that there is not: the error says what the base URL should be, and that there are no WebSockets."""

import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, MESSAGES, RESPONSES, RawClient, chat_body
from support.running import Serve
from support.shapes import assert_told, get, valid_body

UPGRADE = {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"}


@pytest.mark.parametrize(
    ("method", "path", "status", "hints"),
    [
        ("POST", "/v1/v1/messages", 404, ["one /v1 too many", "http://localhost for", "http://localhost/v1 for"]),
        ("POST", "/v1/v1/chat/completions", 404, ["/v1/chat/completions", "one /v1 too many"]),
        ("POST", "/v1/v1/responses", 404, ["one /v1 too many"]),
        ("GET", "/v1/v1/models", 404, ["/v1/models", "one /v1 too many"]),
        ("GET", "/v1/v1/models/m", 404, ["/v1/models/m", "one /v1 too many"]),
        ("POST", "/v1/v1/messages/count_tokens", 404, ["one /v1 too many"]),
        ("POST", "/openai/v1/chat/completions", 404, ["/v1/chat/completions", "one /openai too many"]),
        ("POST", "/chat/completions", 404, ["the base URL should be http://localhost/v1"]),
        ("POST", "/messages", 404, ["the base URL should be http://localhost/v1"]),
        ("POST", "/responses", 404, ["the base URL should be http://localhost/v1"]),
        ("POST", "/openai/chat/completions", 404, ["/v1/chat/completions", "the base URL should be http://localhost/v1"]),
        ("GET", "/models", 404, ["the base URL should be http://localhost/v1"]),
        ("POST", "/v1/api/chat", 404, ["/api/chat", "the base URL should be http://localhost"]),
        ("POST", "/v1/models/chat/completions", 405, ["the base URL should be http://localhost/v1"]),
        ("POST", "//v1/chat/completions", 404, ["there is /v1/chat/completions"]),
        ("POST", "/v1/chat/completions/", 404, ["there is /v1/chat/completions"]),
    ],
)  # fmt: skip
async def test_a_wrong_base_url_is_told_the_right_one(
    serve: Serve, fake: FakeModel, method: str, path: str, status: int, hints: list[str]
) -> None:
    answer = await get((await serve()).port, path, method=method)
    assert_told(answer, status, CHAT)
    message = answer.json["error"]["message"]
    assert [hint for hint in hints if hint not in message] == [], message
    assert fake.requests == []


async def test_an_anthropic_client_is_told_in_its_shape_and_with_the_scheme_that_it_used(serve: Serve) -> None:
    headers = {"anthropic-version": "2023-06-01", "X-Forwarded-Proto": "https"}
    answer = await get((await serve()).port, "/v1/v1/messages", headers, "POST")
    assert_told(answer, 404, MESSAGES, kind="not_found_error")
    assert "https://localhost for" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/files", "/", "/v1/chat", "/v1", "/nothing/of/the/kind"])
async def test_nothing_is_guessed_where_nothing_is_meant(serve: Serve, path: str) -> None:
    answer = await get((await serve()).port, path, method="POST")
    assert answer.status in (404, 405)
    assert "there is" not in answer.json["error"]["message"]


@pytest.mark.parametrize("path", [RESPONSES, CHAT, MESSAGES, "/v1/realtime", "/v1/models"])
async def test_a_websocket_is_told_to_use_http_and_the_connection_serves_on(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    """426 with both headers, without which HTTP libraries do not take it for one."""
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.get(
            path, {**UPGRADE, "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
        )
        answer = await client.answer()
        assert_told(answer, 426, path, "websocket_not_supported", "invalid_request_error")
        assert (answer.headers["upgrade"], answer.headers["connection"]) == ("websocket", "Upgrade")
        client.buffer = b""
        await client.post(CHAT, chat_body(stream=False))
        assert (await client.answer()).status == 200
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "headers", [{"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}, {"Upgrade": "websocket"}]
)
async def test_another_upgrade_may_be_passed_over(serve: Serve, headers: dict[str, str]) -> None:
    """As HTTP allows: it is answered as it stands."""
    assert (await get((await serve()).port, "/v1/models", headers)).status == 200


async def test_a_request_that_is_no_handshake_is_answered(serve: Serve) -> None:
    """Some proxies put the header on everything."""
    async with RawClient((await serve()).port) as client:
        await client.post(CHAT, valid_body(CHAT), UPGRADE)
        assert (await client.answer()).status == 200
