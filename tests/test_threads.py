"""A moment without threads: work fails then, in a way that callers expect, and is done again afterwards."""

import asyncio
import threading

import pytest

from edge.threads import Threads


@pytest.fixture
def shortage(monkeypatch):
    """As at the limit of a container's processes."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        yield patched


async def test_work_without_a_thread_fails_and_is_not_done_later(shortage) -> None:
    done: list[int] = []
    loop = asyncio.get_running_loop()
    threads = Threads(1)
    with pytest.raises(OSError, match="no thread can be started"):
        await loop.run_in_executor(threads, done.append, 1)
    shortage.undo()
    await loop.run_in_executor(threads, done.append, 2)
    assert done == [2]
    threads.shutdown()


def test_work_after_the_end_is_still_a_bug() -> None:
    threads = Threads(1)
    threads.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        threads.submit(print)
