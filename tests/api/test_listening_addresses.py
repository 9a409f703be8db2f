"""Several addresses at once, of every kind."""

import asyncio
import socket
from pathlib import Path

import pytest
from support.running import Serve
from support.shapes import get
from support.unix import UnixClient


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


async def test_ipv4_ipv6_and_unix_sockets_at_once(serve: Serve, tmp_path: Path) -> None:
    if not has_ipv6():
        pytest.skip("IPV6 WAS NOT TRIED: there is none here")
    path = tmp_path / "edge.sock"
    edge = await serve(server={"listen": ["127.0.0.1:0", "[::1]:0", f"unix:{path}"]})
    four, six, unix = edge.edge.listener.addresses
    assert four == f"http://127.0.0.1:{edge.port}"
    assert unix == f"unix:{path}"
    assert (await get(edge.port, "/nowhere")).status == 404
    assert six.startswith("http://[::1]:")
    reader, writer = await asyncio.open_connection("::1", int(six.rsplit(":", 1)[1]))
    writer.write(b"GET /nowhere HTTP/1.0\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 404")
    writer.close()
    async with UnixClient(path) as client:
        await client.get("/nowhere")
        assert (await client.answer()).status == 404
    clients = [line["client"] for line in await edge.lines.wait("refused", 3)]
    assert clients == ["127.0.0.1", "::1", "unix"]
