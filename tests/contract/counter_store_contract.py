"""What every counter store promises (``edge.store.ports``), as one suite that each kind of store runs.

A kind's test module subclasses ``CounterStoreContract`` and gives it the ``opened`` fixture: a function that makes an
empty store with a clock.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import pytest

from contract.session_store_contract import Clock
from edge.policy.limits.counters import Account, Used
from edge.policy.limits.rules import Bound, Demand, Kind, Spent, Taken
from edge.store.ports import CounterStore

NOON = datetime(2026, 11, 28, 12, 0, 0, tzinfo=UTC).timestamp()

Opened = Callable[[Clock], Awaitable[CounterStore]]


def bounds(scope: str = "/ann", **limits: int) -> tuple[Bound, ...]:
    return tuple(Bound(Kind(kind), scope, limit) for kind, limit in limits.items())


def demand(number: object, tokens: int = 1, *, who: str = "ann", rule: str = "", **limits: int) -> Demand:
    return Demand(f"st_{number}", who, rule, tokens, bounds(f"{rule}/{who}", **limits))


async def settled(store: CounterStore) -> None:
    """Until what was ended is known wherever it is counted; a store that counts elsewhere has a way to wait for it."""
    await store.usage("2026-01-01")


class CounterStoreContract:
    """See the module."""

    @pytest.fixture
    def opened(self) -> Opened:
        """Make an empty store; it is closed at the end."""
        raise NotImplementedError

    async def test_a_demand_without_bounds_is_allowed_and_counts_when_it_is_settled(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        taken = await store.reserve(demand(1))
        assert (taken.allowed, taken.standings) == (True, ())
        assert await store.usage("2026-11-01") == {}
        store.end(taken, Spent(10, 20))
        assert await store.usage("2026-11-01") == {Account("2026-11-28", "ann", ""): Used(1, 10, 20)}
        assert await store.usage("2026-11-29") == {}

    async def test_requests_per_minute(self, opened: Opened) -> None:
        clock = Clock(NOON + 0.5)
        store = await opened(clock)
        for number in range(3):
            taken = await store.reserve(demand(number, requests_per_min=3))
            assert taken.allowed
            assert taken.standings[0].used == number + 1
            store.end(taken, Spent(1, 1))
            clock.now += 10
        refused = await store.reserve(demand("more", requests_per_min=3))
        assert not refused.allowed
        assert refused.standings[0].used == 3
        assert refused.standings[0].wait_s == pytest.approx(30.5, abs=0.01)
        assert refused.standings[0].reset_s == pytest.approx(50.5, abs=0.01)
        clock.now += 30.49
        assert not (await store.reserve(demand("early", requests_per_min=3))).allowed
        clock.now += 0.02
        assert (await store.reserve(demand("later", requests_per_min=3))).allowed

    async def test_all_of_a_demand_is_taken_or_nothing(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        limits = {"requests_per_min": 9, "tokens_per_min": 100, "concurrent": 9, "tokens_per_day": 1000}
        assert (await store.reserve(demand(1, 60, **limits))).allowed
        refused = await store.reserve(demand(2, 60, **limits))
        assert (refused.allowed, [standing.used for standing in refused.standings]) == (False, [1, 60, 1, 60])
        third = await store.reserve(demand(3, 40, **limits))
        assert (third.allowed, [standing.used for standing in third.standings]) == (True, [2, 100, 2, 100])

    async def test_tokens_are_settled_by_what_was_used(self, opened: Opened) -> None:
        clock = Clock(NOON)
        store = await opened(clock)
        cheap = await store.reserve(demand(1, 80, tokens_per_min=100))
        store.end(cheap, Spent(8, 2))
        await settled(store)
        clock.now += 10
        dear = await store.reserve(demand(2, 90, tokens_per_min=100))
        assert dear.allowed
        clock.now += 20
        store.end(dear, Spent(90, 60))
        await settled(store)
        refused = await store.reserve(demand(3, 1, tokens_per_min=100))
        assert (refused.allowed, refused.standings[0].used) == (False, 160)
        clock.now = NOON + 61
        assert (await store.reserve(demand(4, 1, tokens_per_min=100))).standings[0].used == 150
        clock.now = NOON + 71
        assert (await store.reserve(demand(5, 1, tokens_per_min=100))).standings[0].used == 61

    async def test_what_is_released_has_never_been(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        limits = {
            "requests_per_min": 1,
            "tokens_per_min": 50,
            "concurrent": 1,
            "tokens_per_day": 50,
            "tokens_per_month": 50,
        }
        for number in range(3):
            taken = await store.reserve(demand(number, 50, **limits))
            assert taken.allowed
            store.end(taken, None)
            store.end(taken, Spent(9, 9))
            await settled(store)
        assert await store.usage("2026-11-01") == {}

    async def test_as_many_at_once_as_are_allowed(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        running = [await store.reserve(demand(number, concurrent=2)) for number in range(3)]
        assert [taken.allowed for taken in running] == [True, True, False]
        store.end(running[2], Spent(1, 1))
        await settled(store)
        assert not (await store.reserve(demand("full", concurrent=2))).allowed
        store.end(running[0], Spent(1, 1))
        store.end(running[0], None)
        await settled(store)
        assert (await store.reserve(demand("free", concurrent=2))).allowed
        assert not (await store.reserve(demand("full again", concurrent=2))).allowed

    async def test_a_budget_is_for_its_day_or_month(self, opened: Opened) -> None:
        clock = Clock(NOON)
        store = await opened(clock)
        limits = {"tokens_per_day": 100, "tokens_per_month": 150}
        first = await store.reserve(demand(1, 40, **limits))
        store.end(first, Spent(40, 70))
        await settled(store)
        refused = await store.reserve(demand(2, **limits))
        assert [(standing.used, standing.wait_s) for standing in refused.standings] == [
            (110, 12 * 3600), (110, 60 * 3600),
        ]  # fmt: skip
        clock.now += 12 * 3600
        second = await store.reserve(demand(3, 40, **limits))
        assert [standing.used for standing in second.standings] == [40, 150]
        store.end(second, Spent(30, 0))
        await settled(store)
        assert not (await store.reserve(demand(4, 11, **limits))).allowed
        clock.now += 48 * 3600
        assert (await store.reserve(demand(5, 100, **limits))).allowed

    async def test_a_request_belongs_to_the_day_on_which_it_began(self, opened: Opened) -> None:
        clock = Clock(NOON + 12 * 3600 - 1)
        store = await opened(clock)
        taken = await store.reserve(demand(1, 40, tokens_per_day=100))
        clock.now += 2
        store.end(taken, Spent(40, 60))
        assert await store.usage("2026-11-01") == {Account("2026-11-28", "ann", ""): Used(1, 40, 60)}
        assert (await store.reserve(demand(2, 100, tokens_per_day=100))).standings[0].used == 100

    async def test_a_budget_counts_what_was_used_before_there_was_one(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        for number, (who, rule) in enumerate((("ann", "all"), ("ann", ""), ("bob", "all"))):
            store.end(await store.reserve(demand(number, who=who, rule=rule)), Spent(30, 3))
        await settled(store)
        shared = Demand("st_x", "ann", "all", 1, (Bound(Kind.DAY, "all/", 1000),))
        own = Demand("st_y", "ann", "all", 1, (Bound(Kind.MONTH, "/ann", 1000),))
        assert (await store.reserve(shared)).standings[0].used == 67
        assert (await store.reserve(own)).standings[0].used == 67

    async def test_everybody_has_counts_of_their_own(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        limits = {"requests_per_min": 1, "tokens_per_day": 10, "concurrent": 1}
        for number, (who, rule) in enumerate((("ann", ""), ("bob", ""), ("ann", "r"), ("a/b:\x00é\n", "r"))):
            assert (await store.reserve(demand(number, 10, who=who, rule=rule, **limits))).allowed
            assert not (await store.reserve(demand(f"{number}+", 1, who=who, rule=rule, **limits))).allowed

    async def test_of_many_at_once_exactly_as_many_get_in_as_there_is_room_for(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        takes = [store.reserve(demand(number, 7, tokens_per_min=100, concurrent=50)) for number in range(60)]
        got = await asyncio.gather(*takes)
        assert sum(taken.allowed for taken in got) == 100 // 7

    async def test_who_gives_up_while_it_is_asked_has_taken_nothing(self, opened: Opened) -> None:
        store = await opened(Clock(NOON))
        limits = {"concurrent": 1, "requests_per_min": 40, "tokens_per_day": 40}
        for number in range(30):
            asking = asyncio.get_running_loop().create_task(store.reserve(demand(number, **limits)))
            for _ in range(number % 6):
                await asyncio.sleep(0)
            asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                store.end(await asking, None)
            await settled(store)
        last = await store.reserve(demand("last", **limits))
        assert [standing.used for standing in last.standings] == [1, 1, 1]

    async def test_any_schedule_adds_up(self, opened: Opened) -> None:
        rng = random.Random(7)
        clock = Clock(NOON)
        store = await opened(clock)
        limits = {"requests_per_min": 30, "tokens_per_min": 5000, "concurrent": 8, "tokens_per_day": 10**6}
        held: list[Taken] = []
        requests = tokens = 0
        for number in range(400):
            clock.now += rng.random() * 4
            if held and rng.random() < 0.55:
                taken = held.pop(rng.randrange(len(held)))
                spent = None if rng.random() < 0.2 else Spent(rng.randrange(300), rng.randrange(300))
                store.end(taken, spent)
                if spent is not None:
                    requests, tokens = requests + 1, tokens + spent.prompt + spent.completion
                await settled(store)
            else:
                taken = await store.reserve(demand(number, rng.randrange(1, 400), **limits))
                if taken.allowed:
                    held.append(taken)
                    assert all(
                        standing.used <= bound.limit
                        for bound, standing in zip(taken.demand.bounds, taken.standings, strict=True)
                    )
            assert len(held) <= 8
        for taken in held:
            store.end(taken, None)
        assert await store.usage("2026-11-01") == {
            Account("2026-11-28", "ann", ""): Used(requests, *await _split(store, tokens))
        }
        last = await store.reserve(demand("last", **limits))
        assert (last.standings[2].used, last.standings[3].used) == (1, tokens + 1)


async def _split(store: CounterStore, tokens: int) -> tuple[int, int]:
    """How the tokens are split, which must add up."""
    (used,) = (await store.usage("2026-11-01")).values()
    assert used.tokens == tokens
    return used.prompt, used.completion
