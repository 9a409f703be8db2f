"""Threads for what blocks, in a process that may be short of threads or memory for a moment.

In: work. Out: a future of what came of it. Must not: raise instead of giving a future, or do later what has failed.
"""

import errno
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from typing_extensions import override

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    """A ``ThreadPoolExecutor`` whose work fails with ``OSError`` while no thread can be started.

    The standard one raises ``RuntimeError`` then, which callers take for a bug, and has already queued the work: it
    would be done with the next work that gets a thread, though its caller has seen it fail.
    """

    @override
    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        work = _Work(fn)
        try:
            return super().submit(work, *args, **kwargs)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "thread" not in str(error):  # it was shut down
                raise
            work.wanted = False
            failed: Future[T] = Future()
            failed.set_exception(OSError(errno.EAGAIN, "no thread can be started now"))
            return failed


class _Work:
    """Work that may not be wanted any more when its turn comes."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.wanted = True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs) if self.wanted else None
