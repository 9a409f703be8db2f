"""A transfer: a request that changes an upstream's models. It and its answer are passed on as they come.

In: the request, and the upstream's connections. Out: the upstream's answer, through the one writer, and one record.
Must not: take a slot, keep a journal, limit how long it takes (hours are normal), or end a cut answer like a whole one.

Pulls, pushes and blobs are rare, and are no generations. The registry owns them like exchanges: a drain waits for them,
and an admin can stop them.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import orjson
from aiohttp import web
from typing_extensions import override

from edge.errors import (
    EdgeError,
    InternalError,
    ShuttingDown,
    Stopped,
    UpstreamCut,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from edge.exchange.ports import ExchangeServices, TransferRequest
from edge.exchange.registry import Owned
from edge.policy.lifecycle import Outcome
from edge.protocol.ollama.ndjson import encode_line
from edge.stream.ticker import Ticked
from edge.stream.writer import Writer
from edge.telemetry.record import TransferRecord
from edge.upstream.fleet import Member
from edge.upstream.pool import Pool
from edge.upstream.ports import Upload
from edge.upstream.relay.asker import Asker
from edge.upstream.relay.bodies import broke_off
from edge.upstream.relay.connection import Connection, Head
from edge.upstream.relay.relay import LAST_CHUNK, chunk, reason

_LINES = "application/x-ndjson"
_FRAMED = frozenset({"content-length", "transfer-encoding"})  # without either, the body ends with the connection
_AHEAD_BYTES = 64 * 1024  # of the answer, before the upstream is no longer read
_TAIL_BYTES = 4096  # of the answer: longer than any line with an error


class Transfer(Owned, Ticked, Asker):
    """One request that changes an upstream's models; see the module."""

    def __init__(self, services: ExchangeServices, asked: TransferRequest, member: Member, pool: Pool) -> None:
        self.asked = asked
        self.member = member
        self.outcome: Outcome | None = None
        self._services = services
        self._pool = pool
        self._settings = services.settings.stream
        self._writer: Writer | None = None
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._began_at = services.clock()
        self._connected = False
        self._head: Head | None = None
        self._error: EdgeError | None = None
        self._status = 0
        self._inbox = bytearray()  # of the answer, not written yet
        self._tail = b""  # the end of what was written
        self._received = 0  # bytes of the request's body
        self._news = asyncio.Event()
        self._taken = 0  # bytes that the client had taken when it last made progress
        self._progress_at = self._began_at

    def __repr__(self) -> str:
        return f"<Transfer {self.asked.request_id} {self.asked.operation} {self.outcome or 'live'}>"

    @property
    def elapsed_s(self) -> float:
        """Since the request was accepted."""
        return max(0.0, self._services.clock() - self.asked.accepted_at)

    async def run(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request.

        Raises:
            EdgeError: it failed before the status went out; the caller answers with it.
        """
        services = self._services
        writer = self._writer = Writer(request)
        services.registry.add(self)
        services.registry.transfers[self.asked.stream_id] = self
        services.ticker.add(self)
        self.member.active += 1
        self._connecting = asyncio.get_running_loop().create_task(self._ask())
        try:
            return await self._answer(writer)
        except EdgeError as error:
            self._status = error.status
            error.headers = {**self._known_headers(), **error.headers}
            raise
        except ConnectionError:
            self._end(Outcome.CLIENT_GONE)
            raise
        except Exception as bug:
            self._fail(bug)
            if self._status or self._error is None:  # part of the answer is out: it must not end like a whole one
                writer.abort()
                raise ConnectionResetError("the answer was broken off") from bug
            raise self._error from bug
        finally:
            self._end(Outcome.CLIENT_GONE)  # if it has not ended: it was cancelled, since the client left
            self.member.active -= 1
            services.ticker.discard(self)
            services.registry.transfers.pop(self.asked.stream_id, None)
            services.registry.discard(self)
            self._record(writer)

    # --- ends from this side --------------------------------------------------------------------------------------

    @override
    def shut_down(self) -> None:
        self._end(Outcome.SHUTDOWN, ShuttingDown("Edge is shutting down; send the request again"))

    def stop(self) -> None:
        """End it: somebody stopped it."""
        self._end(Outcome.STOPPED, Stopped("the request was stopped"))

    @override
    def tick(self, now: float) -> None:
        """Check for a slow connect, a client that takes nothing, and one that left unnoticed."""
        writer, settings = self._writer, self._settings
        if writer is None:
            return
        if writer.closing or (self._unread and writer.hung_up):
            writer.abort()
            self._end(Outcome.CLIENT_GONE)
        elif not self._connected and now - self._began_at > settings.connect_s:
            message = f"the upstream did not accept a connection within {settings.connect_s:g} s"
            self._end(Outcome.CONNECT_TIMEOUT, UpstreamTimeout(message, code=Outcome.CONNECT_TIMEOUT))
        elif not writer.pending or writer.taken > self._taken:
            self._progress_at, self._taken = now, writer.taken
        elif now - self._progress_at > settings.client_stall_s:
            writer.abort()
            self._end(Outcome.CLIENT_STALL)

    @property
    def _unread(self) -> bool:
        """Whether Edge reads nothing from the client now, because the upstream takes no more of its body."""
        return self.asked.upload is not None and self._head is None

    def _end(self, outcome: Outcome, error: EdgeError | None = None) -> None:
        if self.outcome is not None:
            return
        self.outcome, self._error = outcome, error
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.abort()
        if self._connecting is not None and self._connecting is not asyncio.current_task():
            self._connecting.cancel()
        self._news.set()

    def _fail(self, bug: Exception) -> None:
        error = InternalError("Edge failed while passing the request on")
        error.__cause__ = bug
        self._end(Outcome.INTERNAL_ERROR, error)

    # --- the request ----------------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        name = self.member.name
        try:
            connection = self._connection = await self._pool.connect()
            self._connected = True
            connection.ask(self, self._request_head(), self.asked.body, more=self.asked.upload is not None)
            if self.asked.upload is not None:
                await self._pass_on(self.asked.upload, connection)
        except EdgeError as error:
            self._end(Outcome.REJECTED, error)
        except ConnectionError as error:
            if self._connected:
                self._end(Outcome.CLIENT_GONE)  # after connecting, only reading the client's body raises this
            else:
                self._unreachable(name, error)
        except OSError as error:
            self._unreachable(name, error)
        except Exception as bug:  # noqa: BLE001 - as in run
            self._fail(bug)

    def _unreachable(self, name: str, error: OSError) -> None:
        self._end(Outcome.UPSTREAM_CUT, UpstreamUnreachable(f"upstream {name} cannot be reached: {reason(error)}"))

    def _request_head(self) -> bytes:
        asked = self.asked
        headers = {**asked.headers, "x-request-id": asked.request_id}
        if asked.upload is not None and asked.upload.length is None:
            headers["Transfer-Encoding"] = "chunked"
        elif asked.method != "HEAD":
            size = len(asked.body) if asked.upload is None else asked.upload.length
            headers["Content-Length"] = str(size)
        return self._pool.head(asked.method, asked.path, headers)

    async def _pass_on(self, upload: Upload, connection: Connection) -> None:
        """Pass on the body, as fast as the client sends it and the upstream takes it."""
        frame: Callable[[bytes], bytes] = chunk if upload.length is None else bytes
        while data := await upload.read():
            self._received += len(data)
            await connection.send_more(frame(data))
        if upload.length is None:
            await connection.send_more(LAST_CHUNK)
        connection.sent_all()

    # --- connection.Asker -----------------------------------------------------------------------------------------

    @override
    def headed(self, head: Head) -> Callable[[bytes], None]:
        self._head = head
        self._news.set()
        if self.asked.method == "HEAD":  # no body follows, whatever length it names
            self.whole()
        return self._on_bytes

    def _on_bytes(self, data: bytes) -> None:
        self._inbox += data
        if len(self._inbox) > _AHEAD_BYTES and self._connection is not None:
            self._connection.pause()
        self._news.set()

    @override
    def whole(self) -> None:
        if self.asked.method != "HEAD":
            self._connection = None  # another request may use it by now
        refused = self._head is not None and self._head.status >= 400
        self._end(Outcome.UPSTREAM_ERROR if refused else Outcome.COMPLETE)

    @override
    def broke(self, fault: Exception, *, heard: bool) -> None:
        self._connection = None
        name, head = self.member.name, self._head
        if head is not None and head.status >= 400 and not head.headers.keys() & _FRAMED:
            # The server closed with the request's body unread, so that a reset took the place of a clean end.
            self._end(Outcome.UPSTREAM_ERROR)
        elif head is None:
            self._end(Outcome.UPSTREAM_CUT, UpstreamCut(f"upstream {name} closed the connection without an answer"))
        else:
            self._end(Outcome.UPSTREAM_CUT, broke_off(name, reason(fault)))

    # --- the answer -----------------------------------------------------------------------------------------------

    async def _answer(self, writer: Writer) -> web.StreamResponse:
        while self._head is None and self.outcome is None:
            await self._wait()
        head = self._head
        if head is None or (self._error is not None and not self._inbox):
            raise self._error or ConnectionResetError("the client left before the status went out")
        self._status = head.status
        kind = {"Content-Type": head.headers["content-type"]} if "content-type" in head.headers else {}
        response = await writer.open(head.status, {**kind, **self._known_headers()})
        while self._inbox or self.outcome is None:
            await self._write(writer)
        if self.outcome in (Outcome.COMPLETE, Outcome.UPSTREAM_ERROR):
            if self._ends_in_error(head):
                self.outcome = Outcome.UPSTREAM_ERROR
            await writer.finish()
        else:
            await self._cut(writer, head)
        return response

    async def _wait(self) -> None:
        self._news.clear()
        await self._news.wait()

    async def _write(self, writer: Writer) -> None:
        """Write what has come; wait for more, or until the client has taken it."""
        if not self._inbox:
            await self._wait()
            return
        data = bytes(self._inbox)
        self._inbox.clear()
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        writer.write_nowait(data)
        if writer.blocked:
            await writer.drain()
        if self._connection is not None and len(self._inbox) <= _AHEAD_BYTES:
            self._connection.resume()

    async def _cut(self, writer: Writer, head: Head) -> None:
        """The transfer failed: write an error line if the answer has lines, and end with a reset."""
        if self._error is not None and head.content_type == _LINES:
            line = encode_line({"error": self._error.message})
            writer.write_nowait(line if self._tail[-1:] in (b"", b"\n") else b"\n" + line)
            await writer.flush(self._settings.flush_s)
        writer.abort()

    def _ends_in_error(self, head: Head) -> bool:
        """Whether the last progress line is an error: by then an Ollama cannot say so in the status."""
        if head.content_type != _LINES:
            return False
        last = self._tail.rstrip().rpartition(b"\n")[2]
        with suppress(orjson.JSONDecodeError):
            line = orjson.loads(last)
            return isinstance(line, dict) and bool(line.get("error"))
        return False

    # --- headers and the record -----------------------------------------------------------------------------------

    def _known_headers(self) -> dict[str, str]:
        asked = self.asked
        return {
            "x-request-id": asked.request_id,
            "x-stream-id": asked.stream_id,
            "x-edge-upstream": self.member.name,
        }

    def _record(self, writer: Writer) -> None:
        asked, services, error = self.asked, self._services, self._error
        if error is not None and error.__cause__ is not None:
            services.observer.failed(asked.request_id, asked.stream_id, error.__cause__)
        services.observer.transferred(
            TransferRecord(
                request_id=asked.request_id,
                stream_id=asked.stream_id,
                principal=asked.principal.name,
                client=asked.client,
                method=asked.method,
                path=asked.path,
                operation=asked.operation,
                model=asked.model,
                upstream=self.member.name,
                status=self._status or 499,
                outcome=str(self.outcome),
                error=None if error is None else error.code,
                bytes_in=self._received or len(asked.body),
                bytes_out=writer.bytes_out,
                total_s=self.elapsed_s,
            )
        )
