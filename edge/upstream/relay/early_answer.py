"""An answer that a server gives before it has read the whole request, and then closes: it must not be lost.

In: the transport of a connection whose request is still going out. Out: whether something waits to be read, and what
is left to be read once a write has failed. Must not: write, or block.

A server that closes a socket with unread bytes in it makes its kernel send a reset. The answer is in our kernel by
then, but a write that meets the reset closes the transport, and the answer with it: each 413 became a 502.
"""

import asyncio
import os
import select
import socket
from contextlib import suppress

TURNS = 3  # of the loop: after so many, what was there to read has been read, on asyncio's own loop too
_MOST_BYTES = 256 * 1024  # more than a socket with RECEIVE_BUFFER can hold
_READ_BYTES = 64 * 1024


def answer_waits(transport: asyncio.Transport) -> bool:
    """Whether something waits to be read, which is to be done before the next write; 1 µs."""
    descriptor = _descriptor(transport)
    if descriptor is None:
        return False
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def unread(transport: asyncio.Transport) -> bytes:
    """What the kernel still has of an answer, once a write has failed; for ``connection_lost``.

    Empty over TLS: the bytes are encrypted, and whoever could decrypt them has gone.
    """
    descriptor = _descriptor(transport)
    if descriptor is None or transport.get_extra_info("ssl_object") is not None:
        return b""
    parts: list[bytes] = []
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as sock:
        sock.setblocking(False)
        while sum(map(len, parts)) < _MOST_BYTES and (data := sock.recv(_READ_BYTES)):
            parts.append(data)
    return b"".join(parts)


def _descriptor(transport: asyncio.Transport) -> int | None:
    sock = transport.get_extra_info("socket")
    try:
        descriptor = -1 if sock is None else sock.fileno()
    except (OSError, ValueError):  # uvloop's socket of a closed transport raises the latter
        return None
    return None if descriptor < 0 else descriptor
