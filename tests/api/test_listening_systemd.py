"""Sockets that systemd opened, several of several kinds: each speaks what its kind speaks.

Its way to pass them is a few lines, so that no systemd is needed.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.cli import Serving, environment
from support.tls import TlsClient, make_certificate
from support.unix import UnixClient

ACTIVATE = """
import fcntl, os, sys
given = [int(number) for number in sys.argv[1].split(",")]
for place, number in enumerate([fcntl.fcntl(number, fcntl.F_DUPFD, 64) for number in given]):
    os.dup2(number, 3 + place)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(given))}
os.execv(sys.executable, [sys.executable, "-m", "edge", "serve", "--listen", "systemd"])
"""


@asynccontextmanager
async def activated(*sockets: socket.socket, **variables: str) -> AsyncIterator[Serving]:
    """An ``edge serve`` that was given these sockets."""
    numbers = [sock.fileno() for sock in sockets]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ACTIVATE, ",".join(map(str, numbers))),
        env=environment(**variables), pass_fds=numbers, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    one = Serving(process)
    try:
        one.url = (await one.line("listening"))["addresses"][0]
        yield one
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_tcp_sockets_speak_tls_and_unix_sockets_do_not(tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    files = make_certificate(tmp_path)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(str(path))
        for sock in (tcp, unix):
            sock.listen()
        tls = {"EDGE_SERVER_TLS_CERT": files["tls_cert"], "EDGE_SERVER_TLS_KEY": files["tls_key"]}
        async with activated(tcp, unix, **tls) as edge:
            assert edge.url == f"https://127.0.0.1:{tcp.getsockname()[1]}"
            for client in (TlsClient(edge.port), UnixClient(path)):
                async with client:
                    await client.get("/health")
                    assert (await client.answer()).status == 200
            assert (await edge.signalled(signal.SIGTERM)).status == 0
    assert path.is_socket()  # it is systemd's, which goes on listening


async def test_a_socket_for_both_families_shows_clients_by_the_address_that_they_have() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("SOCKETS FOR BOTH FAMILIES WERE NOT TRIED: there is no IPv6 here")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as both:
        port = both.getsockname()[1]
        async with activated(both) as edge:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /nowhere HTTP/1.0\r\n\r\n")
            await reader.read()
            writer.close()
            assert (await edge.line("refused"))["client"] == "127.0.0.1"
