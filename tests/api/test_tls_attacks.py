"""TLS under attack: garbage, handshakes that do not go on, renegotiation, and certificates that change under load."""

import asyncio
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import FakeModel
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, chat_body
from support.running import Running, Serve
from support.tls import TlsClient, make_certificate

HANGING_S = 120.0
GARBAGE = [
    b"\x00" * 512, b"\xff" * 512, random.Random(1).randbytes(4096), b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n",
    b"\x16\x03\x01\xff\xff" + b"\x01" * 4096, b"\x16\x03\x01\x00\x05\x01\x00\xff\xff\xff",
    b"\x15\x03\x01\x00\x02\x02\x28",
]  # fmt: skip


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, Any]:
    return make_certificate(tmp_path)


async def served(edge: Running) -> bool:
    async with TlsClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        return (await client.answer(HANGING_S)).clean


async def test_garbage_and_slow_handshakes_keep_nobody_out(serve: Serve, certificate: dict[str, Any]) -> None:
    edge = await serve(server=certificate)
    slow = [RawClient(edge.port) for _ in range(20)]
    for client in slow:
        await client.__aenter__()
        await client.send(b"\x16\x03\x01")
    for data in GARBAGE * 2:
        async with RawClient(edge.port) as client:
            await client.send(data)
            client.half_close()
            await client.ending()
        assert await served(edge)
    for client in slow:
        client.close()
    assert await served(edge)


async def test_certificates_change_under_load_and_nobody_notices(
    serve: Serve, certificate: dict[str, Any], tmp_path: Path
) -> None:
    edge = await serve(server=certificate)
    done = asyncio.Event()

    async def load() -> int:
        count = 0
        while not done.is_set():
            assert await served(edge)
            count += 1
        return count

    loads = [asyncio.create_task(load()) for _ in range(3)]
    for _ in range(10):
        make_certificate(tmp_path)
        await edge.edge.reload(edge.edge.settings)
        await asyncio.sleep(0.02)
    done.set()
    assert min(await asyncio.gather(*loads)) > 0


async def test_renegotiation_is_refused(serve: Serve, fake: FakeModel, certificate: dict[str, Any]) -> None:
    edge = await serve(server=certificate)
    command = shutil.which("openssl")
    assert command is not None
    process = await asyncio.create_subprocess_exec(
        *(command, "s_client", "-tls1_2", "-connect", f"127.0.0.1:{edge.port}"),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with hang_limit():
        told, _ = await process.communicate(b"R\n")
    assert b"RENEGOTIATING" in told
    assert b"no renegotiation" in told
    assert await served(edge)
