"""Child processes on a chosen core, which end with us whatever happens.

In: command lines. Out: running children with their output in a file. Must not: know what they do.
"""

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

STOP_S = 5.0
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def cores() -> tuple[int, int]:
    """The core for the proxy, and the one for load and model server; the same if there is only one."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]


def raise_file_limit() -> None:
    """As many open files as we may have; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Process:
    """A child in a process group of its own, as a context manager: the whole group is gone after it.

    Args:
        log: The file that takes what it says.
        piped: stdin and stdout are pipes; only stderr goes into the log.
    """

    def __init__(
        self, argv: Sequence[str], core: int, log: Path, env: Mapping[str, str] | None = None, *, piped: bool = False
    ) -> None:
        self._argv, self._core, self.log, self._piped = list(argv), core, log, piped
        self._env = {**os.environ, **(env or {})}
        self.popen: subprocess.Popen[bytes]
        self.started = 0.0

    def __enter__(self) -> Self:
        parent, core = os.getpid(), self._core

        def prepare() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)  # nginx, killed harder, would leave its worker
            if os.getppid() != parent:
                os._exit(1)
            os.sched_setaffinity(0, {core})

        with self.log.open("wb") as log:
            self.started = time.monotonic()
            self.popen = subprocess.Popen(  # noqa: S603 - our own command lines
                self._argv,
                stdin=subprocess.PIPE if self._piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if self._piped else log,
                stderr=log,
                env=self._env,
                start_new_session=True,
                preexec_fn=prepare,  # noqa: PLW1509 - this process has no threads that could hold a lock
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)  # whoever of its group is still there
        self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def out(self) -> IO[bytes]:
        """What it says on a piped stdout."""
        if self.popen.stdout is None:
            raise RuntimeError("its stdout is no pipe")
        return self.popen.stdout

    def ended(self) -> str | None:
        """How it ended, with its last words; None while it runs."""
        status = self.popen.poll()
        if status is None:
            return None
        said = self.log.read_text(errors="replace").strip().splitlines()
        return f"ended with status {status}: {' / '.join(said[-3:])[-300:]}"
