"""The one writer: bytes to one downstream connection, with flow control, and an end that cannot be mistaken.

In: a request, then framed pieces of body. Out: a prepared ``StreamResponse`` whose transport is written directly.
Everything that leans on aiohttp's server internals is here: the payload writer's ``chunked`` flag and ``drain``, and
the protocol's ``writing_paused``. Must not: buffer, know events, or wait anywhere but in ``open``, ``drain``, ``flush``
and ``finish``.
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
from aiohttp.http_writer import HttpVersion10, StreamWriter

# What the transport may hold before the writer counts as blocked: nothing that the kernel does not take at once. The
# journal holds the rest, by account. With the default (64 KiB) and a default send buffer, 3.96 MB were accepted for a
# loopback client that did not read; with this and SO_SNDBUF 32 KiB it is 90 KB. Besides, uvloop writes at once then,
# and does not put each write off to the end of the loop's turn.
HIGH_WATER = 0
SEND_BUFFER = 32 * 1024

_LINGER_ZERO = struct.pack("ii", 1, 0)
_FLUSH_POLL_S = 0.005
_UNLIMITED = 2**30


class Writer:
    """Writes one streamed response.

    Writing raises ``ConnectionResetError`` once the connection is gone; the reader's side has then failed, whatever
    happens upstream.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self._protocol = request.protocol
        self._transport = request.transport
        self._response: web.StreamResponse | None = None
        self._payload: StreamWriter | None = None
        self._chunked = False
        self.bytes_out = 0

    @property
    def http10(self) -> bool:
        """The peer speaks HTTP/1.0: to it a plain close is a clean end."""
        return self._request.version <= HttpVersion10

    @property
    def blocked(self) -> bool:
        """The transport holds more than its high-water mark."""
        return self._protocol.writing_paused

    @property
    def pending(self) -> int:
        """Bytes the transport holds because the reader does not take them."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """Bytes that the peer has acknowledged, give or take the framing: the kernel's share moves in finer steps."""
        unsent = 0 if self._transport is None else _unsent(self._transport)
        return self.bytes_out - self.pending - unsent

    @property
    def closing(self) -> bool:
        """The connection is over, or will be as soon as the pending bytes are out: the client sent its end."""
        return self._transport is None or self._transport.is_closing()

    @property
    def hung_up(self) -> bool:
        """The peer has sent its end, though nothing is read just now, so that the transport does not know of it."""
        return self.closing or (self._transport is not None and _hung_up(self._transport))

    async def open(self, status: int, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send status and headers: the commit."""
        response = web.StreamResponse(status=status, headers=headers)
        await self._prepare(response)
        return response

    async def _prepare(self, response: web.StreamResponse) -> None:
        payload = await response.prepare(self._request)
        if not isinstance(payload, StreamWriter) or self._transport is None:
            raise ConnectionResetError("the client left before the status went out")
        self._response, self._payload, self._chunked = response, payload, payload.chunked
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    async def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> web.StreamResponse:
        """Send a whole answer in one piece, and wait until the transport has handed everything to the kernel."""
        response = web.Response(status=status, headers=headers, body=body)
        await self._prepare(response)
        self.bytes_out += len(body)
        await self.finish()
        return response

    def write_nowait(self, data: bytes) -> bool:
        """Hand ``data`` to the transport, whatever its state, and tell whether the writer is blocked now.

        Written straight to the transport: through ``StreamResponse.write`` it costs a coroutine and a second framing
        per call, and drains only after 64 KiB.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client left")
        size = len(data)
        self.bytes_out += size
        transport.write(b"%x\r\n%b\r\n" % (size, data) if self._chunked else data)
        return transport.get_write_buffer_size() > HIGH_WATER

    async def drain(self) -> None:
        """Wait until the transport is below its mark; returns or raises at once when the connection is lost."""
        if self._payload is not None:
            await self._payload.drain()

    async def finish(self) -> None:
        """The clean end of the body, then wait until the transport has handed everything to the kernel.

        What is left in a transport keeps its connection for ever if nobody reads: ``close`` waits for it.
        """
        if self._response is not None and self._transport is not None:
            await self._response.write_eof()
            if self._payload is not None:
                await self._payload.drain()

    async def flush(self, deadline_s: float) -> None:
        """Wait until the peer's kernel has every byte, for at most ``deadline_s``.

        An abort throws away what the transport and the kernel still hold, so the last event must be out of both first.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(deadline_s):
                await self.drain()
                while _unsent(transport) > 0:  # noqa: ASYNC110 - the kernel has no event for an acknowledged byte
                    await asyncio.sleep(_FLUSH_POLL_S)

    def abort(self) -> None:
        """End with a reset, which neither an HTTP/1.1 nor an HTTP/1.0 peer takes for the end of the body."""
        if self._transport is not None:
            reset(self._transport)


async def deliver(request: web.BaseRequest, response: web.Response, stall_s: float) -> None:
    """Send a whole answer that no reader watches over; a client that takes nothing for ``stall_s`` is reset.

    aiohttp would wait for such a client without end, or leave bytes in a transport whose ``close`` then never ends.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        return
    transport.set_write_buffer_limits(high=_UNLIMITED)
    payload = await response.prepare(request)
    await response.write_eof()
    transport.set_write_buffer_limits(high=0)
    while isinstance(payload, StreamWriter) and (pending := transport.get_write_buffer_size()):
        try:
            async with asyncio.timeout(stall_s):
                await payload.drain()
        except TimeoutError:
            if transport.get_write_buffer_size() >= pending:
                reset(transport)
                return


def reset(transport: asyncio.Transport) -> None:
    """Close at once; where there are resets, with one."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError, ValueError):  # uvloop's socket of a closed transport raises the latter
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()


def _hung_up(transport: asyncio.Transport) -> bool:
    """Whether the peer's end has reached the kernel; False where that cannot be asked."""
    sock = transport.get_extra_info("socket")
    if sys.platform != "linux" or sock is None:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _unsent(transport: asyncio.Transport) -> int:
    """Bytes in the kernel's send queue that the peer has not acknowledged; 0 where that cannot be asked."""
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
