"""The one way to wait in a test: with a limit that is there against hanging alone, and that tells who waited for what.

In: what is waited for. Out: it has come; or, after two minutes, every thread's and every task's stack, and a failure.
Must not: measure anything. A machine may be as busy as it likes; what a test proves it proves by the order of events.
"""

import asyncio
import faulthandler
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType
from typing import Any

HANG_S = 120.0
_POLL_S = 0.005


def dump() -> None:
    """Show what every thread, and every task of this one's loop, is waiting for."""
    stream = sys.__stderr__  # pytest's own may be no file; xdist shows this one too
    assert stream is not None
    faulthandler.dump_traceback(stream, all_threads=True)
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:  # no loop runs here
        return
    for task in tasks:
        task.print_stack(limit=12, file=stream)
    stream.flush()


@asynccontextmanager
async def hang_limit(limit_s: float = HANG_S) -> AsyncIterator[None]:
    """What is inside the block takes as long as it takes; after the limit it hangs.

    Raises:
        TimeoutError: It hung. The stacks are on stderr.
    """
    loop = asyncio.get_running_loop()
    told = loop.call_later(max(limit_s - 0.1, 0), dump)  # before the block's own stack is unwound
    try:
        async with asyncio.timeout(limit_s):
            yield
    finally:
        told.cancel()


@asynccontextmanager
async def machine_stands_still() -> AsyncIterator[list[float]]:
    """How long this loop stood still, each time, while the block ran: where a pace is under test, was it kept?"""
    loop = asyncio.get_running_loop()
    stills = [0.0]

    async def watch() -> None:
        while True:
            due = loop.time() + _POLL_S
            await asyncio.sleep(_POLL_S)
            stills.append(loop.time() - due)

    watching = asyncio.create_task(watch())
    try:
        yield stills
    finally:
        watching.cancel()


async def until(true: Callable[[], Any], limit_s: float = HANG_S, poll_s: float = _POLL_S) -> None:
    """Wait for what no event tells of."""
    async with hang_limit(limit_s):
        while not true():
            await asyncio.sleep(poll_s)


def until_blocking(true: Callable[[], Any], limit_s: float = HANG_S, poll_s: float = _POLL_S) -> None:
    """The same where no loop runs.

    Raises:
        TimeoutError: It has not happened. The stacks are on stderr.
    """
    end = time.monotonic() + limit_s
    while not true():
        if time.monotonic() > end:
            dump()
            raise TimeoutError(f"not within {limit_s:g} s")
        time.sleep(poll_s)


def steps_of(work: Callable[[], Any]) -> int:
    """How much work it is: the steps that the interpreter takes, on whatever machine."""
    steps = 0

    def count(frame: FrameType, event: str, _arg: Any) -> Any:
        nonlocal steps
        frame.f_trace_opcodes = True
        steps += event == "opcode"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        work()
    finally:
        sys.settrace(before)
    return steps
