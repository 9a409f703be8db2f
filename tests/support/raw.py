"""Raw downstream clients: they see every byte, and can stall, half-close or reset."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from support.hanging import HANG_S, hang_limit

LIMIT_S = HANG_S
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = "/v1/messages"
RESPONSES = "/v1/responses"
EMBEDDINGS = "/v1/embeddings"


def chat_body(*, stream: bool = True, **extra: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **extra}


@dataclass
class Answer:
    """A whole response. ``clean``: it ended as HTTP/1.1 says; else how the connection ended instead."""

    status: int
    headers: dict[str, str]
    body: bytes
    clean: bool
    ending: str  # "framed" (by its framing), "eof" or "reset"
    events: list[bytes] = field(default_factory=list)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


class RawClient:
    """One connection, driven by hand.

    Args:
        receive_buffer: SO_RCVBUF; small ones make a reader that stops be felt early.
    """

    def __init__(self, port: int, receive_buffer: int | None = None) -> None:
        self._port = port
        self._receive_buffer = receive_buffer
        self.sock: socket.socket
        self.received = bytearray()  # grows in place: megabytes come in small pieces

    async def __aenter__(self) -> Self:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if self._receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        await asyncio.get_running_loop().sock_connect(self.sock, ("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def buffer(self) -> bytes:
        """What has been received; set it to ``b""`` before the next answer on the same connection."""
        return bytes(self.received)

    @buffer.setter
    def buffer(self, data: bytes) -> None:
        self.received = bytearray(data)

    async def send(self, data: bytes) -> None:
        async with hang_limit():
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None, version: str = "1.1") -> None:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        head = {
            "Host": "localhost",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        await self.send(f"POST {path} HTTP/{version}\r\n{lines}\r\n".encode() + data)

    async def get(self, path: str, headers: Mapping[str, str] | None = None, method: str = "GET") -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "localhost", **(headers or {})}.items())
        await self.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode())

    async def receive(self, timeout_s: float = LIMIT_S) -> bytes:
        """One read; empty at the end. Raises ConnectionResetError on a reset."""
        async with hang_limit(timeout_s):
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
        self.received += data
        return data

    async def until(self, mark: bytes, timeout_s: float = LIMIT_S) -> bytes:
        """Read until ``mark`` has come; returns everything received so far."""
        async with hang_limit(timeout_s):
            while mark not in self.received:
                if not await self.receive(timeout_s):
                    raise AssertionError(f"the connection ended before {mark!r}: {self.buffer!r}")
        return self.buffer

    async def answer(self, timeout_s: float = LIMIT_S) -> Answer:
        """Read one whole response, however it ends."""
        ending = ""
        end = End()
        async with hang_limit(timeout_s):
            while not ending:
                if end.has_come(self.received):
                    parsed = parse(self.buffer)
                    assert parsed is not None
                    return parsed
                try:
                    if not await self.receive(timeout_s):
                        ending = "eof"
                except ConnectionResetError:
                    ending = "reset"
        parsed = parse(self.buffer)
        if parsed is None:
            return Answer(0, {}, self.buffer, clean=False, ending=ending)
        parsed.ending = ending
        return parsed

    async def ending(self) -> str:
        """Read to the end, and tell which it was: ``eof`` or ``reset``."""
        try:
            while await self.receive():
                pass
        except ConnectionResetError:
            return "reset"
        return "eof"

    def half_close(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        with suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


def parse(data: bytes) -> Answer | None:
    """What has come of a response; None before the end of its head."""
    head, found, rest = data.partition(b"\r\n\r\n")
    if not found:
        return None
    status, headers = parse_head(head)
    if headers.get("transfer-encoding") == "chunked":
        body, clean = dechunk(rest)
    elif "content-length" in headers:
        size = int(headers["content-length"])
        body, clean = rest[:size], len(rest) >= size
    else:
        body, clean = rest, status in (204, 304)
    return Answer(status, headers, body, clean, "framed" if clean else "", split_events(body))


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """The status and the headers, their names in lower case."""
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers


class Chunks:
    """Walks along a chunked body that grows, and looks at no byte twice."""

    def __init__(self, at: int = 0) -> None:
        self.at = at  # where the next chunk begins
        self.spans: list[tuple[int, int]] = []  # what the chunks hold; the last may not have come whole

    def end_has_come(self, data: bytes | bytearray) -> bool:
        """Walk on to the end of what has come."""
        while (line_ends := data.find(b"\r\n", self.at)) >= 0:
            size = int(data[self.at : line_ends], 16)
            begins, ends = line_ends + 2, line_ends + 2 + size
            if size == 0:
                return data.startswith(b"\r\n", begins)
            if len(data) < ends + 2:
                break
            self.spans.append((begins, ends))
            self.at = ends + 2
        return False

    def begun(self, data: bytes) -> bytes:
        """What has come of a chunk that is not whole."""
        line_ends = data.find(b"\r\n", self.at)
        return b"" if line_ends < 0 else data[line_ends + 2 :][: int(data[self.at : line_ends], 16)]


class End:
    """Has the whole response come? To be asked again whenever more of it has."""

    def __init__(self) -> None:
        self._size: int | None = None
        self._chunks: Chunks | None = None
        self._head_has_come = False

    def has_come(self, data: bytearray) -> bool:
        """As ``parse`` finds it, which goes through all of it each time."""
        if not self._head_has_come:
            ends = data.find(b"\r\n\r\n")
            if ends < 0:
                return False
            self._head_has_come = True
            status, headers = parse_head(bytes(data[:ends]))
            if headers.get("transfer-encoding") == "chunked":
                self._chunks = Chunks(ends + 4)
            elif "content-length" in headers:
                self._size = ends + 4 + int(headers["content-length"])
            elif status in (204, 304):
                self._size = 0
        if self._chunks is not None:
            return self._chunks.end_has_come(data)
        return self._size is not None and len(data) >= self._size


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """The body, and whether its last chunk has come."""
    chunks = Chunks()
    whole = chunks.end_has_come(data)
    return b"".join([*(data[begins:ends] for begins, ends in chunks.spans), chunks.begun(data)]), whole


def split_events(body: bytes) -> list[bytes]:
    """LF events with their blank line; what follows the last blank line is left out."""
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


async def ask(
    port: int,
    path: str,
    body: Any,
    headers: Mapping[str, str] | None = None,
    version: str = "1.1",
    timeout_s: float = LIMIT_S,
) -> Answer:
    """One request on a connection of its own."""
    async with RawClient(port) as client:
        await client.post(path, body, headers, version)
        return await client.answer(timeout_s)
