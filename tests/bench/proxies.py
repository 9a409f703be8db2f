"""The proxies that are compared: how each is had, configured and started.

In: the model server's URL, a port and a folder. Out: a running ``Proxy``. Must not: measure more than its start.
"""

import asyncio
import atexit
import importlib.metadata
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import wire
from environments import Missing, environment, version
from processes import Process
from procfs import Tree

from edge.cli.bench_load import Target, fetch

_HERE = Path(__file__).parent
_POLL_S = 0.002
_TRY_S = 2.0
_KEY = f"sk-{secrets.token_hex(24)}"  # for this run alone
_NGINX_CONF = """
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream model {{
        server {host}:{model_port};
        keepalive 64;
        keepalive_requests 1000000;
    }}
    server {{
        listen {host}:{port} backlog=4096;
        keepalive_requests 1000000;
        location = /health {{ return 200 "ok"; }}
        location / {{
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 600s;
        }}
    }}
}}
"""
_EDGE_CONF = """
[server]
listen = ["127.0.0.1:{port}"]
[[upstream]]
name = "model"
url = "{model_url}"
"""
_LITELLM_CONF = """
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: {model_url}/v1
      api_key: none
"""


@dataclass(frozen=True)
class Place:
    """What a proxy is given: whom to ask, where to listen, a folder of its own."""

    model_url: str
    port: int
    folder: Path

    @property
    def model_port(self) -> str:
        return self.model_url.rpartition(":")[2]


Command = Callable[[Place], list[str]]


@dataclass(frozen=True)
class Peer:
    """One proxy.

    Attributes:
        find: Returns its version and how it is started for a place; raises ``Missing``.
        health: The path that answers 200 when it runs.
        key: An API key that it insists on.
        path: Where it is asked.
    """

    name: str
    find: Callable[[], tuple[str, Command]]
    health: str = "/health"
    start_s: float = 20.0
    env: Mapping[str, str] = field(default_factory=dict)
    key: str = ""
    path: str = "/v1/chat/completions"


@dataclass(frozen=True)
class Proxy:
    """A running proxy; ``tree`` is None where there is none in between.

    Attributes:
        start_s: From the start of the process to the first 200 of its health path.
    """

    url: str
    tree: Tree | None
    start_s: float | None
    key: str = ""
    path: str = "/v1/chat/completions"


@asynccontextmanager
async def running(peer: Peer, command: Command | None, model_url: str, core: int, folder: Path) -> AsyncIterator[Proxy]:
    """Start a proxy, and end it with all its processes.

    Raises:
        Missing: It does not start.
    """
    if command is None:
        yield Proxy(model_url, None, None)
        return
    place = Place(model_url, _free_port(), folder)
    with Process(command(place), core, folder / f"{peer.name}.log", peer.env) as process:
        url = f"http://127.0.0.1:{place.port}"
        await _healthy(peer, process, Target.parse(url))
        yield Proxy(url, Tree(process.pid), time.monotonic() - process.started, peer.key, peer.path)


async def ready(proxy: Proxy, timeout_s: float) -> None:
    """Wait until the proxy relays: some look for their upstream after they have begun to listen.

    Raises:
        Missing: It does not.
    """
    target = Target.parse(proxy.url, proxy.key)
    request = target.post(proxy.path, wire.Ask(1, 50).body())
    ends, status, body = time.monotonic() + timeout_s, 0, b""
    while time.monotonic() < ends:
        try:
            status, body = await fetch(target, request, _TRY_S)
        except OSError:
            status = 0
        if status == 200:
            return
        await asyncio.sleep(0.05)
    raise Missing(f"does not relay after {timeout_s:.0f} s: status {status} {body[:200].decode(errors='replace')}")


async def _healthy(peer: Peer, process: Process, target: Target) -> None:
    ends, status = time.monotonic() + peer.start_s, 0
    while time.monotonic() < ends:
        if how := process.ended():
            raise Missing(f"does not start: {how}")
        try:
            status, _ = await fetch(target, target.get(peer.health), _TRY_S)
        except OSError:
            status = 0
        if status == 200:
            return
        await asyncio.sleep(_POLL_S)
    raise Missing(f"{peer.health} was not well after {peer.start_s:.0f} s: status {status}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


# --- the peers ------------------------------------------------------------------------------------------------------


def _nginx() -> tuple[str, Command]:
    path = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        raise Missing("not installed (apt-get install nginx-light)")
    said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r"nginx/(\S+)", said)

    def command(place: Place) -> list[str]:
        conf = place.folder / "nginx.conf"
        values = {"folder": place.folder, "host": "127.0.0.1", "port": place.port, "model_port": place.model_port}
        conf.write_text(_NGINX_CONF.format(**values))
        return [path, "-c", str(conf), "-e", str(place.folder / "early.log")]

    return found[1] if found else "?", command


def _plain() -> tuple[str, Command]:
    script = str(_HERE / "peers/plain.py")
    return importlib.metadata.version("aiohttp"), lambda place: [
        sys.executable,
        script,
        str(place.port),
        place.model_url,
    ]


def _edge(more: str = "") -> tuple[str, Command]:
    def command(place: Place) -> list[str]:
        conf = place.folder / "edge.toml"
        conf.write_text(_EDGE_CONF.format(port=place.port, model_url=place.model_url) + more)
        return [sys.executable, "-m", "edge", "serve", "--config", str(conf)]

    return importlib.metadata.version("edge-relay"), command


def _edge_kept(store: str) -> tuple[str, Command]:
    """With every stream kept, so that it can be resumed."""

    def command(place: Place) -> list[str]:
        url = store or f"sqlite:{place.folder / f'{place.port}.db'}"
        conf = place.folder / "edge.toml"
        kept = f'[stream]\nresume = ["chat"]\n[store]\nurl = "{url}"\nprincipal_bytes = {2**26}\n'
        conf.write_text(kept + _EDGE_CONF.format(port=place.port, model_url=place.model_url))
        return [sys.executable, "-m", "edge", "serve", "--config", str(conf)]

    return importlib.metadata.version("edge-relay"), command


def _edge_limits() -> tuple[str, Command]:
    """With all that a request has to pass: a key, limits of every kind, and the queue of an upstream with slots."""
    limits = "requests_per_min = 1000000\ntokens_per_min = 100000000\nconcurrent = 1000\ntokens_per_day = 1000000000\n"
    rules = f'max_concurrency = 64\n[[limit]]\nname = "all"\n{limits}[auth]\nkeys = ["{_KEY}"]\n'
    return _edge(rules)


def _edge_redis() -> tuple[str, Command]:
    """The server is nobody's child that is measured, and ends with this program."""
    program = shutil.which("redis-server")
    if program is None:
        raise Missing("no redis-server here (Debian: apt-get install redis-server)")
    port = _free_port()
    words = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed words
    atexit.register(server.kill)
    return _edge_kept(f"redis://127.0.0.1:{port}/0")


def _fastapi() -> tuple[str, Command]:
    folder = environment("fastapi", ("fastapi==0.165.0", "uvicorn==0.54.0", "httpx==0.28.1", "uvloop", "httptools"))
    python, script = str(folder / "bin/python"), str(_HERE / "peers/fastapi_relay.py")
    return version(folder, "fastapi"), lambda place: [python, script, str(place.port), place.model_url]


def _vllm_router() -> tuple[str, Command]:
    folder = environment("vllm-router", ("vllm-router==0.1.17",))

    def command(place: Place) -> list[str]:
        argv = [str(folder / "bin/vllm-router"), "--worker-urls", place.model_url, "--policy", "round_robin"]
        argv += ["--host", "127.0.0.1", "--port", str(place.port)]
        return [*argv, "--prometheus-port", str(_free_port()), "--log-level", "warning"]

    return version(folder, "vllm-router"), command


def _litellm() -> tuple[str, Command]:
    folder = environment("litellm", ("litellm[proxy]==1.106.0",))

    def command(place: Place) -> list[str]:
        conf = place.folder / "litellm.yaml"
        conf.write_text(_LITELLM_CONF.format(model_url=place.model_url))
        return [str(folder / "bin/litellm"), "--config", str(conf), "--host", "127.0.0.1", "--port", str(place.port)]

    return version(folder, "litellm"), command


def _direct() -> tuple[str, Command]:
    raise AssertionError("nothing is started for it")


PEERS = {
    peer.name: peer
    for peer in (
        Peer("direct", _direct),
        Peer("nginx", _nginx),
        Peer("plain", _plain),
        Peer("edge", _edge),
        # What translation costs: a chat client of an Ollama, and a Messages client of a chat server.
        Peer("edge-ollama", lambda: _edge('surfaces = ["ollama_chat"]\n')),
        Peer("edge-messages", lambda: _edge('surfaces = ["chat"]\n'), path="/v1/messages"),
        # What it costs to know who asks, to count it and to queue it.
        Peer("edge-limits", _edge_limits, key=_KEY),
        # What it costs to keep streams, so that they can be resumed.
        Peer("edge-memory", lambda: _edge_kept("memory:")),
        Peer("edge-sqlite", lambda: _edge_kept("")),
        Peer("edge-redis", _edge_redis),
        Peer("fastapi", _fastapi),
        Peer("vllm-router", _vllm_router, start_s=30.0),
        Peer(
            "litellm",
            _litellm,
            health="/health/liveliness",
            start_s=90.0,
            key=_KEY,
            env={
                "LITELLM_MASTER_KEY": _KEY,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_TELEMETRY": "False",
                "LITELLM_LOG": "ERROR",
            },
        ),
    )
}
