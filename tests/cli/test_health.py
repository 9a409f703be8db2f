"""``edge health``: the exit status that a container's health check goes by."""

import http.client
import signal
import socket
import ssl
from pathlib import Path

import pytest
from support.cli import run, run_code, serving
from support.tls import make_certificate

from edge.cli.health import _given


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


@pytest.mark.parametrize("told", ["variable", "file", "url"])
async def test_it_asks_over_tls_whatever_the_certificate_is(tmp_path: Path, told: str) -> None:
    """Here one of our own that nobody has signed. It is told by a variable, or in a file that the command knows not."""
    certificate = make_certificate(tmp_path)
    file = tmp_path / "edge.toml"
    file.write_text(f'[server]\ntls_cert = "{certificate["tls_cert"]}"\ntls_key = "{certificate["tls_key"]}"\n')
    async with serving("--config", str(file)) as edge:
        listen = f"127.0.0.1:{edge.port}"
        variables = {"EDGE_SERVER_LISTEN": listen, "EDGE_SERVER_TLS_CERT": certificate["tls_cert"]}
        if told != "variable":
            del variables["EDGE_SERVER_TLS_CERT"]
        done = await run("health", *(["--url", f"https://{listen}"] if told == "url" else []), **variables)
        assert (done.status, done.out, done.err) == (0, "", "")


async def test_a_host_that_is_not_this_one_has_to_prove_who_it_is() -> None:
    connection = _given("https://llm.example.com")
    assert isinstance(connection, http.client.HTTPSConnection)
    context: ssl.SSLContext = connection._context  # type: ignore[attr-defined] # http.client tells nobody
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)


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
        ("", "127.0.0.1:0", "EDGE_SERVER_LISTEN does not say where Edge is: give --url"),
    ],
)
async def test_what_says_nothing_of_where_is_one_clear_line(url: str, listen: str, why: str) -> None:
    done = await run("health", *(["--url", url] if url else []), EDGE_SERVER_LISTEN=listen)
    assert (done.status, done.err_lines) == (1, [f"edge: not healthy: {why}"])


async def test_it_does_not_import_what_serving_needs() -> None:
    code = "import sys, edge.cli.health; print({'aiohttp', 'asyncio', 'uvloop', 'openai', 'rich'} & set(sys.modules))"
    assert (await run_code(code)).out.strip() == "set()"
