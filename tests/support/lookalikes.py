"""Servers as they answer a look, on real loopback sockets: each kind of model server, and what else lives on its port.

In: what a test wants to stand on a port. Out: a running server that can be stopped, changed, and asked who called.
Must not: generate anything.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer
from structlog.testing import LogCapture

from edge.settings import Discovery, Settings, Upstream
from edge.upstream.fleet import Fleet


def cards(*ids: str, **fields) -> list[dict]:
    return [{"id": name, "object": "model", "created": 1700000000, **fields} for name in ids]


class Lookalike:
    """Answers GET by exact path; anything else is a 404. Change ``routes`` to change its mind."""

    def __init__(self, port: int = 0, *, server: str = "uvicorn", **routes) -> None:
        self.routes = {"/" + path.replace("__", "/"): answer for path, answer in routes.items()}
        self.asked: list[str] = []
        self.seen_headers: list = []
        self._server_header = server
        self.port = port
        self.called = asyncio.Event()
        self._hang = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._server = TestServer(app, host="127.0.0.1", port=self.port)
        await self._server.start_server(shutdown_timeout=0.01)
        self.port = self._server.port
        return self

    async def __aexit__(self, *_: object) -> None:
        self._hang.set()
        await self._server.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        self.called.set()
        self.seen_headers.append(request.headers)
        answer = self.routes.get(request.path, (404, {"detail": "Not Found"}))
        if answer == "hang":
            await self._hang.wait()
            answer = (500, "")
        status, body = answer if isinstance(answer, tuple) else (200, answer)
        headers = {"Server": self._server_header, "Location": "/elsewhere"}
        if isinstance(body, str):
            return web.Response(status=status, text=body, content_type="text/html", headers=headers)
        return web.json_response(body, status=status, headers=headers)


def listing(*ids: str, **fields) -> dict:
    return {"object": "list", "data": cards(*ids, **fields)}


def llama_cpp(*ids: str, port: int = 0) -> Lookalike:
    return Lookalike(port, server="llama.cpp", v1__models=listing(*(ids or ("tiny",)), owned_by="llamacpp"))


def vllm(*ids: str, port: int = 0) -> Lookalike:
    return Lookalike(port, v1__models=listing(*(ids or ("org/big",)), owned_by="vllm"), version={"version": "0.19.0"})


def sglang(port: int = 0) -> Lookalike:
    return Lookalike(port, v1__models=listing("sgl", owned_by="sglang"))


def lm_studio(port: int = 0) -> Lookalike:
    own = listing("qwen", type="llm", arch="qwen2", state="not-loaded")
    return Lookalike(port, server="", v1__models=listing("qwen", owned_by="someone"), api__v0__models=own)


def ollama(*ids: str, port: int = 0) -> Lookalike:
    models = {"object": "list", "data": cards(*ids, owned_by="library") or None}
    known = Lookalike(port, server="", v1__models=models, api__version={"version": "0.9"})
    known.routes["/"] = "Ollama is running"
    details = {"family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
    known.routes["/api/tags"] = {"models": [{"name": name, "model": name, "details": details} for name in ids]}
    return known


def edge(port: int = 0) -> Lookalike:
    return Lookalike(port, server="edge/9.9", v1__models=listing("m", owned_by="vllm"))


def jupyter(port: int = 0) -> Lookalike:
    known = Lookalike(port, server="TornadoServer/6.4")
    known.routes["/"] = "<html><head><title>Jupyter Server</title></head></html>"
    return known


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Way:
    """The way to a member, as the fleet sees it: something that has to be closed."""

    def __init__(self, pool, settings, member) -> None:
        self.name, self.surfaces = settings.name, member.surfaces
        self.pool, self.settings, self.member = pool, settings, member
        self.closed = 0

    def open(self, call, sink):
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1


class Log(LogCapture):
    """What was told."""

    def __init__(self) -> None:
        super().__init__()
        self.logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[self])

    @property
    def events(self) -> list[str]:
        return [entry["event"] for entry in self.entries]


@asynccontextmanager
async def fleet_of(*upstreams: Upstream, ports=(), own_ports=frozenset(), log: Log | None = None, enabled=True):
    """A fleet that looks only when it is told to."""
    settings = Settings(
        upstream=list(upstreams), discovery=Discovery(ports=list(ports), interval_s=3600, enabled=enabled)
    )
    fleet = Fleet(settings, Way, log=(log or Log()).logger, own_ports=own_ports)
    try:
        yield fleet
    finally:
        await fleet.close()


@asynccontextmanager
async def raw_server(handler) -> AsyncIterator[str]:
    """A server that need not speak HTTP."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
