"""The one fake model server: scripted per request, byte by byte, over a real loopback socket.

In: a test's script, and requests. Out: what the script says, and a record of what was received.
Must not: use an HTTP library (it has to be able to break HTTP), sleep, or leave a task or socket behind.

    async with FakeModel() as fake:
        fake.script(head(), chunk(chat_token("Hi")), gate("more"), chunk(DONE), end())
        ...                            # the test lets Edge talk to fake.url
        request = await fake.request(0)
        fake.open("more")
        assert await request.left() == "reset"

A script is a list of steps; each POST takes the first queued script whose path fits, else what ``fake.answer`` makes of
it: a short valid answer, unless a test sets another. A peer that leaves (FIN or RST) ends the running script, as it
would end a model server's handler.
"""

import asyncio
import socket
import struct
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self

import orjson

# Steps and content belong to the fake's vocabulary: a test imports all of it from here.
from fakes import ollama
from fakes.answers import *  # noqa: F403
from fakes.answers import models_body, short_answer
from fakes.steps import *  # noqa: F403
from fakes.steps import Step, json_answer, pause_reading, stream_answer, turns, whole
from multidict import CIMultiDict
from support.hanging import HANG_S, hang_limit

LIMIT_S = HANG_S
_RECEIVE_BUFFER = 64 * 1024  # so that a server that does not read is felt by the sender early
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds

Left = Literal["fin", "reset", "closed"]


class Request:
    """One received request.

    Attributes:
        written: Bytes of the answer that the kernel has taken.
        connection: Number of the connection it came on, from 0; equal numbers mean reuse.
    """

    def __init__(self, connection: "Connection", method: str, path: str, headers: CIMultiDict[str]) -> None:
        self._connection = connection
        self.connection = connection.number
        self.method, self.path, self.headers = method, path, headers
        self.body = b""
        self.written = 0

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def live(self) -> bool:
        """Its connection still stands."""
        return not self._connection.left.done()

    async def left(self, timeout_s: float = LIMIT_S) -> Left:
        """Wait until the connection is over: the peer's ``fin`` or ``reset``, or ``closed`` by the script."""
        self._connection.discard()
        async with hang_limit(timeout_s):
            return await asyncio.shield(self._connection.left)

    async def settled(self, quiet_s: float = 0.3) -> int:
        """Wait until the peer has taken nothing for ``quiet_s``; returns the bytes written so far."""
        before = -1
        while before != self.written:
            before = self.written
            await asyncio.sleep(quiet_s)  # only time can show that nothing happens
        return before

    def __repr__(self) -> str:
        return f"<{self.method} {self.path} on connection {self.connection}, {self.written} B written>"


class Connection(asyncio.Protocol):
    """One accepted connection: reads requests, runs their scripts."""

    transport: asyncio.Transport
    task: asyncio.Task[None]

    def __init__(self, fake: "FakeModel") -> None:
        self.fake = fake
        self.number = 0
        self.request: Request | None = None
        self.chunked = False
        self.left: asyncio.Future[Left] = asyncio.get_running_loop().create_future()
        self.lost = asyncio.Event()
        self._buffer = bytearray()
        self._discard = False
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not asyncio.Transport to isinstance().
        self.transport = transport
        transport.set_write_buffer_limits(high=0)
        self.number = len(self.fake.connections)
        self.fake.connections.append(self)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        if not self._discard:
            self._buffer += data
            self._more.set()

    def eof_received(self) -> bool:
        self._leave("fin")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave("closed" if exc is None else "reset")
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def discard(self) -> None:
        """Read again after ``no_read``, and throw it away: an end is only seen by reading."""
        self._discard = self._discard or not self.transport.is_reading()
        if not self.transport.is_closing():
            self.transport.resume_reading()

    async def write(self, data: bytes) -> None:
        """Write, and wait until the kernel has all of it."""
        self.transport.write(data)
        await self._writable.wait()
        if self.request is not None:
            self.request.written += len(data)

    def close(self, *, reset: bool = False) -> None:
        if not reset:
            self.transport.close()
            return
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.transport.abort()

    def promises(self) -> dict[str, str]:
        headers = {} if self.fake.server_header is None else {"Server": self.fake.server_header}
        return {**headers, "Keep-Alive": "timeout=5, max=100"} if self.fake.close_after_answer else headers

    async def pass_gate(self, name: str) -> None:
        await self.fake.pass_gate(name)

    async def read_body(self) -> None:
        self.transport.resume_reading()
        if self.request is not None:
            self.request.body = await self._body(self.request.headers)

    def _leave(self, how: Left) -> None:
        if not self.left.done():
            self.left.set_result(how)
        self.task.cancel()
        self.transport.close()

    async def _serve(self) -> None:
        try:
            while not self.transport.is_closing():
                request = await self._head()
                if self.request is not None and self.fake.reuse != "serve":
                    self.fake.hung_up += 1
                    return self.close(reset=self.fake.reuse == "rst")
                self.request = request
                await self._answer(request)
                if self.fake.close_after_answer:
                    self.close()
        except Exception as error:  # noqa: BLE001 - a faulty script must fail its test, not vanish in a task
            self.fake.failures.append(error)
            self.transport.abort()

    async def _answer(self, request: Request) -> None:
        if request.method in ("POST", "DELETE"):
            steps = self.fake.take(request.path)
            if steps is None or steps[0] is not pause_reading:
                request.body = await self._body(request.headers)
            self.fake.received(request)
            steps = self.fake.answer(request) if steps is None else steps
        else:
            self.fake.gets.append(request)
            steps = self.fake.get_steps(request.path)
        self.chunked = False
        for step in steps:
            if self.transport.is_closing():
                return
            await step(self)

    async def _head(self) -> Request:
        raw = await self._until(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        pairs = (line.partition(":") for line in lines)
        return Request(self, method, path, CIMultiDict((name, value.strip()) for name, _, value in pairs))

    async def _body(self, headers: Mapping[str, str]) -> bytes:
        if "chunked" not in headers.get("Transfer-Encoding", "").lower():
            return await self._exactly(int(headers.get("Content-Length", "0")))
        body = b""
        while size := int(await self._until(b"\r\n"), 16):
            body += (await self._exactly(size + 2))[:-2]
        await self._until(b"\r\n")
        return body

    async def _until(self, mark: bytes) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            await self._receive()
        return (await self._exactly(at + len(mark)))[:at]

    async def _exactly(self, count: int) -> bytes:
        while len(self._buffer) < count:
            await self._receive()
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    async def _receive(self) -> None:
        self._more.clear()
        await self._more.wait()


class FakeModel:
    """The server; use as an async context manager.

    Attributes:
        requests: POSTs and DELETEs received whole, in order. GETs, which a prober may send any time, are in ``gets``.
        answer: The steps for a POST that has no script.
        models: What ``GET /v1/models`` lists.
        get: Answers to other GETs: path -> (status, headers, body); 404 where there is none.
        server_header: The ``Server`` header that ``head()`` sends, if any.
        close_after_answer: Promise keep-alive, then close after every answer, as llama.cpp does.
        reuse: What a further request on a used connection meets: ``serve`` it, or a close (``fin``, ``rst``).
        hung_up: How often ``reuse`` closed instead of serving.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.gets: list[Request] = []
        self.connections: list[Connection] = []
        self.failures: list[Exception] = []
        self.answer: Callable[[Request], list[Step]] = default_steps
        self.models = ["m"]
        self.get: dict[str, tuple[int, Mapping[str, str], bytes]] = {}
        self.server_header: str | None = None
        self.close_after_answer = False
        self.reuse: Literal["serve", "fin", "rst"] = "serve"
        self.hung_up = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._scripts: list[tuple[str | None, tuple[Step, ...]]] = []
        self._gates: defaultdict[str, tuple[asyncio.Event, asyncio.Event]] = defaultdict(
            lambda: (asyncio.Event(), asyncio.Event())
        )
        self._arrived = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()
        for connection in self.connections:
            connection.task.cancel()
            connection.transport.abort()
        for connection in self.connections:
            await connection.lost.wait()
            await asyncio.wait([connection.task])
        if self.failures:
            raise self.failures[0]

    async def listen(self) -> None:
        """Accept connections; after ``refuse``, on the same port again."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        listener.bind(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self), sock=listener, backlog=512
        )

    async def refuse(self) -> None:
        """Close the listener: new connections are refused, the others go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await turns()  # uvloop closes it in the next turn

    def script(self, *steps: Step, path: str | None = None) -> None:
        """Queue the behaviour for the next POST (to ``path``, if given) that has none yet."""
        assert steps, "a script has at least one step; stall() is the one that does nothing"
        self._scripts.append((path, steps))

    def open(self, name: str) -> None:
        """Let the script that waits, or will wait, at this gate go on."""
        self._gates[name][1].set()

    async def reached(self, name: str, timeout_s: float = LIMIT_S) -> None:
        """Wait until a script has come to this gate."""
        async with hang_limit(timeout_s):
            await self._gates[name][0].wait()

    async def request(self, index: int, timeout_s: float = LIMIT_S) -> Request:
        """Wait for the POST with this index."""
        async with hang_limit(timeout_s):
            while len(self.requests) <= index:
                self._arrived.clear()
                await self._arrived.wait()
        return self.requests[index]

    @property
    def live(self) -> int:
        """Connections that stand."""
        return sum(not connection.left.done() for connection in self.connections)

    def received(self, request: Request) -> None:
        self.requests.append(request)
        self._arrived.set()

    def take(self, path: str) -> tuple[Step, ...] | None:
        for index, (wanted, steps) in enumerate(self._scripts):
            if wanted in (None, path):
                del self._scripts[index]
                return steps
        return None

    def get_steps(self, path: str) -> list[Step]:
        if path in self.get:
            status, headers, body = self.get[path]
            return whole(body, status, headers)
        if path == "/v1/models":
            return json_answer(models_body(self.models))
        return json_answer(NOT_FOUND, 404)

    async def pass_gate(self, name: str) -> None:
        reached, opened = self._gates[name]
        reached.set()
        await opened.wait()


NOT_FOUND = {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}


def default_steps(request: Request) -> list[Step]:
    """What a POST without a script gets: a short valid stream or JSON body for its surface, or 404."""
    if request.path in ("/api/chat", "/api/generate"):
        return ollama.short_answer(request.path, request.json)
    answer = short_answer(request.path, request.json)
    if answer is None:
        return json_answer(NOT_FOUND, 404)
    return stream_answer(answer) if isinstance(answer, list) else json_answer(answer)
