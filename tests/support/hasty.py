"""A server that answers before it has read a request's body, and closes at once: its kernel then sends a reset.

In: the answer to POSTs. Out: a port. Must not: share a loop with who asks, as then nothing would happen meanwhile.
"""

import fcntl
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import orjson

from support.ollama import DETAILS

SAID = {"error": {"message": "too large for me", "type": "invalid_request_error", "param": None, "code": "too_large"}}
_GETS: Mapping[bytes, bytes] = {
    b"/v1/models": orjson.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}),
    b"/v1/models?limit=1000": orjson.dumps({"data": [{"type": "model", "id": "m"}], "has_more": False}),
    b"/api/tags": orjson.dumps({"models": [{"name": "m", "model": "m", "size": 1, "details": DETAILS}]}),
    b"/": b"Ollama is running",
}


class Hasty:
    """See the module; use as a context manager.

    Args:
        ollama: It passes for one.
        length: The answer tells its length; otherwise it ends with the connection.
        reads: Whether it waits for the head of a POST; otherwise it answers whoever connects (and to GETs the same).
        certificate: With one it speaks TLS.
    """

    def __init__(
        self,
        *,
        ollama: bool = False,
        length: bool = True,
        reads: bool = True,
        certificate: Mapping[str, Any] | None = None,
    ) -> None:
        self._ollama, self._length, self.reads = ollama, length, reads
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate["tls_cert"], certificate["tls_key"])
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with suppress(OSError), sock:
                sock.settimeout(120)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else its own kernel may keep the answer
                if self._context is None:
                    self._answer(sock)
                else:
                    with self._context.wrap_socket(sock, server_side=True) as wrapped:
                        self._answer(wrapped)

    def _answer(self, sock: socket.socket) -> None:
        head = b""
        while self.reads and b"\r\n\r\n" not in head:
            data = sock.recv(256)
            if not data:
                return
            head += data
        path = head.split(b" ", 2)[1] if head.startswith(b"GET") else b""
        known = _GETS.get(path) if self._ollama or path.startswith(b"/v1") else None
        status, body = (b"200 OK", known) if known else (b"413 Too Large", orjson.dumps(SAID))
        framing = b"Content-Length: %d\r\n" % len(body) if self._length or known else b""
        kind = b"text/plain" if path == b"/" else b"application/json"
        said = b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: close\r\n%b\r\n" % (status, kind, framing)
        sock.sendall(said + body)
        while unsent(sock):  # what its own kernel still holds would be thrown away by the reset
            time.sleep(0.0001)


def unsent(sock: socket.socket) -> int:
    """Bytes that the peer's kernel has not acknowledged."""
    return struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
