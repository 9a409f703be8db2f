"""A child process that does not outlive this one, with its output in a file.

In: a command line. Out: whether it still runs, the tail of what it said, and its certain end.
Must not: know what the child does, share the terminal's Ctrl-C with it (whoever started it decides when it ends), or
hand on that it ignores a signal itself.
"""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from edge.service.dispositions import not_inherited

STOP_S = 5.0  # a child that has not ended this long after SIGTERM is killed
TAIL_BYTES = 8192

# Linux ends the child when its parent dies, even by SIGKILL. The request survives exec, so a first short program makes
# it and becomes the real one: subprocess's own hook (preexec_fn) may deadlock where there are threads. It is a Python,
# which ignores two signals by itself: those too are as by default in the real one.
_LEASH = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Unavailable(Exception):
    """Something that is needed is not to be had; the text is one line that says what mends it."""


class Died(Exception):
    """A child ended by itself; the text says which, how, and what it said last."""


class Child:
    """One child process, as a context manager: it runs inside the ``with`` block and is gone after it.

    Start it from the main thread: Linux counts the death of the thread that started it as the parent's.

    Args:
        name: What to call it in messages.
        argv: The command; the first word is an absolute path.
        log: The file that takes its stdout and stderr.
        env: Its environment; None for our own.
    """

    def __init__(self, name: str, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log = log
        self._argv = list(argv)
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        argv = self._argv
        if sys.platform == "linux":
            argv = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), *argv]
        with self.log.open("wb") as log, not_inherited():
            self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
                argv,
                stdin=subprocess.PIPE,  # never written to: its end shows the child that we are gone
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._running().pid

    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._running().poll()

    def check(self) -> None:
        """Return while it runs.

        Raises:
            Died: It has ended.
        """
        status = self.status()
        if status is not None:
            how = f"with status {status}" if status >= 0 else f"by signal {-status}"
            raise Died(f"{self.name} ended {how}. Its last words:\n{self.tail()}")

    def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL. Returns when it is gone; idempotent."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def said(self) -> str:
        """Everything in its log."""
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        with self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._process
