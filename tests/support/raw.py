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
        self.buffer = b""

    async def __aenter__(self) -> Self:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        if self._receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        await asyncio.get_running_loop().sock_connect(self.sock, ("127.0.0.1", self._port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()

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
        self.buffer += data
        return data

    async def until(self, mark: bytes, timeout_s: float = LIMIT_S) -> bytes:
        """Read until ``mark`` has come; returns everything received so far."""
        async with hang_limit(timeout_s):
            while mark not in self.buffer:
                if not await self.receive(timeout_s):
                    raise AssertionError(f"the connection ended before {mark!r}: {self.buffer!r}")
        return self.buffer

    async def answer(self, timeout_s: float = LIMIT_S) -> Answer:
        """Read one whole response, however it ends."""
        ending = ""
        async with hang_limit(timeout_s):
            while not ending:
                parsed = parse(self.buffer)
                if parsed is not None and parsed.clean:
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
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    status = int(first.split()[1])
    if headers.get("transfer-encoding") == "chunked":
        body, clean = dechunk(rest)
    elif "content-length" in headers:
        size = int(headers["content-length"])
        body, clean = rest[:size], len(rest) >= size
    else:
        body, clean = rest, status in (204, 304)
    return Answer(status, headers, body, clean, "framed" if clean else "", split_events(body))


def dechunk(data: bytes) -> tuple[bytes, bool]:
    """The body, and whether its last chunk has come."""
    body = b""
    while True:
        size, found, rest = data.partition(b"\r\n")
        if not found:
            return body, False
        count = int(size, 16)
        if count == 0:
            return body, rest.startswith(b"\r\n")
        body += rest[:count]
        if len(rest) < count + 2:
            return body, False
        data = rest[count + 2 :]


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
