"""Without a boot: a socket handed over as systemd does it, and an ear in systemd's place."""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.cli import environment
from support.debian import Absent, need
from support.hanging import hang_limit
from support.notified import Ear
from support.shapes import get


@pytest.fixture(scope="module")
def activate() -> str:
    """The program that holds a socket and starts another for its first connection."""
    try:
        (path,) = need("systemd-socket-activate")
    except Absent as error:
        pytest.skip(f"NO SOCKET WAS HANDED OVER: {error}")
    return path


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def activated(activate: str, port: int, tmp_path: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Ear]]:
    """Edge, to be started by the first connection; and what it tells."""
    with Ear(str(tmp_path / "notify")) as ear:
        given = {"NOTIFY_SOCKET": ear.address, "WATCHDOG_USEC": "500000", "EDGE_DISCOVERY_ENABLED": "false"}
        handed = [f"--setenv={name}={value}" for name, value in given.items()]
        process = await asyncio.create_subprocess_exec(
            *(activate, f"--listen=127.0.0.1:{port}", *handed),
            *(sys.executable, "-m", "edge", "serve", "--listen", "systemd"),
            env=environment(),
            stderr=asyncio.subprocess.DEVNULL,
        )
        yield process, ear
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_first_connection_starts_it_and_is_answered(
    port: int, activated: tuple[asyncio.subprocess.Process, Ear]
) -> None:
    process, ear = activated
    async with hang_limit():
        while not await _listens(port):
            await asyncio.sleep(0.02)
    assert (await ear.next("READY"))["STATUS"] == "0 streams; upstreams: none yet"
    assert (await get(port, "/health")).status == 200
    await ear.next("WATCHDOG")
    process.send_signal(signal.SIGTERM)  # it has become Edge
    assert int((await ear.next("STOPPING"))["EXTEND_TIMEOUT_USEC"]) > 0
    assert await process.wait() == 0


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True
