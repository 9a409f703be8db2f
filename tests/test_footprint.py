"""What Edge costs before it does anything: time to start, memory when idle, and what it does not import."""

import signal
import sys
import time
from pathlib import Path

import orjson
import pytest
from fakes.model_server import FakeModel
from support.cli import run_code, serving
from support.raw import CHAT, ask, chat_body
from support.shapes import get

# Measured: 46.6 MiB. What a start takes (0.32 s on a quiet machine) is all but the imports, whose number is bounded.
IDLE_MIB = 60.0
MODULES = 1000

reads_proc = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")

# Optional parts, and what only the tests use.
LAZY = {
    "openai", "anthropic", "redis", "jwt", "rich", "limits", "opentelemetry", "xllamacpp", "aiohttp_sse",
    "hypothesis", "pytest", "httpx", "httpx2", "pydantic", "multiprocessing.pool", "sqlite3",
    "schemathesis", "edge.api.openapi_document",
}  # fmt: skip

# Serves one request and tells what is loaded then.
SERVE_ONE = """
import asyncio, json, os, sys
import edge.cli.serve
from edge.app import Edge
from edge.config import load
from edge.telemetry import log

async def main():
    settings = load(None, os.environ).settings
    log.configure(settings.log)
    edge = Edge(settings)
    await edge.start()
    port = int(edge.listener.addresses[0].rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps({"model": "m", "messages": [], "stream": True}).encode()
    head = f"POST /v1/chat/completions HTTP/1.0\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
    writer.write(head.encode() + body)
    answer = await reader.read()
    assert b"[DONE]" in answer, answer
    writer.close()
    await edge.stop()
    print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""


@reads_proc
async def test_it_idles_small(tmp_path: Path) -> None:
    started = time.monotonic()
    async with serving(XDG_STATE_HOME=str(tmp_path)) as edge:
        assert (await get(edge.port, "/health")).status == 200
        took_s = time.monotonic() - started
        resident = edge.resident_mib()
        print(f"\nanswers /health after {took_s:.2f} s, idle in {resident:.1f} MiB")  # noqa: T201 - shown by pytest -s
        assert (await edge.signalled(signal.SIGTERM)).status == 0
    assert resident < IDLE_MIB


@reads_proc
async def test_a_request_does_not_make_it_grow_for_good(fake: FakeModel, tmp_path: Path) -> None:
    async with serving(EDGE_UPSTREAM_URL=fake.url, XDG_STATE_HOME=str(tmp_path)) as edge:
        await edge.line("upstream found")
        for _ in range(20):
            assert (await ask(edge.port, CHAT, chat_body())).status == 200
        assert edge.resident_mib() < IDLE_MIB


async def test_what_is_optional_is_not_imported_by_serving(fake: FakeModel, tmp_path: Path) -> None:
    done = await run_code(SERVE_ONE, EDGE_UPSTREAM_URL=fake.url, XDG_STATE_HOME=str(tmp_path))
    assert done.status == 0, done.err
    loaded = set(orjson.loads(done.out))
    assert {"edge.app", "edge.cli.serve", "aiohttp"} <= loaded
    assert len(loaded) < MODULES
    assert {name for name in loaded if name in LAZY or name.partition(".")[0] in LAZY} == set()


@pytest.mark.parametrize(("kind", "other"), [("openai", "anthropic"), ("anthropic", "openai")])
async def test_an_sdk_is_only_imported_for_its_own_cloud(
    fake: FakeModel, tmp_path: Path, kind: str, other: str
) -> None:
    code = SERVE_ONE.replace('assert b"[DONE]" in answer, answer', "")
    cloud = {"EDGE_UPSTREAM_KIND": kind, "EDGE_UPSTREAM_API_KEY": "the-key"}
    done = await run_code(code, EDGE_UPSTREAM_URL=fake.url, XDG_STATE_HOME=str(tmp_path), **cloud)
    assert done.status == 0, done.err
    loaded = {name.partition(".")[0] for name in orjson.loads(done.out)}
    assert kind in loaded
    assert other not in loaded
