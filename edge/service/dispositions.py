"""What signals do in a program that Edge starts: what they do by default, however Edge itself was started.

In: a block that starts a program. Out: the program's signals are neither ignored nor lost. Must not: change what this
process does on a signal.

A signal that a process ignores is ignored by what it executes too, and a shell without job control starts what it puts
in the background with SIGINT ignored (``nohup`` does so with SIGHUP). A handler is not inherited.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do what SIG_IGN does, in a way that no child inherits."""


@contextmanager
def not_inherited() -> Iterator[None]:
    """Programs that are started inside the block begin with no signal ignored.

    Only the main thread can do this; in another the block changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = [number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN]
    try:
        for number in ignored:
            signal.signal(number, _ignore)
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
