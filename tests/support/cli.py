"""``edge`` as a user starts it: a process of its own, with a clean environment.

In: arguments and variables. Out: its exit status and output, or the running process. Must not: leave it running.
"""

import asyncio
import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from support.hanging import HANG_S, hang_limit

WITHIN_S = HANG_S


@dataclass(frozen=True)
class Done:
    """An ended process."""

    status: int
    out: str
    err: str

    @property
    def err_lines(self) -> list[str]:
        return self.err.splitlines()


@cache
def _runtime_directory() -> str:
    """Where no command finds an Edge of anybody else's: one for each process that runs tests."""
    directory = tempfile.TemporaryDirectory(prefix="edge-tests-")
    atexit.register(directory.cleanup)
    return directory.name


def environment(**variables: str) -> dict[str, str]:
    """Ours without any setting of Edge's; by default no ports are looked at."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    given = {
        "EDGE_DISCOVERY_ENABLED": "false",
        "EDGE_SERVER_LISTEN": "127.0.0.1:0",
        "XDG_RUNTIME_DIR": _runtime_directory(),
        "XDG_CONFIG_HOME": _runtime_directory(),
        "TMPDIR": _runtime_directory(),
        **variables,
    }
    return {**clean, **{name: value for name, value in given.items() if value}}


class _Commands:
    """A process that runs commands of ``edge``, one at a time; see ``support.commands``."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, Path(__file__).with_name("commands.py"), str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 - ours
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )

    def run(self, args: Sequence[str], env: Mapping[str, str]) -> Done:
        """Run one to its end."""
        wish = orjson.dumps({"args": args, "env": env, "cwd": str(Path.cwd())})
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            socket.send_fds(self._ours, [wish], [out.fileno(), err.fileno()])
            status = int(self._ours.recv(16) or b"-9")
            out.seek(0)
            err.seek(0)
            return Done(status, out.read().decode(), err.read().decode())

    def kill(self) -> None:
        """End it, and the command that it runs."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._ours.close()


_commands: list[_Commands] = []  # the one of this process, while there is one
_turn = threading.Lock()


@atexit.register
def _no_commands() -> None:
    while _commands:
        _commands.pop().kill()


def _run(args: Sequence[str], env: Mapping[str, str]) -> Done:
    with _turn:
        if not _commands:
            _commands.append(_Commands())
        return _commands[0].run(args, env)


async def run(*args: str, by: Sequence[str] = (), **variables: str) -> Done:
    """Run a command of ``edge`` to its end; ``by`` another program, such as ``setpriv``."""
    if by:
        return await _python("-m", "edge", *args, by=by, **variables)
    running = asyncio.create_task(asyncio.to_thread(_run, args, environment(**variables)))
    try:
        async with hang_limit():
            return await asyncio.shield(running)
    except BaseException:
        _no_commands()
        await asyncio.wait([running])
        raise


async def run_code(code: str, **variables: str) -> Done:
    """Run a program to its end, in the environment that ``edge`` would have."""
    return await _python("-c", code, **variables)


async def _python(*args: str, by: Sequence[str] = (), **variables: str) -> Done:
    process = await asyncio.create_subprocess_exec(
        *by, sys.executable, *args,
        env=environment(**variables), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with hang_limit():
            out, err = await process.communicate()
    finally:
        await _end(process)
    return Done(process.returncode or 0, out.decode(), err.decode())


class Serving:
    """A running ``edge serve``.

    Attributes:
        log: What it has logged, as far as it was waited for.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid
        self.url = ""
        self.log = ""

    async def line(self, event: str) -> dict[str, Any]:
        """Its next log line of this event."""
        stream = self._process.stderr
        assert stream is not None
        async with hang_limit():
            while line := (await stream.readline()).decode():
                self.log += line
                if (told := orjson.loads(line))["event"] == event:
                    return dict(told)
        raise AssertionError(f"it ended before {event!r}: {self.log}")

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def resident_mib(self) -> float:
        """What it occupies now."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1024

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def ended(self) -> Done:
        """Wait for its end; with everything that it has logged."""
        async with hang_limit():
            _, err = await self._process.communicate()
        return Done(self._process.returncode or 0, "", self.log + err.decode())

    async def signalled(self, number: int) -> Done:
        """Send a signal, and wait for the end."""
        self.signal(number)
        return await self.ended()


@asynccontextmanager
async def serving(*args: str, by: Sequence[str] = (), **variables: str) -> AsyncIterator[Serving]:
    """Start ``edge serve`` and wait until it listens."""
    command = (*by, sys.executable, "-m", "edge", "serve", *args)
    process = await asyncio.create_subprocess_exec(
        *command, env=environment(**variables), stderr=asyncio.subprocess.PIPE
    )
    try:
        one = Serving(process)
        one.url = (await one.line("listening"))["addresses"][0]
        yield one
    finally:
        await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
