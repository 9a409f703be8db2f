"""TLS between a connection and aiohttp: a thin layer that hides nothing of the connection below it.

In: an accepted connection, and a context. Out: a transport for the protocol above, with the buffer, the marks and the
pauses of the connection itself. Must not: hold bytes back, or let a cut look like an end.

The event loop's own TLS keeps up to 64 KiB per connection that its transport does not count, and with a high-water
mark of zero its pauses come and go by turns. The writer relies on both: it counts what a reader has not taken, and
resets only when the last event is out.
"""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from edge.telemetry import log

_HANDSHAKE_S = 10.0  # a client that has not shaken hands by then never will
_READ = 256 * 1024
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 35\r\nConnection: close\r\n\r\n"
    b"This port speaks TLS: use https://\n"
)


class Layer(asyncio.Transport, asyncio.Protocol):
    """One connection: to the connection below a protocol, to the protocol above a transport."""

    def __init__(
        self, context: ssl.SSLContext, above: Callable[[], asyncio.Protocol], done: Callable[["Layer"], None]
    ) -> None:
        super().__init__()
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._make_above = above
        self._done = done
        self._above: asyncio.Protocol | None = None  # until hands are shaken
        self._below: asyncio.Transport
        self._limit: asyncio.TimerHandle
        self._closing = False

    # --- the protocol ---------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the client to begin."""
        self._below = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._limit = asyncio.get_running_loop().call_later(_HANDSHAKE_S, self._give_up, "it took too long")

    def data_received(self, data: bytes) -> None:
        """Shake hands, or read."""
        if self._closing:
            return
        self._in.write(data)
        try:
            if self._above is None and not self._shake():
                return
            self._read()
        except ssl.SSLError as error:
            if self._above is None:
                self._give_up(error.reason or "unknown reason", _PLAIN if error.reason == "HTTP_REQUEST" else b"")
            else:
                self.abort()

    def eof_received(self) -> None:
        """The client's end, with a farewell or without: what it said was framed by HTTP."""
        if self._above is None:
            self._give_up("the client left")
        else:
            self._end(self._above)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._closing = True
        self._finish_shaking()
        if self._above is not None:
            self._above.connection_lost(exc)

    def pause_writing(self) -> None:
        """The connection holds more than its high-water mark."""
        if self._above is not None:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """It does no longer."""
        if self._above is not None:
            self._above.resume_writing()

    def _shake(self) -> bool:
        """One step of the handshake; True when it is done."""
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        finally:
            self._flush()
        self._finish_shaking()
        self._above = self._make_above()
        self._above.connection_made(self)
        return True

    def _read(self) -> None:
        """Hand on what has come."""
        parts = []
        ended = False
        with suppress(ssl.SSLWantReadError):
            while part := self._tls.read(_READ):
                parts.append(part)
            ended = True
        self._flush()  # the protocol may have to answer, to a change of keys for example
        if self._above is None:
            return
        if parts:
            self._above.data_received(b"".join(parts))
        if ended:
            self._end(self._above)

    def _end(self, above: asyncio.Protocol) -> None:
        """No farewell from us: a client that only half-closes may not take what it has got for all there is."""
        if not self._closing and not above.eof_received():
            self._closing = True
            self._below.close()

    def _give_up(self, reason: str, last_words: bytes = b"") -> None:
        log.refused(client=_host(self._below), error="tls_handshake", reason=reason)
        self._closing = True
        self._finish_shaking()
        self._below.write(last_words or self._out.read())  # else the alert that says why
        self._below.close()

    def _finish_shaking(self) -> None:
        self._limit.cancel()
        self._done(self)

    def _flush(self) -> None:
        if self._out.pending and not self._below.is_closing():
            self._below.write(self._out.read())

    # --- the transport --------------------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Hand all of it to the connection, encrypted."""
        if self._closing:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[self._tls.write(view) :]
        except ssl.SSLError:
            self.abort()
        else:
            self._flush()

    def close(self) -> None:
        """End with a farewell (close_notify), which says that nothing is missing."""
        self._say_farewell()
        self._below.close()

    def _say_farewell(self) -> None:
        if self._closing:
            return
        self._closing = True
        with suppress(ssl.SSLError):  # it wants to read the client's, which nobody waits for
            self._tls.unwrap()
        self._flush()

    def abort(self) -> None:
        """End without one: the client sees that something is missing."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Whether it has ended, or will when what is pending is out."""
        return self._closing or self._below.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The connection's, and ``sslcontext``, by which aiohttp knows that this is https."""
        return self._tls.context if name == "sslcontext" else self._below.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """From now on another protocol is above."""
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol above."""
        return self if self._above is None else self._above

    def get_write_buffer_size(self) -> int:
        """See the connection's, as in all that follow."""
        return self._below.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Low and high."""
        return self._below.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """High and low."""
        self._below.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        """Whether it is not paused."""
        return self._below.is_reading()

    def pause_reading(self) -> None:
        """Until ``resume_reading``."""
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """After ``pause_reading``."""
        self._below.resume_reading()

    def can_write_eof(self) -> bool:
        """Towards clients that have nothing more to say."""
        return True

    def write_eof(self) -> None:
        """End what is sent, with a farewell; what still comes is dropped until ``close`` or ``abort``."""
        self._say_farewell()
        if not self._below.is_closing():
            self._below.write_eof()


def _host(transport: asyncio.Transport) -> str | None:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else None
