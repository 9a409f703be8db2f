"""Programs that are started as a shell without job control, or ``nohup``, starts them: with signals ignored.

In: a command, or a block. Out: the same with signals ignored, and what a process ignores. Must not: leave them ignored.
"""

import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

# What a shell ignores for what it puts in the background, what nohup ignores, and two that Edge has a use for or none.
IGNORED = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
PYTHONS_OWN = {signal.SIGPIPE, signal.SIGXFSZ}  # every Python ignores these by itself

_IGNORE = (
    "import os, signal, sys\n"
    "for number in sys.argv[1].split(','): signal.signal(int(number), signal.SIG_IGN)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


def ignoring(command: Sequence[str]) -> list[str]:
    """The command, run with those signals ignored; its first word is a path."""
    return [sys.executable, "-I", "-S", "-c", _IGNORE, ",".join(str(int(number)) for number in IGNORED), *command]


@contextmanager
def ignored_here() -> Iterator[None]:
    """This process ignores them, inside the block."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in IGNORED]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def ignored_in(status: str) -> set[int]:
    """The signals that a process ignores, by its ``/proc/PID/status``.

    Without those that libc keeps for its threads (32 and 33): no program can set them, so what started us decides.
    """
    found = re.search(r"SigIgn:\s*([0-9a-f]+)", status)
    assert found is not None
    bits = int(found[1], 16)
    return {int(number) for number in signal.valid_signals() if bits >> (int(number) - 1) & 1}


def ignored_by(pid: int) -> set[int]:
    """The signals that a running process ignores."""
    return ignored_in(Path(f"/proc/{pid}/status").read_text())


def hand_on_nothing() -> None:
    """From now on what this process starts begins with no signal ignored, however the process was started itself."""
    for number in signal.valid_signals() - PYTHONS_OWN:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)  # to us it is the same, and no child inherits it
