"""The one writer: bytes to one downstream connection, with flow control, and an end that cannot be mistaken.

In: a request, then pieces of a body. Out: a prepared ``StreamResponse`` whose transport is written directly. Must not:
buffer, know events, or wait anywhere but in ``drain`` and ``flush``.

What depends on the inside of aiohttp's server for writing is here: the payload writer's ``chunked`` flag, and the
protocol's ``writing_paused`` and its waiter.

While a body is under way, SO_LINGER {1, 0} is set: whatever ends this process, even SIGKILL, the kernel then resets the
connection. Otherwise it would send a plain FIN, which an HTTP/1.0 reader (such as nginx with its default settings)
takes for a clean end. ``finish`` unsets it once the kernel has the whole body, so that a clean end loses no byte.
"""

import array
import asyncio
import contextlib
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Mapping

from aiohttp import web
from aiohttp.helpers import must_be_empty_body
from aiohttp.http_writer import HttpVersion10, StreamWriter

# What the transport may hold before the writer counts as blocked: nothing. What the kernel does not take at once stays
# in the journal, which counts it. With the default (64 KiB) and a default send buffer, 3.96 MB were accepted for a
# loopback client that did not read; with this and SO_SNDBUF 32 KiB it is 90 KB. Besides, uvloop writes at once then,
# and does not put each write off to the end of the loop's turn.
HIGH_WATER = 0
SEND_BUFFER = 32 * 1024
# For a write that is larger than that. On loopback, whose packets hold 64 KiB, the rest of such a write waits for the
# reader's delayed acknowledgement (40 ms) again and again: 8 MB took 3.4 s, in writes of 64 KiB as in a single one, and
# take 4 ms with this.
_WIDE_SEND_BUFFER = 64 * 1024
_PIECE_BYTES = 256 * 1024  # of a large whole answer; each is written when the client has taken the one before

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_END_ON_CLOSE = struct.pack("ii", 0, 0)
_FLUSH_POLL_S = 0.005


class Writer:
    """Writes one response to one connection.

    Writing raises ``ConnectionResetError`` once the connection is lost: the client's side has failed, whatever happens
    upstream.
    """

    __slots__ = (
        "_chunked",
        "_payload",
        "_protocol",
        "_request",
        "_resets",
        "_response",
        "_transport",
        "_wide",
        "bytes_out",
    )

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._protocol = request.protocol
        self._transport = request.transport
        self._response: web.StreamResponse | None = None
        self._payload: StreamWriter | None = None
        self._chunked = False
        self._wide = False  # whether the send buffer is
        self._resets = False  # whether the kernel resets the connection if it is closed now
        self.bytes_out = 0

    @property
    def http10(self) -> bool:
        """Whether the client speaks HTTP/1.0: it takes a plain close for a clean end."""
        return self._request.version <= HttpVersion10

    @property
    def blocked(self) -> bool:
        """Whether the transport holds more than its high-water mark."""
        return self._protocol.writing_paused

    @property
    def pending(self) -> int:
        """Bytes that the transport holds because the client does not take them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """About how many bytes the client has acknowledged, framing aside."""
        unsent = 0 if self._transport is None else _unsent(self._transport)
        return self.bytes_out - self.pending - unsent

    @property
    def closing(self) -> bool:
        """Whether the connection is over, or will be once the pending bytes are out, since the client sent its end."""
        return self._transport is None or self._transport.is_closing()

    @property
    def hung_up(self) -> bool:
        """Whether the client has sent its end, even if the transport has not noticed because nothing is read now."""
        return self.closing or (self._transport is not None and _hung_up(self._transport))

    async def open(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send status and headers: the commit. ``finish`` or ``abort`` has to follow."""
        response = web.StreamResponse(status=status, headers=headers)
        await self._prepare(response)
        self._reset_on_close(on=True)
        return response

    async def _prepare(self, response: web.StreamResponse) -> StreamWriter:
        payload = await response.prepare(self._request)
        if not isinstance(payload, StreamWriter) or self._transport is None:
            raise ConnectionResetError("the client left before the status went out")
        self._response, self._payload, self._chunked = response, payload, payload.chunked
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        return payload

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """Send a whole answer, and wait until the transport has handed everything to the kernel."""
        response = web.Response(status=status, headers=headers, body=body)
        await self.give(response)
        return response

    async def give(self, response: web.Response, stall_s: float | None = None) -> None:
        """Send a whole answer; its body must be bytes, or none.

        Args:
            response: Not prepared yet.
            stall_s: A client that takes no byte for so long is reset; None if a ticker does that.

        Raises:
            ConnectionResetError: the client left, or was reset.
        """
        payload = await self._prepare(response)
        body = response.body or b""
        if not isinstance(body, bytes):
            raise TypeError(f"a whole answer must be bytes, not {type(body).__name__}")
        if must_be_empty_body(self._request.method, response.status):
            body = b""
        if len(body) <= SEND_BUFFER:
            self.bytes_out += len(body)
            await payload.write(body, drain=False)  # in one packet with the head
        else:
            self._reset_on_close(on=True)  # before the first byte: Edge may be killed at any moment from then on
            await payload.write(b"", drain=False)
            for start in range(0, len(body), _PIECE_BYTES):
                if self.write_nowait(body[start : start + _PIECE_BYTES]):
                    await self._room(stall_s)
        await self.finish(stall_s)

    def write_nowait(self, data: bytes) -> bool:
        """Hand ``data`` to the transport, whatever its state; whether the writer is blocked now.

        It goes straight to the transport: ``StreamResponse.write`` costs a coroutine and a second framing per call, and
        drains only after 64 KiB.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        size = len(data)
        self.bytes_out += size
        transport.write(b"%x\r\n%b\r\n" % (size, data) if self._chunked else data)
        if transport.get_write_buffer_size() > HIGH_WATER:
            if size > SEND_BUFFER and not self._wide:
                self._wide = True
                _set_option(transport, socket.SO_SNDBUF, _WIDE_SEND_BUFFER)
            return True
        return False

    async def drain(self, within_s: float | None = None) -> bool:
        """Wait until the transport is below its mark, for at most ``within_s`` seconds; whether it is.

        It may be cancelled, or run out of time, and be called again. aiohttp's own ``drain`` has one future for all who
        wait: once that is cancelled, every later wait raises ``CancelledError`` at once.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        protocol = self._protocol
        while protocol.writing_paused:
            if protocol.transport is None:
                raise ConnectionResetError("the client left")
            waiter = protocol._drain_waiter  # noqa: SLF001 - what aiohttp wakes; it has no public way to wait unharmed
            if waiter is None or waiter.done():
                waiter = protocol._drain_waiter = asyncio.get_running_loop().create_future()  # noqa: SLF001 - as above
                waiter.add_done_callback(_look_at)
            await asyncio.wait((waiter,), timeout=within_s)
            if not waiter.done():
                return False
        return True

    async def _room(self, stall_s: float | None) -> None:
        """Wait until the transport is below its mark, as long as the client takes something every ``stall_s``."""
        taken = self.taken
        while not await self.drain(stall_s):
            if self.taken <= taken:
                self.abort()
                raise ConnectionResetError("the client takes nothing")
            taken = self.taken

    async def finish(self, stall_s: float | None = None) -> None:
        """End the body cleanly, then wait until the transport has handed everything to the kernel.

        Otherwise a client that does not read would keep its connection for ever: ``close`` waits for what is left.

        Args:
            stall_s: See ``give``.

        Raises:
            ConnectionResetError: the client left, or was reset.
        """
        response, payload = self._response, self._payload
        if response is None or payload is None or self._transport is None:
            return
        payload.set_eof()
        await response.write_eof()  # it has nothing left to write or to wait for
        if self._protocol.writing_paused:
            self._reset_on_close(on=True)
            await self._room(stall_s)
        self._reset_on_close(on=False)
        if self._wide:
            self._wide = False
            _set_option(self._transport, socket.SO_SNDBUF, SEND_BUFFER)

    async def flush(self, deadline_s: float) -> bool:
        """Wait until the client's kernel has every byte, for at most ``deadline_s``; whether it has.

        An abort drops what the transport and the kernel still hold, so the last event must have left both before.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(deadline_s):
                await self.drain()
                while _unsent(transport) > 0:  # noqa: ASYNC110 - the kernel has no event for an acknowledged byte
                    await asyncio.sleep(_FLUSH_POLL_S)
                return not transport.is_closing()
        return False

    def _reset_on_close(self, *, on: bool) -> None:
        """See the module."""
        if self._transport is not None and on is not self._resets:
            self._resets = on
            _set_option(self._transport, socket.SO_LINGER, _RESET_ON_CLOSE if on else _END_ON_CLOSE)

    def abort(self) -> None:
        """End with a reset, which neither an HTTP/1.1 nor an HTTP/1.0 client takes for the end of the body."""
        if self._transport is not None:
            reset(self._transport)


async def deliver(request: web.BaseRequest, response: web.Response, stall_s: float) -> None:
    """Send a whole answer that has no reader object; a client that takes nothing for ``stall_s`` is reset.

    aiohttp would wait for such a client for ever, or leave bytes in a transport whose ``close`` then never ends.

    Raises:
        ConnectionResetError: the client left, or was reset.
    """
    writer = Writer(request)
    if not writer.closing:
        await writer.give(response, stall_s)


def reset(transport: asyncio.Transport) -> None:
    """Close at once, with a reset where the transport has them."""
    _set_option(transport, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()


def _set_option(transport: asyncio.Transport, option: int, value: int | bytes) -> None:
    """Set a socket option, if the socket still exists. A Unix socket accepts SO_LINGER too, but has no resets."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError, ValueError):  # uvloop's socket of a closed transport raises the latter
            sock.setsockopt(socket.SOL_SOCKET, option, value)


def _look_at(waiter: asyncio.Future[None]) -> None:
    """Fetch the error of a lost connection, which asyncio would otherwise log as never retrieved."""
    if not waiter.cancelled():
        waiter.exception()


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the client's end has reached the kernel; False where the system cannot tell."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes in the kernel's send queue that the client has not acknowledged; 0 where the system cannot tell."""
    if sys.platform != "linux" or transport.is_closing():
        return 0
    sock = transport.get_extra_info("socket")
    if sock is None:
        return 0
    count = array.array("i", [0])
    try:
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, count)
    except OSError:
        return 0
    return count[0]
