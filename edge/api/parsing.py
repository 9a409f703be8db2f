"""Work on large bodies in another process, so that it does not stop the loop: started when needed, one at a time.

In: a function, a body. Out: what the function returns or raises. Must not: need a thread, wait without a clock, go on
with a process that has failed, or keep one that has nothing to do.

Parsing and writing JSON holds the interpreter's lock, so that a thread would stop the loop as well: 25 MiB took 55 ms.
Another process costs about 0.2 s once and then two copies through a socket. It is not a ``ProcessPoolExecutor``, whose
own threads may not start, or die, in a moment without memory or threads; it then never answers again, nor ends.
"""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

from edge.api.parsing_process import ANSWERED, ASKED, EDGES_SIGNALS, LENGTH, Unpickler
from edge.errors import Busy, EdgeError

WITHIN_S = 60.0  # for the work before this one and this one; a body of 32 MiB takes about 0.3 s
IDLE_S = 10.0  # the process has held a few times the largest body; after so long without work it ends
_STARTS = 2  # a moment without memory may end a process before it is ready
_REAP_S = 0.02  # a killed process has to give back its memory first
_LOOKS = 50
_RETRY = {"Retry-After": "1"}

T = TypeVar("T")


class _Died(Exception):
    """The process ended, or was never there."""


class Parser:
    """See the module.

    Attributes:
        within_s: How long a piece of work and those before it may take.
    """

    def __init__(self, within_s: float = WITHIN_S, idle_s: float = IDLE_S) -> None:
        self.within_s = within_s
        self._idle_s = idle_s
        self._turn = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._ending: list[subprocess.Popen[bytes]] = []
        self._reaping: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Parser {'none' if self._process is None else self._process.pid}>"

    @property
    def pid(self) -> int | None:
        """Of the process that is ready for work or at it; None if there is none."""
        return None if self._process is None else self._process.pid

    async def run(self, work: Callable[..., T], body: bytes | bytearray, *arguments: Any) -> T:
        """What ``work(body, *arguments)`` returns. The function and the arguments can be pickled.

        Raises:
            Busy: it took too long, or there was no process or no memory for it.
            Exception: whatever ``work`` raises.
        """
        try:
            async with asyncio.timeout(self.within_s):
                async with self._turn:
                    return await self._do(work, body, arguments)
        except EdgeError as error:
            raise error from None  # what it came from is of the other process
        except TimeoutError:
            raise Busy("reading a large body took too long; try again", headers=_RETRY) from None
        except (_Died, OSError, MemoryError, subprocess.SubprocessError):
            why = "the process that reads large bodies could not be started, or died; try again"
            raise Busy(why, headers=_RETRY) from None

    async def close(self) -> None:
        """End the process, if there is one."""
        self._drop()
        for _ in range(_LOOKS):
            if not self._ending:
                break
            await asyncio.sleep(_REAP_S)
            self._reap()
        if self._reaping is not None:
            self._reaping.cancel()

    async def _do(self, work: Callable[..., T], body: bytes | bytearray, arguments: tuple[Any, ...]) -> T:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        self._reap()
        try:
            sock = await self._started()
            done, answer = await _ask(sock, pickle.dumps((work, arguments)), body)
        except BaseException:  # cancelled too: what is half said on the socket cannot be taken back
            self._drop()
            raise
        self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._drop)
        if not done:
            if isinstance(answer, MemoryError):
                self._drop()
            raise answer
        result: T = answer
        return result

    async def _started(self) -> socket.socket:
        """The socket of a process that is ready."""
        if self._sock is not None and self._process is not None and self._process.poll() is None:
            return self._sock
        for _ in range(_STARTS):
            self._drop()
            self._sock = sock = self._start()
            with suppress(ConnectionError):
                if await asyncio.get_running_loop().sock_recv(sock, 1):
                    return sock
        raise _Died

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            number = theirs.fileno()
            # -P, and the path as it is here: the working directory is nobody's business.
            path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
            code = f"from edge.api.parsing_process import serve; serve({number})"
            with _signals_blocked():
                self._process = subprocess.Popen(  # noqa: S603 - our own program
                    [sys.executable, "-P", "-c", code],
                    env={**os.environ, "PYTHONPATH": path},
                    pass_fds=(number,),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # this process logs what failed
                )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _drop(self) -> None:
        """Let go of the process; the next work gets another one. Needs neither a thread nor memory."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        process, self._process = self._process, None
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()
        if process is not None:
            process.kill()
            self._ending.append(process)
            self._reap()

    def _reap(self) -> None:
        """Learn of the end of those that were killed, now or a little later."""
        self._ending = [process for process in self._ending if process.poll() is None]
        if self._reaping is not None:
            self._reaping.cancel()
            self._reaping = None
        if self._ending:
            self._reaping = asyncio.get_running_loop().call_later(_REAP_S, self._reap)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """A process that is started inside gets no signal that is meant for Edge before it ignores them, 0.2 s later."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, EDGES_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _ask(sock: socket.socket, work: bytes, body: bytes | bytearray) -> tuple[bool, Any]:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, ASKED.pack(len(work), len(body)) + work)
    await loop.sock_sendall(sock, memoryview(body))
    size, count = ANSWERED.unpack(await _receive(sock, ANSWERED.size))
    sizes = LENGTH.iter_unpack(await _receive(sock, LENGTH.size * count))
    answer = await _receive(sock, size)
    apart = [await _receive(sock, one) for (one,) in sizes]
    done, value = Unpickler(BytesIO(answer), apart).load()
    return done, value


async def _receive(sock: socket.socket, size: int) -> bytes:
    loop, data = asyncio.get_running_loop(), bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        read = await loop.sock_recv_into(sock, view[at:])
        if not read:
            raise _Died
        at += read
    return bytes(data)
