"""The log's lines on their way out: the event loop never waits for whoever reads them.

In: lines, from any thread. Out: the same lines on a file descriptor, in order; one line counts those that had to be
dropped, in their place. Must not: hold up or fail its caller, hold more than ``most_bytes``, or keep the process from
ending.

A line is written at once if the kernel can promise that the write does not block (``RWF_NOWAIT``: pipes and sockets
since Linux 6.5), else by a thread, which may hang in it. The thread alone would do, but a line of a quiet Edge then
costs 30 us more, for waking it. ``O_NONBLOCK`` is no way: whoever shares the pipe would have it too.
"""

import atexit
import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from functools import cache

MOST_BYTES = 2**20  # about 2,000 lines; what is over that is dropped
# A pipe takes this much in one piece, however many processes write to it: two versions of Edge during an upgrade.
_PIECE_BYTES = select.PIPE_BUF
_LAST_LINES_S = 1.0  # at the end of the process, if nobody reads
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)  # Linux only
_HERE = -1  # where the descriptor's own offset is
_UNSUPPORTED = {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE}


class LineWriter:
    """Writes lines at once, or in the background: its thread starts with the first line that would block.

    Args:
        descriptor: Where to; it stays open.
        most_bytes: Of the lines that wait.
        write: As ``os.write``.

    Attributes:
        make_dropped: Makes the line that says how many were dropped.
    """

    def __init__(
        self, descriptor: int, most_bytes: int = MOST_BYTES, write: Callable[[int, bytes], int] = os.write
    ) -> None:
        self._descriptor = descriptor
        self.make_dropped: Callable[[int], bytes] = _plainly_dropped
        self._most_bytes = most_bytes
        self._write = write
        self._lock = threading.Lock()  # held for a few operations, never while something is written
        self._wake = threading.Lock()  # the thread sleeps in it; raw, since a condition costs 10 times as much
        self._wake.acquire()
        self._waiting: deque[bytes | int] = deque()  # a number stands for so many dropped lines
        self._waiting_bytes = 0
        self._dropped = 0  # not reported yet
        self._failing = False  # the last write did not get out whole: with the next line it is tried again
        self._torn = False  # the last thing that went out was a part of a line
        self._asleep = False
        self._closing = False
        self._thread: threading.Thread | None = None
        self._at_once = write is os.write and _NO_WAIT is not None

    def put(self, line: bytes) -> None:
        """Have this line written; it ends with a line end."""
        with self._lock:
            if self._at_once and (self._asleep or self._thread is None) and not (self._waiting or self._dropped):
                line = self._rest(line)
                if not line:
                    return
            if self._waiting_bytes + len(line) > self._most_bytes:
                self._dropped += 1
                return
            if self._dropped:
                self._waiting.append(self._dropped)
                self._dropped = 0
            self._waiting.append(line)
            self._waiting_bytes += len(line)
            if self._asleep:
                self._asleep = False
                self._wake.release()
            elif self._thread is None:
                self._start()

    def close(self, within_s: float) -> None:
        """Write what waits, for at most so long; whoever puts more lines has them written too."""
        with self._lock:
            thread = self._thread
            if thread is None:
                return
            self._closing = True
            if self._asleep:
                self._asleep = False
                self._wake.release()
        thread.join(within_s)

    def _rest(self, line: bytes) -> bytes:
        """Write what can be written without waiting; what is left."""
        try:
            return line[os.pwritev(self._descriptor, (line,), _HERE, _NO_WAIT or 0) :]
        except BlockingIOError:
            pass
        except OSError as error:  # a closed pipe is the thread's to find out, and to count
            self._at_once = error.errno not in _UNSUPPORTED
        return line

    def _start(self) -> None:
        """Start the thread; without one, the lines wait for the next try."""
        self._closing = False
        # A daemon: one that hangs in a write must not keep the process from ending.
        thread = threading.Thread(target=self._run, name="edge-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads just now
            return
        self._thread = thread

    def _run(self) -> None:
        while (piece := self._next()) is not None:
            if piece:
                self._send(piece)
            else:
                self._wake.acquire()

    def _next(self) -> list[bytes | int] | None:
        """What to write at once; empty if there is nothing, None at the end."""
        with self._lock:
            if not self._waiting and self._dropped and not self._failing:  # it goes on, and nobody has put a line since
                piece: list[bytes | int] = [self._dropped]
                self._dropped = 0
                return piece
            piece, size = [], 0
            while self._waiting:
                first = self._waiting[0]
                length = len(first) if isinstance(first, bytes) else 0
                if piece and size + length > _PIECE_BYTES:
                    break
                piece.append(self._waiting.popleft())
                size += length
            self._waiting_bytes -= size
            if not piece:
                if self._closing:
                    self._thread = None
                    return None
                self._asleep = True
            return piece

    def _send(self, piece: list[bytes | int]) -> None:
        """Write it; lines that did not get out are counted as dropped."""
        parts = [part if isinstance(part, bytes) else self.make_dropped(part) for part in piece]
        prefix = b"\n" * self._torn
        data = prefix + b"".join(parts)
        sent = self._sent(data)
        self._failing = sent < len(data)
        if sent:
            self._torn = not data[:sent].endswith(b"\n")
        if not self._failing:
            return
        lost, end = 0, len(prefix)
        for part, text in zip(piece, parts, strict=True):
            end += len(text)
            if end > sent:
                lost += 1 if isinstance(part, bytes) else part
        with self._lock:
            self._dropped += lost

    def _sent(self, data: bytes) -> int:
        """How many bytes of it went out: all, but for a closed pipe or a full disk."""
        sent = 0
        while sent < len(data):
            try:
                sent += self._write(self._descriptor, data[sent:])
            except BlockingIOError:  # whoever shares the pipe has made it non-blocking
                select.select((), (self._descriptor,), ())
            except OSError:
                break
        return sent


@cache
def writer_for(descriptor: int) -> LineWriter:
    """The one writer of this process for this descriptor; at the end, what waits is written for a moment more."""
    writer = LineWriter(descriptor)
    atexit.register(writer.close, _LAST_LINES_S)
    return writer


def _plainly_dropped(count: int) -> bytes:
    return b"%d lines dropped: they could not be written\n" % count
