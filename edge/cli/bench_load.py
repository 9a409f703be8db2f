"""The load client of ``edge bench`` and of the benchmark: HTTP/1.1 on a bare protocol, so that it costs little.

In: a target, requests, and an ``Answer`` for each. Out: calls of that answer as status, body bytes and the end arrive,
each with the time. Must not: look into a body, keep one, retry, or follow a redirect.
"""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import urlsplit

from typing_extensions import override

HEAD_BYTES = 65536
_HEAD_END = b"\r\n\r\n"


class Answer:
    """Follows one answer. Times are ``time.monotonic()``."""

    __slots__ = ()

    def began(self, status: int, now: float) -> None:
        """The head is there."""
        raise NotImplementedError

    def took(self, data: bytes, now: float) -> None:
        """A piece of the body, without its framing."""
        raise NotImplementedError

    def ended(self, fault: str | None, now: float) -> None:
        """The last call: the body is whole (``None``), or why it is not."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Target:
    """Where requests go.

    Attributes:
        base: What precedes ``/v1/…`` in the path.
    """

    host: str
    port: int
    base: str = ""
    tls: ssl.SSLContext | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, url: str, api_key: str = "") -> "Target":
        """Read ``http(s)://HOST[:PORT][/…][/v1]``.

        Raises:
            ValueError: This is no such URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not http://HOST:PORT or https://…")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        base = parts.path.rstrip("/").removesuffix("/v1")
        return cls(parts.hostname, parts.port or (443 if tls else 80), base, tls, headers)

    def post(self, path: str, body: bytes) -> bytes:
        """The bytes of a POST of JSON."""
        return self._head("POST", path, {"Content-Type": "application/json", "Content-Length": str(len(body))}) + body

    def get(self, path: str) -> bytes:
        """The bytes of a GET."""
        return self._head("GET", path, {})

    def _head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {self.base}{path} HTTP/1.1", f"Host: {host}:{self.port}", "Accept: */*"]
        lines += [f"{name}: {value}" for name, value in {**headers, **self.headers}.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Malformed(ValueError):
    """What arrived is not HTTP/1.1."""


class _Body(Protocol):
    done: bool

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``."""


class _Chunked:
    def __init__(self) -> None:
        self.done = False
        self._left = 0  # of the current chunk, with the line end behind it
        self._last = False
        self._partial = b""  # of a size line

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        at, size, parts = 0, len(data), []
        while at < size and not self.done:
            if self._left == 0:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._partial = data[at:]
                    break
                self._left = _size(data[at:end]) + 2
                self._last = self._left == 2
                at = end + 2
            if self._left > 2:
                piece = data[at : at + self._left - 2]
                parts.append(piece)
                at += len(piece)
                self._left -= len(piece)
            if self._left <= 2:
                skipped = min(self._left, size - at)
                at += skipped
                self._left -= skipped
                self.done = self._last and self._left == 0
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _size(line: bytes) -> int:
    try:
        return int(line.partition(b";")[0], 16)
    except ValueError:
        raise Malformed(f"{line[:40]!r} is no chunk size") from None


class _Sized:
    def __init__(self, left: int) -> None:
        self._left = left
        self.done = left == 0

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``."""
        self._left -= len(data)
        if self._left < 0:
            raise Malformed("more came than Content-Length says")
        self.done = self._left == 0
        return data


class _UntilClose:
    done = False

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``."""
        return data


class Connection(asyncio.Protocol):
    """One connection, for one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.reusable = False  # another request can be sent
        self._answer: Answer | None = None
        self._head = b""
        self._body: _Body | None = None
        self._closes = False

    @classmethod
    async def open(cls, target: Target) -> "Connection":
        """Connect.

        Raises:
            OSError: It cannot be reached.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(cls, target.host, target.port, ssl=target.tls)
        return connection

    def ask(self, request: bytes, answer: Answer) -> None:
        """Send a request; ``answer`` gets all that follows."""
        self.reusable = False
        self._answer, self._head, self._body, self._closes = answer, b"", None, False
        self.transport.write(request)

    @property
    def idle(self) -> bool:
        """Nothing is being answered."""
        return self._answer is None

    def leave(self) -> None:
        """Drop the connection; the answer gets nothing more."""
        self._answer = None
        self.transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self.reusable = True

    @override
    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        answer = self._answer
        if answer is None:
            return
        try:
            self._take(answer, data, now)
        except Malformed as error:
            self._end(f"not HTTP/1.1: {error}", now)
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if isinstance(self._body, _UntilClose) and exc is None:
            self._end(None, time.monotonic())
        else:
            where = "before an answer" if self._body is None else "in the middle of the answer"
            self._end(f"connection {'closed' if exc is None else 'broken'} {where}", time.monotonic())

    def _take(self, answer: Answer, data: bytes, now: float) -> None:
        body = self._body
        if body is None:
            self._head += data
            head, found, data = self._head.partition(_HEAD_END)
            if not found:
                if len(self._head) > HEAD_BYTES:
                    raise Malformed("no end of the headers")
                return
            body = self._begin(answer, head, now)
        if data and (payload := body.feed(data)):
            answer.took(payload, now)
        if body.done:
            self.reusable = not self._closes
            self._end(None, now)

    def _begin(self, answer: Answer, head: bytes, now: float) -> _Body:
        first, *lines = head.split(b"\r\n")
        words = first.split(b" ", 2)
        if not words[0].startswith(b"HTTP/1.") or len(words) < 2 or not words[1].isdigit():
            raise Malformed(f"{first[:40]!r} is no status line")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        self._closes = headers.get(b"connection", b"").lower() == b"close"
        if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._body = _Chunked()
        elif b"content-length" in headers:
            self._body = _Sized(int(headers[b"content-length"]))
        else:
            self._body = _UntilClose()
        answer.began(int(words[1]), now)
        return self._body

    def _end(self, fault: str | None, now: float) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.ended(fault, now)


class Collected(Answer):
    """An answer of a few bytes, kept whole; see ``Answer``."""

    def __init__(self) -> None:
        self.status = 0
        self.body = b""
        self.over: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

    @override
    def began(self, status: int, now: float) -> None:
        self.status = status

    @override
    def took(self, data: bytes, now: float) -> None:
        self.body += data

    @override
    def ended(self, fault: str | None, now: float) -> None:
        if not self.over.done():
            self.over.set_result(fault)


async def fetch(target: Target, request: bytes, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of a small answer; a broken one has status 0.

    Raises:
        OSError: It cannot be reached, or not in time.
    """
    async with asyncio.timeout(timeout_s):
        connection = await Connection.open(target)
        answer = Collected()
        try:
            connection.ask(request, answer)
            fault = await answer.over
        finally:
            connection.leave()
    return (answer.status, answer.body) if fault is None else (0, b"")
