"""Browsers: names that were rebound to loopback are refused, origins are let in by setting; and Unix sockets."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from fakes.model_server import FakeModel, chunk, end, head, sse_error
from support.hanging import hang_limit
from support.raw import CHAT, MESSAGES, Answer, RawClient, ask, parse
from support.running import Running, Serve
from support.shapes import assert_told, get, say, valid_body

KEY = "a-key-that-is-long-enough"
PAGE = "https://app.example"


@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/health", "/ready", "/metrics", "/v1/models", "/nowhere"])
async def test_a_rebound_name_is_refused_everywhere_while_there_are_no_keys(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(path, b"{}", {"Host": "evil.example:11435"})
        answer = await client.answer()
    assert_told(answer, 403, path, "forbidden", "permission_error")
    assert "server.allowed_hosts" in answer.json["error"]["message"]
    assert fake.requests == []


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:11435", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:11435", "edge.localhost"]
)
async def test_loopback_names_are_answered_whatever_the_port(serve: Serve, host: str) -> None:
    edge = await serve()
    assert (await get(edge.port, "/health", {"Host": host})).status == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("ai.example", 200),
        ("AI.example:8443", 200),
        ("[2001:db8::1]:80", 200),
        ("[2001:db8:0::1]", 200),
        ("[2001:db8::2]", 403),
        ("localhost", 200),
        ("x.ai.example", 403),
        ("ai.example.evil.example", 403),
        ("", 403),
    ],
)
async def test_a_public_name_is_answered_once_it_is_allowed(serve: Serve, host: str, status: int) -> None:
    """As behind a local nginx that passes the Host on."""
    edge = await serve(server={"allowed_hosts": ["ai.example", "[2001:db8::1]"]})
    assert (await get(edge.port, "/health", {"Host": host})).status == status


async def test_with_keys_any_host_is_answered_unless_hosts_are_listed(serve: Serve) -> None:
    """A rebound page knows no key."""
    edge = await serve(auth={"keys": [KEY]})
    assert (await get(edge.port, "/health", {"Host": "any.example"})).status == 200
    strict = await serve(auth={"keys": [KEY]}, server={"allowed_hosts": ["ai.example"]})
    assert (await get(strict.port, "/health", {"Host": "any.example"})).status == 403


async def test_the_refusal_shows_the_host_harmlessly(serve: Serve) -> None:
    edge = await serve()
    answer = await say(edge.port, b"GET /health HTTP/1.1\r\nHost: <b>\xff\x1f" + b"x" * 500 + b"\r\n\r\n")
    assert answer.status in (400, 403)
    assert len(answer.body) < 500 or answer.headers["content-type"].startswith("text/plain")


async def test_a_health_check_without_a_host_is_answered(serve: Serve) -> None:
    """HTTP/1.0 has none, and no browser leaves it out."""
    edge = await serve()
    assert (await say(edge.port, b"GET /health HTTP/1.0\r\n\r\n")).status == 200


# --- CORS -----------------------------------------------------------------------------------------------------------


async def preflight(edge: Running, origin: str = PAGE, path: str = CHAT) -> Answer:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    return await get(edge.port, path, asked, "OPTIONS")


def grants(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}


async def test_an_allowed_pages_preflight_is_granted_without_a_key(serve: Serve, fake: FakeModel) -> None:
    """A browser sends no key with it."""
    edge = await serve(server={"cors_origins": [PAGE]}, auth={"keys": [KEY]})
    answer = await preflight(edge)
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert answer.headers["vary"] == "Origin"
    assert "POST" in answer.headers["access-control-allow-methods"]
    granted = set(answer.headers["access-control-allow-headers"].split(", "))
    assert granted >= {"authorization", "content-type", "x-stainless-os"}
    assert fake.requests == []


@pytest.mark.parametrize("allowed", [[], ["https://other.example"], ["https://app.example:8443"]])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_any_other_pages_preflight_is_refused(serve: Serve, allowed: list[str], path: str) -> None:
    edge = await serve(server={"cors_origins": allowed})
    answer = await preflight(edge, path=path)
    assert_told(answer, 403, path, "forbidden", "permission_error")
    assert grants(answer) == {}


async def test_a_page_of_any_origin_may_call_if_the_setting_says_so(serve: Serve) -> None:
    edge = await serve(server={"cors_origins": ["*"]})
    assert (await preflight(edge, "null")).headers["access-control-allow-origin"] == "*"


async def test_streams_and_errors_can_be_read_by_an_allowed_page(serve: Serve, fake: FakeModel) -> None:
    """And so can the headers that clients need: request ids, and when to come again."""
    edge = await serve(server={"cors_origins": [PAGE], "allowed_hosts": ["localhost"]}, auth={"keys": [KEY]})
    good = {"Origin": PAGE, "Authorization": f"Bearer {KEY}"}
    answers = [
        await ask(edge.port, CHAT, valid_body(CHAT, stream=True), good),
        await ask(edge.port, CHAT, valid_body(CHAT), good),
        await ask(edge.port, CHAT, b"{", good),
        await ask(edge.port, CHAT, valid_body(CHAT), {"Origin": PAGE}),
        await ask(edge.port, CHAT, valid_body(CHAT), {**good, "Host": "evil.example"}),
        await get(edge.port, "/nowhere", good),
        await get(edge.port, "/v1/models", good),
    ]
    fake.script(head(), chunk(sse_error()), end())
    answers.append(await ask(edge.port, CHAT, valid_body(CHAT, stream=True), good))
    assert [answer.status for answer in answers] == [200, 200, 400, 401, 403, 404, 200, 500]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        exposed = set(answer.headers["access-control-expose-headers"].split(", "))
        assert exposed >= {"x-request-id", "x-stream-id", "retry-after", "x-should-retry", "x-edge-upstream"}


async def test_a_foreign_page_gets_no_grant_on_any_answer(serve: Serve) -> None:
    edge = await serve(server={"cors_origins": [PAGE]})
    foreign = {"Origin": "https://evil.example"}
    for answer in (
        await ask(edge.port, CHAT, valid_body(CHAT, stream=True), foreign),
        await get(edge.port, "/v1/models", foreign),
        await get(edge.port, "/nowhere", foreign),
    ):
        assert grants(answer) == {}


# --- Unix sockets ---------------------------------------------------------------------------------------------------


async def test_a_unix_socket_serves_whatever_the_host_is(serve: Serve, tmp_path: Path) -> None:
    """No browser comes from there."""
    path = tmp_path / "edge.sock"
    edge = await serve(server={"listen": [f"unix:{path}"]})
    assert edge.edge.listener.addresses == [f"unix:{path}"]
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        async with session.post(f"http://any.example{CHAT}", json=valid_body(CHAT, stream=True)) as response:
            assert response.status == 200
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        async with session.get("http://any.example/health") as response:
            assert response.status == 200
    assert (await edge.record())["outcome"] == "complete"


async def test_a_unix_socket_needs_no_host_at_all(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    await serve(server={"listen": [f"unix:{path}"]})
    async with hang_limit():
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        answer = parse(await reader.read())
        writer.close()
        await writer.wait_closed()
    assert answer is not None
    assert answer.status == 200


async def test_it_listens_on_all_addresses_at_once_and_takes_its_socket_file_away(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    edge = await serve(server={"listen": ["127.0.0.1:0", "[::1]:0", f"unix:{path}"]})
    four, six, unix = edge.edge.listener.addresses
    assert four.startswith("http://127.0.0.1:")
    assert six.startswith("http://[::1]:")
    assert unix == f"unix:{path}"
    async with aiohttp.ClientSession() as session:
        for url in (four, six):
            async with session.get(f"{url}/health") as response:
                assert response.status == 200
    await edge.edge.stop()
    assert list(tmp_path.iterdir()) == []  # noqa: ASYNC240 - nothing else runs now
