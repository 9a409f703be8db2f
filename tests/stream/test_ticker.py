"""One timer looks at every clock, sleeps while there is none, and no one thing can stop it for the others."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from support.virtual import VirtualLoop, run_virtual

from edge.settings import Stream
from edge.stream.ticker import Ticker, interval_for


class Clock:
    """The loop's time, and how often it was asked for: once a sweep."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.sweeps = 0

    def __call__(self) -> float:
        self.sweeps += 1
        return self._loop.time()


class Thing:
    def __init__(self, then: Callable[[float], None] = lambda _now: None) -> None:
        self.ticks: list[float] = []
        self._then = then

    def tick(self, now: float) -> None:
        self.ticks.append(now)
        self._then(now)


def test_everything_registered_is_ticked_at_every_interval() -> None:
    async def main(loop: VirtualLoop) -> None:
        ticker = Ticker(0.25, Clock(loop))
        one, two = Thing(), Thing()
        ticker.add(one)
        await asyncio.sleep(0.6)
        ticker.add(two)
        ticker.add(two)
        await asyncio.sleep(0.5)
        assert one.ticks == pytest.approx([0.25, 0.5, 0.75, 1.0])
        assert two.ticks == pytest.approx([0.75, 1.0])
        assert len(ticker) == 2
        ticker.close()

    run_virtual(main)


def test_it_sleeps_while_nothing_is_registered() -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = Clock(loop)
        ticker = Ticker(0.25, clock)
        await asyncio.sleep(3600)
        assert clock.sweeps == 0
        thing = Thing()
        ticker.add(thing)
        await asyncio.sleep(1.1)
        ticker.discard(thing)
        ticker.discard(thing)
        await asyncio.sleep(3600)
        assert clock.sweeps <= 5, "at most the sweep that was under way"
        assert len(thing.ticks) == 4
        ticker.add(thing)
        await asyncio.sleep(0.3)
        assert len(thing.ticks) == 5, "and it wakes up again"
        ticker.close()

    run_virtual(main)


def test_a_thing_that_raises_stops_no_other() -> None:
    """And its bug is told."""

    def fail(_now: float) -> None:
        raise ValueError("a bug")

    async def main(loop: VirtualLoop) -> None:
        told: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _loop, context: told.append(context))
        ticker = Ticker(0.25, Clock(loop))
        things = [Thing(), Thing(fail), Thing(), Thing(fail), Thing()]
        for thing in things:
            ticker.add(thing)
        await asyncio.sleep(0.6)
        assert [len(thing.ticks) for thing in things] == [2] * 5
        assert [str(context["exception"]) for context in told] == ["a bug"] * 4
        ticker.close()

    run_virtual(main)


def test_things_may_come_and_go_while_they_are_ticked() -> None:
    async def main(loop: VirtualLoop) -> None:
        clock = Clock(loop)
        ticker = Ticker(0.25, clock)
        late = Thing()
        leaving = Thing(lambda _now: ticker.discard(leaving))
        bringing = Thing(lambda _now: ticker.add(late))
        ticker.add(leaving)
        ticker.add(bringing)
        await asyncio.sleep(1.1)
        assert (len(leaving.ticks), len(bringing.ticks), len(late.ticks)) == (1, 4, 3)
        assert clock.sweeps == 4, "there is still one timer"
        ticker.close()

    run_virtual(main)


def test_closed_means_for_good() -> None:
    async def main(loop: VirtualLoop) -> None:
        ticker = Ticker(0.25, Clock(loop))
        closing = Thing(lambda _now: ticker.close())
        ticker.add(closing)
        await asyncio.sleep(1)
        assert len(closing.ticks) == 1
        ticker.add(Thing())
        await asyncio.sleep(1)
        ticker.close()
        assert len(closing.ticks) == 1
        assert len(ticker) == 2, "what was not discarded can be found"

    run_virtual(main)


@pytest.mark.parametrize(
    ("clocks", "interval_s"),
    [
        ({}, 0.25),
        ({"heartbeat_s": 0.5}, 0.1),
        ({"connect_s": 0.25}, 0.05),
        ({"total_s": 0.5}, 0.1),
        ({"client_stall_s": 0.001}, 0.02),
        ({"inter_token_s": 1.0, "commit_after_s": 0.3, "first_token_s": 9.0}, 0.06),
    ],
)
def test_the_interval_is_a_fifth_of_the_shortest_clock_within_bounds(clocks: Any, interval_s: float) -> None:
    assert interval_for(msgspec.convert(clocks, Stream)) == pytest.approx(interval_s)
