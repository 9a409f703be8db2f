"""The relay: a call to a server that speaks the surface itself, pushed on as bytes.

In: a ``Call``. Out: pushes into the sink, in order, from the callback of each network read. What went wrong on a
connection is translated here, once. Must not: retry (but for a pooled connection that turns out to be dead), time out,
decide an outcome, follow a redirect, or build a path from anything a client sent.
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable

from typing_extensions import override

from edge.errors import EdgeError, UpstreamBroken, UpstreamCut, UpstreamUnreachable
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.surface import UPSTREAM_PATHS
from edge.upstream.pool import Pool
from edge.upstream.ports import JSON_TYPE, Call, Sink, Source, Upload, Upstream
from edge.upstream.relay.asker import Asker
from edge.upstream.relay.bodies import Body, Receiver, Work, broken_by
from edge.upstream.relay.body_choice import body_for
from edge.upstream.relay.connection import Connection, Ended, Head, Malformed, ignore

LAST_CHUNK = b"0\r\n\r\n"
_POOL_TRIES = 8  # dead pooled connections to go through before a fresh one is made


class Relay(Upstream):
    """An ``openai-compatible`` upstream, over a pool of whoever closes it."""

    def __init__(self, pool: Pool, name: str) -> None:
        self.name = name
        self.pool = pool
        self._sources: set[RelaySource] = set()

    @override
    def open(self, call: Call, sink: Sink) -> "RelaySource":
        source = RelaySource(self, call, sink)
        self._sources.add(source)
        return source

    def over(self, source: "RelaySource") -> None:
        """Told by each source at its end."""
        self._sources.discard(source)

    @override
    async def close(self) -> None:
        connecting = [source.connecting for source in self._sources if source.connecting is not None]
        for source in tuple(self._sources):
            source.abort()
        if connecting:
            await asyncio.wait(connecting)


class RelaySource(Source, Asker):
    """One call in progress; a ``connection.Asker``.

    Attributes:
        connecting: The task that makes a fresh connection and sends a streamed body, while there is one.
    """

    __slots__ = (
        "_answer",
        "_call",
        "_connected",
        "_connection",
        "_over",
        "_paused",
        "_relay",
        "_reporting",
        "_reused",
        "_sink",
        "_tries",
        "_work",
        "connecting",
    )

    def __init__(self, relay: Relay, call: Call, sink: Sink) -> None:
        self.connecting: asyncio.Task[None] | None = None
        self._relay = relay
        self._call: Call | None = call  # until the answer begins
        self._sink = sink
        self._answer: Body | None = None  # what takes the answer, once it has begun
        self._work = Work()
        self._connection: Connection | None = None
        self._connected = False
        self._reused = False
        self._paused = False
        self._over = False
        self._tries = 0 if call.upload is not None else _POOL_TRIES  # a body that can be sent only once is not risked
        self._reporting: asyncio.Handle | None = None  # a push that is due in the next turn
        self._begin()

    def __repr__(self) -> str:
        state = "over" if self._over else "paused" if self._paused else "flowing"
        return f"<RelaySource {self._relay.name} {state}>"

    @override
    def pause(self) -> None:
        """Unread, the kernel's buffer fills, then the server feels it."""
        self._paused = True
        if self._connection is not None and self._answer is not None:
            self._connection.pause()

    @override
    def resume(self) -> None:
        self._paused = False
        if self._connection is not None:
            self._connection.resume()

    @override
    def abort(self) -> None:
        """It may be called from within a push."""
        self._leave()

    # --- connecting -----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        connection = self._relay.pool.checkout() if self._tries else None
        if connection is not None:
            self._tries -= 1
            self._use(connection, reused=True)
        else:
            self.connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        name = self._relay.name
        try:
            connection = await self._relay.pool.connect()
        except OSError as error:
            self._end(LifecycleEvent.CUT, UpstreamUnreachable(f"upstream {name} cannot be reached: {reason(error)}"))
        except Exception as bug:  # noqa: BLE001 - a bug of ours must reach the client as one, not as a hang
            self._fail(bug)
        else:
            upload = None if self._call is None else self._call.upload
            self._use(connection, reused=False)
            if upload is not None:
                await self._pass_on(upload, connection)
        finally:
            self.connecting = None

    def _use(self, connection: Connection, *, reused: bool) -> None:
        call = self._call
        if self._over or call is None:  # aborted in the turn in which the connection stood
            connection.abort()
            return
        self._connection, self._reused = connection, reused
        try:
            head = self._relay.pool.head("POST", UPSTREAM_PATHS[call.surface], {**_framing(call), **call.headers})
        except ValueError as bug:
            asyncio.get_running_loop().call_soon(self._fail, bug)
            return
        if not connection.usable:
            self.broke(Ended(), heard=False)
            return
        connection.ask(self, head, call.body, more=call.upload is not None)
        if not self._connected:
            self._connected = True
            # A request over a pooled connection is on its way before ``open`` returns; the sink hears of it afterwards.
            self._reporting = asyncio.get_running_loop().call_soon(self._report_connected)

    async def _pass_on(self, upload: Upload, connection: Connection) -> None:
        """The body, no faster than the client brings it and the server takes it."""
        frame = chunk if upload.length is None else bytes
        try:
            while not self._over:
                self._report_connected()
                self._sink.uploading(clients_turn=True)
                data = await self._brought(upload)
                if data is None:
                    return
                self._sink.uploading(clients_turn=False)
                if data:
                    await connection.send_more(frame(data))
                    continue
                if upload.length is None:
                    await connection.send_more(LAST_CHUNK)
                connection.sent_all()
                return
        except Exception as bug:  # noqa: BLE001 - as above
            self._fail(bug)

    async def _brought(self, upload: Upload) -> bytes | None:
        """More of the body; None if the client failed, which has been reported."""
        try:
            return await upload.read()
        except ConnectionError:
            self._end(LifecycleEvent.READER_GONE, None)
        except EdgeError as error:
            self._end(LifecycleEvent.REJECT, error)
        return None

    def _report_connected(self) -> None:
        """Also called when there is more to report: uvloop reads before it runs what was to be called soon."""
        due, self._reporting = self._reporting, None
        if due is not None:
            due.cancel()
            self._sink.connected()

    # --- connection.Asker -----------------------------------------------------------------------------------------

    @override
    def headed(self, head: Head) -> Callable[[bytes], None]:
        self._report_connected()
        if self._over:  # aborted from within the push
            return ignore
        call, self._call = self._call, None  # its body may be an image of 30 MB, and the answer may take minutes
        try:
            if call is not None:
                self._answer = body_for(head, self._receiver(call))
        except Exception as bug:  # noqa: BLE001 - as above
            self._fail(bug)
        if self._paused and self._connection is not None:
            self._connection.pause()
        return ignore if self._answer is None else self._answer.on_bytes

    def _receiver(self, call: Call) -> Receiver:
        return Receiver(self._relay.name, call, self._sink, self._end, self._use_body, self._work)

    def _use_body(self, body: Body) -> None:
        self._answer = body
        if self._connection is not None:
            self._connection.hand_to(body.on_bytes)

    @override
    def whole(self) -> None:
        self._connection = None  # it may be somebody else's already
        if self._answer is None:
            return
        try:
            self._answer.whole()
        except Exception as bug:  # noqa: BLE001 - as above
            self._fail(bug)

    @override
    def broke(self, fault: Exception, *, heard: bool) -> None:
        self._connection = None
        self._report_connected()
        name = self._relay.name
        if self._over:
            return
        if self._answer is not None:
            self._answer.broke(reason(fault))
        elif self._reused and not heard:
            # llama.cpp promises keep-alive and closes: the request never reached anybody, so it may be repeated.
            self._begin()
        elif isinstance(fault, Malformed):
            self._end(LifecycleEvent.ERROR, UpstreamBroken(f"upstream {name} did not answer in HTTP"))
        else:
            self._end(LifecycleEvent.CUT, UpstreamCut(f"upstream {name} closed the connection without an answer"))

    # --- the end --------------------------------------------------------------------------------------------------

    def _end(self, happened: LifecycleEvent, error: EdgeError | None) -> None:
        # What is still under way after a failure is of no use, and its model is to stop.
        if self._leave(keep=happened is LifecycleEvent.DONE):
            self._sink.end(happened, error)

    def _fail(self, bug: Exception) -> None:
        self._end(LifecycleEvent.BUG, broken_by(bug))

    def _leave(self, *, keep: bool = False) -> bool:
        """Let go of the connection; whether this was the end."""
        if self._over:
            return False
        self._over = True
        self._work.drop()
        if self._reporting is not None:
            self._reporting.cancel()
        if self.connecting is not None and self.connecting is not asyncio.current_task():
            self.connecting.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            if keep:
                connection.let_go()
            else:
                connection.abort()
        self._relay.over(self)
        return True


def _framing(call: Call) -> dict[str, str]:
    """The headers that describe the body."""
    if call.upload is None:
        return {"Content-Type": JSON_TYPE, "Content-Length": str(len(call.body))}
    length = call.upload.length
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    return {"Content-Type": call.upload.content_type, **framing}


def chunk(data: bytes) -> bytes:
    """One chunk of the chunked transfer coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def reason(error: BaseException | None) -> str:
    """A short cause for a person, without addresses or library names."""
    for kinds, cause in _REASONS:
        if isinstance(error, kinds):
            return cause
    known = error.errno if isinstance(error, OSError) else None
    return _ERRNO_REASONS.get(known or 0, type(error).__name__)


_REASONS: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((socket.gaierror,), "its name cannot be resolved"),
    ((ssl.SSLCertVerificationError,), "its TLS certificate is not trusted"),
    ((ssl.SSLError,), "TLS failed"),
    ((ConnectionResetError,), "connection reset"),
    ((Ended,), "the body ended too early"),
    ((Malformed,), "the framing of the body is broken"),
)
_ERRNO_REASONS = {errno.ECONNREFUSED: "connection refused", errno.ECONNRESET: "connection reset"}
