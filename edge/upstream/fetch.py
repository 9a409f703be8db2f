"""One whole answer over an upstream's pool: for looking at servers, and for what is not a generation.

In: a pool and a path. Out: status, headers and a bounded body. Must not: time out by itself, follow redirects, or
repeat a request, but for one that a dead pooled connection swallowed.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from typing_extensions import override

from edge.upstream.pool import Pool
from edge.upstream.relay.asker import Asker
from edge.upstream.relay.connection import Connection, Ended, Head
from edge.upstream.relay.content_encoding import READABLE, inflated


class Unreachable(Exception):
    """No connection could be made; the cause is the reason."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; ``body`` is empty if it was over the bound, or its compression is broken."""

    head: Head
    body: bytes
    too_large: bool = False


async def get(pool: Pool, path: str, most_bytes: int, hops: Mapping[str, str] | None = None) -> Answer:
    """Fetch ``path``, with a body of at most ``most_bytes``.

    Args:
        pool: Of whoever is asked.
        path: What for.
        most_bytes: A longer body is left out.
        hops: See ``policy.hops``: what a request that this is done for has passed; None = it is done for no request.

    Raises:
        Unreachable: no connection could be made.
        Malformed, Ended, OSError: it did not answer, or not in HTTP.
    """
    return await _fetch(pool, pool.head("GET", path, pool.hop_headers if hops is None else hops), b"", most_bytes)


async def post(pool: Pool, path: str, body: bytes, most_bytes: int, hops: Mapping[str, str]) -> Answer:
    """Post JSON to a ``path`` where that changes nothing; the rest as for ``get``."""
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **hops}
    return await _fetch(pool, pool.head("POST", path, headers), body, most_bytes)


async def _fetch(pool: Pool, head: bytes, body: bytes, most_bytes: int) -> Answer:
    while True:
        connection = pool.checkout()
        reused = connection is not None
        if connection is None:
            try:
                connection = await pool.connect()
            except OSError as error:
                raise Unreachable from error
        asked = _Asked(connection, most_bytes)
        if connection.usable:
            connection.ask(asked, head, body)
        else:
            asked.broke(Ended(), heard=False)
        try:
            return await asked.answer
        except _Swallowed as swallowed:
            if not reused:
                raise swallowed.fault from None
        finally:
            if not asked.over:
                connection.abort()


class _Swallowed(Exception):
    """The connection ended without a byte of an answer."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault


class _Asked(Asker):
    """The ``connection.Asker`` of one fetch."""

    def __init__(self, connection: Connection, most_bytes: int) -> None:
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.over = False
        self._connection = connection
        self._most = most_bytes
        self._head: Head | None = None
        self._body = bytearray()

    @override
    def headed(self, head: Head) -> Callable[[bytes], None]:
        self._head = head
        return self._take

    def _take(self, data: bytes) -> None:
        self._body += data
        if len(self._body) > self._most:
            self._connection.abort()
            self._settle(b"", too_large=True)

    @override
    def whole(self) -> None:
        body: bytes | None = bytes(self._body)
        if body and self._head is not None and self._head.headers.get("content-encoding", "").lower() in READABLE:
            body = inflated(body, self._most)
        self._settle(body or b"", too_large=False)

    def _settle(self, body: bytes, *, too_large: bool) -> None:
        self.over = True
        if self._head is not None and not self.answer.done():
            self.answer.set_result(Answer(self._head, body, too_large))

    @override
    def broke(self, fault: Exception, *, heard: bool) -> None:
        self.over = True
        if not self.answer.done():
            self.answer.set_exception(fault if heard else _Swallowed(fault))
