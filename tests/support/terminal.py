"""``edge`` at a terminal: what somebody who types the command sees.

In: arguments, variables, how wide the terminal is. Out: the text on the screen. Must not: leave a process running.
"""

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from support.cli import environment
from support.hanging import hang_limit


class Screen:
    """What has been shown so far; ``port`` of the Edge that it names."""

    def __init__(self, process: asyncio.subprocess.Process, descriptor: int) -> None:
        self.process = process
        self._descriptor = descriptor
        self._raw = b""
        self._more = asyncio.Event()
        self._ended = False
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # nobody has the other end any more
            data = b""
        if not data:
            self._ended = True
            self.close()
        self._raw += data
        self._more.set()

    @property
    def text(self) -> str:
        return self._raw.decode().replace("\r\n", "\n")

    @property
    def port(self) -> int:
        found = re.search(r"http://127\.0\.0\.1:(\d+)", self.text)
        assert found is not None, self.text
        return int(found[1])

    async def shows(self, pattern: str) -> re.Match[str]:
        """Wait until the text matches somewhere."""
        async with hang_limit():
            while (found := re.search(pattern, self.text)) is None:
                assert not self._ended, f"ended without {pattern!r}:\n{self.text}"
                self._more.clear()
                await self._more.wait()
        return found

    async def ended(self) -> int:
        """Wait for its end; the exit status."""
        async with hang_limit():
            return await self.process.wait()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)


@asynccontextmanager
async def terminal(
    *args: str, columns: int = 100, directory: Path | None = None, **variables: str
) -> AsyncIterator[Screen]:
    """Run a command of ``edge`` at a terminal of that width."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "edge", *args),
            env=environment(TERM="xterm", **variables),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            start_new_session=True,
        )
    finally:
        os.close(theirs)
    screen = Screen(process, ours)
    try:
        yield screen
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        screen.close()
        os.close(ours)
