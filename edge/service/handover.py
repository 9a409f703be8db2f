"""From one process to the next: the listening sockets are inherited, and a pipe brings the answer back.

In: the sockets that this process listens on; or, in the new process, the environment. Out: a process that serves, or
why there is none. Must not: close or unlink anything of the old process, which goes on if the new one fails.

The new process is nobody's child: it forks once more at its start, so that whatever supervises the old one (process 1,
usually systemd) is its parent too, and learns of its end.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress

import orjson

from edge.service.dispositions import not_inherited

Sockets = Mapping[str, Sequence[int]]  # descriptors by the address that was configured

START_S = 30.0  # a start takes about a second, and five at the worst
_VARIABLE = "EDGE_ADOPT"
_READY = b"ready"
_FIRST_PROCESS = 1
# Each is about the old process.
_NOT_INHERITED = frozenset({"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", _VARIABLE})


class HandoverError(Exception):
    """No new process has taken over; the text says why."""


class Predecessor:
    """The process that this one is to replace.

    Attributes:
        sockets: What it listens on.
    """

    def __init__(self, sockets: Sockets, answer: int) -> None:
        self.sockets = sockets
        self._answer: int | None = answer

    def ready(self) -> None:
        """This process serves: the other one can leave.

        Raises:
            OSError: the other one does not wait for this one any more.
        """
        self._end(_READY)

    def failed(self, why: str) -> None:
        """This process cannot take over."""
        with suppress(OSError):
            self._end(why.encode(errors="replace"))

    def _end(self, words: bytes) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            with os.fdopen(answer, "wb") as pipe:
                pipe.write(words)


def adopt(environ: MutableMapping[str, str]) -> Predecessor | None:
    """The process that started this one to replace it, if one did. To be called before there are threads.

    Raises:
        OSError: that process has ended by now.
    """
    fields = environ.pop(_VARIABLE, None)
    if fields is None:
        return None
    given = orjson.loads(fields)
    sockets: dict[str, list[int]] = given["sockets"]
    for descriptor in (given["answer"], *(number for numbers in sockets.values() for number in numbers)):
        os.set_inheritable(descriptor, False)
    if os.fork():
        os._exit(0)
    os.write(given["answer"], f"{os.getpid()}\n".encode())
    return Predecessor(sockets, given["answer"])


async def replace_by_new(sockets: Sockets) -> int:
    """Start this program again, as it was started, with these sockets.

    Returns:
        Its process id, once it has said that it serves.

    Raises:
        HandoverError: it does not, for the reason that the text gives.
    """
    if os.getpid() == _FIRST_PROCESS:
        raise HandoverError("this is process 1, with which a container ends: start another container instead")
    reading, writing = os.pipe()
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb")
    )
    parent: subprocess.Popen[bytes] | None = None
    pid = 0
    try:
        try:
            parent = _spawn(sockets, writing)
        finally:
            os.close(writing)
        async with asyncio.timeout(START_S):
            pid = int(await reader.readline() or b"0")
            answer = await reader.read()
            status = await asyncio.to_thread(parent.wait)
        if answer != _READY:
            gone = f"the new process ended before it was ready (status {status}); what it printed says why"
            raise HandoverError(answer.decode(errors="replace") or gone)
        started, pid = pid, 0
    except TimeoutError:
        raise HandoverError(f"the new process was not ready within {START_S:g} s") from None
    except OSError as error:
        raise HandoverError(f"the new process cannot be started: {error.strerror or error}") from None
    finally:
        transport.close()
        if parent is not None and parent.poll() is None:
            parent.kill()
            parent.wait()
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    return started


def _spawn(sockets: Sockets, writing: int) -> subprocess.Popen[bytes]:
    environ = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    environ[_VARIABLE] = orjson.dumps({"sockets": sockets, "answer": writing}).decode()
    passed = (writing, *(number for numbers in sockets.values() for number in numbers))
    command = [sys.executable, *sys.orig_argv[1:]]
    with not_inherited():
        return subprocess.Popen(command, env=environ, pass_fds=passed)  # noqa: S603 - it is what runs already
