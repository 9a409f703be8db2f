"""An event loop whose time is ours: nobody waits for it, and it moves only when every task is waiting.

In: a coroutine function. Out: its result, after any number of seconds that took no time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class _Selector(selectors.SelectSelector):
    """Where the loop would sleep, time jumps instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "all tasks wait for something that will never come"
        self.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock begins at 0."""

    def __init__(self) -> None:
        self._ours = _Selector()
        super().__init__(self._ours)

    def time(self) -> float:
        return self._ours.now


def run_virtual(main: Callable[[VirtualLoop], Coroutine[Any, Any, None]]) -> None:
    """Run ``main(loop)`` on a fresh loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        runner.run(main(loop))
