"""Models are changed through Edge only where an upstream's settings allow it, and then as if Edge were not there."""

import asyncio
import hashlib
import io
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from fakes.model_server import FakeModel, chunk, end, fin, flood, gate, head, json_answer, no_read, stall
from support.made_keys import MadeKeys, learnt
from support.ollama import NDJSON, lines_of, pass_for_ollama
from support.raw import Answer, RawClient, ask
from support.running import LIMIT_S, Running, Serve

KEY = "a-key-of-thirty-two-characters-xx"
ALLOWED = {"allow_management": True}
BLOB = f"/api/blobs/sha256:{hashlib.sha256(b'x').hexdigest()}"
ROUTES = [
    ("POST", "/api/pull"),
    ("POST", "/api/push"),
    ("POST", "/api/create"),
    ("POST", "/api/copy"),
    ("DELETE", "/api/delete"),
    ("POST", BLOB),
]


def progress(status: str) -> bytes:
    return orjson.dumps({"status": status}) + b"\n"


async def send(edge: Running, method: str, path: str, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    async with RawClient(edge.port) as client:
        told = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        await client.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return await client.answer()


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_nothing_is_changed_unless_the_setting_allows_it(
    serve: Serve, fake: FakeModel, method: str, path: str
) -> None:
    pass_for_ollama(fake)
    answer = await send(await serve(upstream={"allow_management": False}), method, path, b'{"model":"a"}')
    assert answer.status == 403
    assert list(answer.json) == ["error"]
    assert "allow_management" in answer.json["error"]
    assert fake.requests == []


async def test_progress_comes_through_as_it_is_told(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={**ALLOWED, "api_key": "upstream-key", "headers": {"X-Own": "1"}})
    fake.script(head(200, NDJSON), chunk(progress("pulling")), gate("more"), chunk(progress("success")), end())
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "new"}, {"Authorization": "Bearer client-key"})
        await client.until(b"pulling")
        fake.open("more")
        answer = await client.answer()
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.body == progress("pulling") + progress("success")
    assert answer.headers["x-edge-upstream"] == "up"
    (request,) = fake.requests
    assert (request.method, request.path, request.json) == ("POST", "/api/pull", {"model": "new"})
    assert (request.headers["authorization"], request.headers["x-own"]) == ("Bearer upstream-key", "1")
    (line,) = edge.lines.of("management")
    assert (line["path"], line["upstream"], line["status"]) == ("/api/pull", "up", 200)
    assert "key" not in line


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/copy"), ("DELETE", "/api/delete")])
async def test_what_the_ollama_answers_is_the_answer(serve: Serve, fake: FakeModel, method: str, path: str) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED)
    fake.script(head(200, {"Content-Length": "0"}))
    assert (await send(edge, method, path, b'{"model":"a","source":"a","destination":"b"}')).status == 200
    assert (fake.requests[0].method, fake.requests[0].path) == (method, path)
    fake.script(*json_answer({"error": "model 'a' not found"}, 404))
    answer = await send(edge, method, path, b'{"model":"a"}')
    assert (answer.status, answer.json) == (404, {"error": "model 'a' not found"})


async def test_a_pull_that_breaks_off_says_so(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    fake.script(head(200, NDJSON), chunk(progress("pulling")), fin())
    answer = await send(await serve(upstream=ALLOWED), "POST", "/api/pull", b'{"model":"a"}')
    told = lines_of(answer)
    assert told[0] == {"status": "pulling"}
    assert "broke off" in told[1]["error"]


async def test_a_client_that_leaves_ends_the_pull(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED)
    fake.script(head(200, NDJSON), chunk(progress("pulling")), gate("never"))
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "a"})
        await client.until(b"pulling")
    assert await (await fake.request(0)).left() in ("fin", "reset")


async def test_a_blob_goes_up_as_it_comes(serve: Serve, fake: FakeModel) -> None:
    """Far more than a request body may have."""
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED, server={"max_body_bytes": 1024, "bodies_budget_bytes": 1024})
    data = bytes(3 * 2**20)
    fake.script(head(201, {"Content-Length": "0"}))
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        async with session.post(edge.url + BLOB, data=io.BytesIO(data)) as answer:
            assert answer.status == 201
        other = BLOB.replace("sha256:", "sha256-")
        fake.get.update({BLOB: (200, {}, b""), other: (404, {}, b"")})
        async with session.head(edge.url + BLOB) as answer:
            assert answer.status == 200
        async with session.head(edge.url + other) as answer:
            assert answer.status == 404
    assert (fake.requests[0].path, len(fake.requests[0].body)) == (BLOB, len(data))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        (BLOB, {"Origin": "http://evil.example", "Content-Type": "text/plain"}, 403),
        ("/api/pull", {"Origin": "http://evil.example", "Content-Type": "text/plain"}, 415),
        ("/api/blobs/sha256:..%2f..%2fapi%2fdelete", {}, 404),
        (BLOB + "/../delete", {}, 404),
    ],
)
async def test_a_web_page_or_a_clever_path_gets_nowhere(
    serve: Serve, fake: FakeModel, path: str, headers: dict[str, str], status: int
) -> None:
    pass_for_ollama(fake)
    answer = await send(await serve(upstream=ALLOWED), "POST", path, b"{}", headers)
    assert answer.status == status
    assert fake.requests == []


async def test_two_that_could_be_meant_are_named(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    async with FakeModel() as second:
        pass_for_ollama(second)
        answer = await ask((await serve(fake.url, second.url, upstream=ALLOWED)).port, "/api/pull", {"model": "a"})
        assert answer.status == 501
        assert "up, up1" in answer.json["error"]
        assert second.requests == fake.requests == []


async def test_a_server_that_is_no_ollama_is_not_asked(serve: Serve, fake: FakeModel) -> None:
    answer = await ask((await serve(upstream=ALLOWED)).port, "/api/pull", {"model": "a"})
    assert answer.status == 501
    assert "no Ollama" in answer.json["error"]
    assert fake.requests == []


async def test_an_ollama_that_is_down_is_told_as_such(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    fake.close_after_answer = True
    edge: Any = await serve(upstream=ALLOWED)
    await fake.refuse()
    answer = await ask(edge.port, "/api/pull", {"model": "a"})
    assert (answer.status, list(answer.json)) == (502, ["error"])
    await edge.edge.fleet.look()
    assert (await ask(edge.port, "/api/pull", {"model": "a"})).status == 503


async def test_a_pull_is_listed_and_an_admin_can_stop_it(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED)
    fake.script(head(200, NDJSON), chunk(progress("pulling")), gate("never"))
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "new"})
        await client.until(b"pulling")
        listed = (await send(edge, "GET", "/v1/streams", b"")).json["data"]
        (shown,) = listed
        assert (shown["state"], shown["surface"], shown["model"]) == ("live", "management/pull", "new")
        assert (await send(edge, "GET", f"/v1/streams?ids={shown['id']}", b"")).json["data"][0]["id"] == shown["id"]
        assert (await send(edge, "GET", f"/v1/streams/{shown['id']}", b"")).status == 410
        stopped = await send(edge, "DELETE", f"/v1/streams/{shown['id']}", b"")
        assert (stopped.status, stopped.json["outcome"]) == (200, "stopped")
        answer = await client.answer()
    assert answer.headers["x-stream-id"] == shown["id"]
    assert "stopped" in lines_of(answer)[-1]["error"]
    assert (answer.clean, answer.ending) == (False, "reset")
    assert await (await fake.request(0)).left() in ("fin", "reset")
    (line,) = await edge.lines.wait("management")
    assert (line["outcome"], line["error"], line["status"], line["model"]) == ("stopped", "stopped", 200, "new")
    assert line["bytes_out"] == len(answer.body)
    assert line["total_s"] >= 0
    metrics = (await send(edge, "GET", "/metrics", b"")).body
    assert b'edge_management_requests_total{operation="pull",outcome="stopped",upstream="up"} 1.0' in metrics


async def test_nobody_but_an_admin_sees_or_stops_it(serve: Serve, fake: FakeModel, tmp_path: Path) -> None:
    pass_for_ollama(fake)
    made = MadeKeys(tmp_path)
    admin, other, user = [
        {"Authorization": f"Bearer {key}"}
        for key in (
            await made.make("admin", admin=True),
            await made.make("other", admin=True),
            await made.make("user"),
        )
    ]
    edge = await serve(upstream=ALLOWED, store=made.settings)
    await learnt(edge, 3)
    fake.script(head(200, NDJSON), chunk(progress("pulling")), gate("more"), end())
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "new"}, admin)
        await client.until(b"pulling")
        (shown,) = (await send(edge, "GET", "/v1/streams", b"", other)).json["data"]
        assert (await send(edge, "GET", "/v1/streams", b"", user)).json["data"] == []
        assert (await send(edge, "DELETE", f"/v1/streams/{shown['id']}", b"", user)).status == 404
        fake.open("more")
        assert (await client.answer()).clean


async def test_a_drain_waits_for_a_pull(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED, server={"drain_s": 120})
    fake.script(head(200, NDJSON), chunk(progress("pulling")), gate("more"), chunk(progress("success")), end())
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "new"})
        await client.until(b"pulling")
        stopping = asyncio.create_task(edge.edge.stop())
        await edge.lines.wait("draining")
        fake.open("more")
        answer = await client.answer()
        await stopping
    assert (answer.clean, answer.body) == (True, progress("pulling") + progress("success"))


@pytest.mark.parametrize("begun", [True, False], ids=["under way", "before the answer"])
async def test_what_a_drain_does_not_wait_for_any_more_is_told(serve: Serve, fake: FakeModel, *, begun: bool) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED, server={"drain_s": 0.1})
    fake.script(*([head(200, NDJSON), chunk(progress("pulling"))] if begun else []), gate("never"))
    async with RawClient(edge.port) as client:
        await client.post("/api/pull", {"model": "new"})
        await (client.until(b"pulling") if begun else fake.request(0))
        stopping = asyncio.create_task(edge.edge.stop())
        answer = await client.answer()
        await stopping
    if begun:
        assert (answer.status, answer.ending) == (200, "reset")
        assert "shutting down" in lines_of(answer)[-1]["error"]
    else:
        assert (answer.status, "shutting down" in answer.json["error"]) == (503, True)
    (line,) = edge.lines.of("management")
    assert (line["outcome"], line["status"]) == ("shutdown", answer.status)


async def test_a_blob_still_on_its_way_at_the_end_gets_a_503(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    fake.script(no_read(), stall())
    edge = await serve(upstream=ALLOWED, server={"drain_s": 0.1})
    async with RawClient(edge.port) as client:
        await client.post(BLOB, bytes(1000), {"Content-Length": "1000000", "Content-Type": "application/octet-stream"})
        await fake.request(0)
        stopping = asyncio.create_task(edge.edge.stop())
        answer = await client.answer()
        await stopping
    assert answer.status == 503
    assert await fake.requests[0].left() in ("fin", "reset")


async def test_a_failure_in_the_last_line_is_no_success(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED)
    fake.script(head(200, NDJSON), chunk(progress("pulling") + b'{"error":"no such manifest"}\n'), end())
    assert (await send(edge, "POST", "/api/pull", b'{"model":"a"}')).clean
    (line,) = await edge.lines.wait("management")
    assert (line["outcome"], line["status"]) == ("upstream_error", 200)


async def test_a_client_that_takes_nothing_is_cut_and_the_ollama_is_paused_until_then(
    serve: Serve, fake: FakeModel
) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream=ALLOWED, stream={"client_stall_s": 0.3})
    fake.script(head(200, NDJSON), flood(10**10, progress("pulling")))
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post("/api/pull", {"model": "new"})
        await client.until(b"pulling")
        (line,) = await edge.lines.wait("management")
        assert line["outcome"] == "client_stall"
        assert await client.ending() == "reset"
    assert await fake.requests[0].left() in ("fin", "reset")


async def test_without_keys_the_ollama_next_door_may_be_managed(serve: Serve, fake: FakeModel) -> None:
    """Whoever can reach Edge there can reach the Ollama as well."""
    pass_for_ollama(fake)
    fake.script(*json_answer({"status": "success"}))
    answer = await send(await serve(), "POST", "/api/pull", b'{"model":"a"}')
    assert (answer.status, answer.json) == (200, {"status": "success"})


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {"X-Forwarded-For": "203.0.113.9"}),
        ({}, {"Forwarded": "for=203.0.113.9"}),
        ({"server": {"trusted_proxies": ["127.0.0.1"]}}, {}),
        ({"server": {"listen": ["0.0.0.0:0"]}, "auth": {"allow_anonymous": True}}, {}),
        (
            {"auth": {"keys": ["a-key-of-thirty-two-characters-xx"]}},
            {"Authorization": "Bearer a-key-of-thirty-two-characters-xx"},
        ),
    ],
)
async def test_but_not_by_others(
    serve: Serve, fake: FakeModel, settings: dict[str, Any], headers: dict[str, str]
) -> None:
    pass_for_ollama(fake)
    answer = await send(await serve(**settings), "POST", "/api/pull", b'{"model":"a"}', headers)
    assert (answer.status, "allow_management" in answer.json["error"]) == (403, True)
    assert fake.requests == []


async def test_nor_a_server_that_is_no_ollama(serve: Serve, fake: FakeModel) -> None:
    assert (await send(await serve(), "POST", "/api/pull", b'{"model":"a"}')).status == 403
