"""Addresses of the operator's own: what is there and nowhere else, and who is asked for a key."""

from pathlib import Path

from fakes.model_server import FakeModel, chat_token, chunk, gate, head
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve
from support.shapes import assert_told, get
from support.tls import TlsClient, make_certificate
from support.unix import UnixClient

KEY = "a-key-that-is-long-enough"
ADMIN = {"admin_listen": ["127.0.0.1:0"]}


async def test_metrics_are_there_without_a_key_and_only_there(serve: Serve) -> None:
    edge = await serve(server=ADMIN, auth={"keys": [KEY]})
    (line,) = edge.lines.of("listening")
    assert line["admin"] == [f"http://127.0.0.1:{edge.admin_port}"]
    for path in ("/metrics", "/health", "/ready"):
        assert (await get(edge.admin_port, path)).status == 200
    assert b"edge_build_info" in (await get(edge.admin_port, "/metrics")).body
    assert_told(await get(edge.port, "/metrics", {"x-api-key": KEY}), 404, "/metrics", "unknown_route")
    document = (await get(edge.port, "/openapi.json", {"x-api-key": KEY})).json
    assert "/metrics" not in document["paths"]
    assert "/health" in document["paths"]
    assert (await get(edge.port, "/health")).status == 200


async def test_nothing_else_is_there(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(server=ADMIN)
    for path in ("/v1/models", "/api/tags", "/openapi.json"):
        assert (await get(edge.admin_port, path)).status == 404
    assert (await ask(edge.admin_port, CHAT, chat_body())).status == 404
    assert fake.requests == []


async def test_without_the_setting_metrics_are_where_everything_is(serve: Serve) -> None:
    edge = await serve()
    assert "admin" not in edge.lines.of("listening")[0]
    assert (await get(edge.port, "/metrics")).status == 200


async def test_a_page_cannot_read_it(serve: Serve) -> None:
    """It has no keys, so a rebound name is refused, and no origin is let in, whatever clients' addresses allow."""
    page = "https://app.example"
    edge = await serve(server={**ADMIN, "cors_origins": [page]}, auth={"keys": [KEY]})
    assert (await get(edge.admin_port, "/metrics", {"Host": "evil.example"})).status == 403
    answer = await get(edge.admin_port, "/metrics", {"Origin": page})
    assert "access-control-allow-origin" not in answer.headers


async def test_it_answers_when_no_client_is_let_in_any_more(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("never"))
    edge = await serve(server={**ADMIN, "max_connections": 1})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b'"a"')
        assert (await get(edge.port, "/health")).status == 503
        assert b"edge_streams_active 1.0" in (await get(edge.admin_port, "/metrics")).body


async def test_a_scraper_that_stays_does_not_hold_up_the_end(serve: Serve) -> None:
    edge = await serve(server=ADMIN)
    async with RawClient(edge.admin_port) as scraper:
        await scraper.get("/metrics")
        await scraper.answer()
        async with hang_limit():
            await edge.edge.stop()
        assert await scraper.ending() == "eof"


async def test_it_may_be_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    await serve(server={"admin_listen": [f"unix:{path}"]})
    async with UnixClient(path) as client:
        await client.get("/metrics")
        assert (await client.answer()).status == 200


async def test_it_speaks_tls_like_every_tcp_address(serve: Serve, tmp_path: Path) -> None:
    edge = await serve(server={**ADMIN, **make_certificate(tmp_path)})
    async with TlsClient(edge.admin_port) as client:
        await client.get("/metrics")
        assert (await client.answer()).status == 200
