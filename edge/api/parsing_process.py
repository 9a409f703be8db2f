"""The process that parses large bodies: one piece of work after the other, for as long as Edge lives.

In: a socket; on it, work and the body it is for. Out: on the socket, what came of it. Must not: outlive Edge, listen to
signals that are meant for it, or import more than the work needs.

Each message is a pickle, and after it the large byte strings that belong to it, which are never copied into a pickle.
"""

import pickle
import signal
import socket
import struct
from io import BytesIO
from typing import Any

# What Edge acts upon. Until the process ignores them they are blocked in it, by whoever starts it.
EDGES_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
READY = b"+"  # sent once, when signals are ignored
ASKED = struct.Struct("<QQ")  # lengths of the pickle (what to do) and of the body
ANSWERED = struct.Struct("<QQ")  # length of the pickle, number of byte strings after it
LENGTH = struct.Struct("<Q")
_APART_BYTES = 64 * 1024


class _Pickler(pickle.Pickler):
    """Leaves out the large byte strings."""

    def __init__(self, file: BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.apart: list[bytes] = []

    def persistent_id(self, obj: Any) -> int | None:
        """The number of a byte string that goes apart."""
        if type(obj) is not bytes or len(obj) < _APART_BYTES:
            return None
        self.apart.append(obj)
        return len(self.apart) - 1


class Unpickler(pickle.Unpickler):
    """Puts them in again. What it reads was written by Edge's own process."""

    def __init__(self, file: BytesIO, apart: list[bytes]) -> None:
        super().__init__(file)
        self._apart = apart

    def persistent_load(self, pid: Any) -> bytes:
        """The byte string of that number."""
        return self._apart[int(pid)]


def serve(descriptor: int) -> None:
    """Do what comes on the socket, until Edge closes it.

    Only Edge decides when this process ends: Ctrl-C and a terminal's end reach the whole group, and what systemd sends
    all of a service.
    """
    for number in EDGES_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, EDGES_SIGNALS)
    with socket.socket(fileno=descriptor) as sock:
        try:
            sock.sendall(READY)
            while _serve_one(sock):
                pass
        except ConnectionError:
            return  # Edge is gone


def _serve_one(sock: socket.socket) -> bool:
    head = _receive(sock, ASKED.size)
    if len(head) < ASKED.size:
        return False
    work_size, body_size = ASKED.unpack(head)
    work = _receive(sock, work_size)
    answer = _answer(work, sock, body_size)
    file = BytesIO()
    pickler = _Pickler(file)
    try:
        pickler.dump(answer)
    except Exception as bug:  # noqa: BLE001 - an exception that cannot be pickled goes back in words
        file.seek(0)
        file.truncate()
        pickler = _Pickler(file)
        pickler.dump((False, RuntimeError(repr(bug))))
    sizes = b"".join(LENGTH.pack(len(data)) for data in pickler.apart)
    sock.sendall(ANSWERED.pack(file.tell(), len(pickler.apart)) + sizes + file.getvalue())
    for data in pickler.apart:
        sock.sendall(data)
    # A process that was started in a moment without memory may have been given a limit that will not pass.
    return not isinstance(answer[1], MemoryError)


def _answer(work: bytes, sock: socket.socket, body_size: int) -> tuple[bool, Any]:
    body = _receive(sock, body_size)
    try:
        function, arguments = pickle.loads(work)  # noqa: S301 - from Edge itself
        return True, function(body, *arguments)
    except Exception as error:  # noqa: BLE001 - Edge raises it again
        return False, error


def _receive(sock: socket.socket, size: int) -> bytes:
    """``size`` bytes, without a copy of them; fewer if Edge is gone."""
    data = sock.recv(size, socket.MSG_WAITALL) if size else b""
    while data and len(data) < size:  # a signal came in between
        more = sock.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            return b""
        data += more
    return data
