"""``edge health``: the exit status that a container's health check goes by."""

import signal
import socket
from pathlib import Path

import pytest
from support.cli import run, run_code, serving


async def test_it_asks_where_the_environment_says_that_edge_listens() -> None:
    """Everywhere is reached by loopback; of several addresses, the first that tells a place."""
    async with serving("--listen", "0.0.0.0:0", EDGE_AUTH_ALLOW_ANONYMOUS="true") as edge:
        done = await run("health", EDGE_SERVER_LISTEN=f"systemd, 0.0.0.0:{edge.port}")
        assert (done.status, done.out, done.err) == (0, "", "")


async def test_it_asks_over_a_unix_socket(tmp_path: Path) -> None:
    unix = f"unix:{tmp_path}/edge.sock"
    async with serving("--listen", unix):
        assert (await run("health", EDGE_SERVER_LISTEN=unix)).status == 0


async def test_it_asks_the_url_it_is_given() -> None:
    async with serving() as edge:
        assert (await run("health", "--url", f"http://127.0.0.1:{edge.port}")).status == 0
        await edge.signalled(signal.SIGTERM)
        done = await run("health", "--url", f"http://127.0.0.1:{edge.port}")
    assert (done.status, done.err_lines) == (1, ["edge: not healthy: Connection refused"])


async def test_a_process_that_hangs_is_not_healthy() -> None:
    """The kernel still connects for it."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        done = await run("health", "--url", f"http://127.0.0.1:{hung.getsockname()[1]}")
    assert (done.status, done.err_lines) == (1, ["edge: not healthy: timed out"])


@pytest.mark.parametrize(
    ("url", "listen", "why"),
    [
        ("ftp://127.0.0.1:1", "", "--url must be http://HOST:PORT or https://HOST:PORT"),
        ("127.0.0.1:1", "", "--url must be http://HOST:PORT or https://HOST:PORT"),
        ("", "127.0.0.1:0", "EDGE_SERVER_LISTEN does not tell where Edge is: give --url"),
    ],
)
async def test_what_says_nothing_of_where_is_one_clear_line(url: str, listen: str, why: str) -> None:
    done = await run("health", *(["--url", url] if url else []), EDGE_SERVER_LISTEN=listen)
    assert (done.status, done.err_lines) == (1, [f"edge: not healthy: {why}"])


async def test_it_does_not_import_what_serving_needs() -> None:
    code = "import sys, edge.cli.health; print({'aiohttp', 'asyncio', 'uvloop', 'openai', 'rich'} & set(sys.modules))"
    assert (await run_code(code)).out.strip() == "set()"
