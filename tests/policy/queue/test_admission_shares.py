"""What admission promises, over thousands of simulated requests: shares by weight, nobody starved, nothing idle."""

import random
import time
from itertools import count

import pytest
from support.queues import Caller, House, Principal, Simulation, rules

from edge.policy.queue.lanes import Bounds, Claim, Lane
from edge.policy.queue.queue import BATCH_EVERY, MOST_COST, Queue, Waiting


def within(share: float, expected: float, by: float = 0.05) -> bool:
    return abs(share - expected) <= by * expected


@pytest.mark.parametrize("capacity", [1, 4, 16])
@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3), (1, 10), (0.5, 1, 2.5, 4)])
def test_slots_are_shared_by_weight(capacity, weights):
    house = House(rules(length=10_000))
    queue = house.queue(capacity)
    simulation = Simulation(house, queue)
    for n, weight in enumerate(weights):
        simulation.add(Principal(f"p{n}", lambda: 1.0, weight, backlog=20 * capacity))
    simulation.run(until=6000 / capacity)
    total = sum(p.served for p in simulation.principals)
    assert total >= 5000
    for principal in simulation.principals:
        assert within(principal.served / total, principal.weight / sum(weights)), principal


@pytest.mark.parametrize("capacity", [1, 4])
def test_whoever_sends_long_requests_gets_no_more_of_the_time(capacity):
    """Three times as long, a third as many."""
    chance = random.Random(5)
    house = House(rules(length=10_000))
    queue = house.queue(capacity)
    simulation = Simulation(house, queue)
    long = simulation.add(Principal("long", lambda: chance.uniform(2.0, 4.0), backlog=50))
    short = simulation.add(Principal("short", lambda: chance.uniform(0.5, 1.5), backlog=50))
    twice = simulation.add(Principal("twice", lambda: chance.expovariate(1.0), weight=2.0, backlog=50))
    simulation.run(until=12_000 / capacity)
    total = long.busy_s + short.busy_s + twice.busy_s
    assert within(long.busy_s / total, 0.25)
    assert within(short.busy_s / total, 0.25)
    assert within(twice.busy_s / total, 0.5)
    assert within(short.served / long.served, 3.0, 0.1)


def test_a_flood_takes_nothing_from_the_others():
    """100 requests at a time against 1 at a time: who asks for little gets it at once, or in the next place."""
    house = House(rules(length=64))
    queue = house.queue(2)
    simulation = Simulation(house, queue)
    flood = simulation.add(Principal("flood", lambda: 1.0, backlog=200))
    calm = [simulation.add(Principal(f"calm-{n}", lambda: 1.0, backlog=4)) for n in range(2)]
    simulation.run(until=3000)
    total = flood.served + sum(p.served for p in calm)
    assert total >= 5900, "and nothing is idle"
    for principal in calm:
        assert within(principal.served / total, 1 / 3)
        assert principal.refused == 0, "its part of the places is sure"
        assert principal.longest_s <= 8.0
    assert flood.refused > 0


def test_one_request_at_a_time_waits_for_one_of_each_other_at_most():
    house = House(rules(length=1000))
    queue = house.queue(1)
    simulation = Simulation(house, queue)
    for n in range(9):
        simulation.add(Principal(f"flood-{n}", lambda: 1.0, backlog=50))
    lone = simulation.add(Principal("lone", lambda: 1.0, backlog=1))
    simulation.run(until=3000)
    assert lone.longest_s <= 10.0
    assert within(lone.served / 3000, 0.1)


def test_a_debt_is_bounded():
    """One request of 1,000 s among those of 1 s: whoever sent it is not kept waiting for as long as that."""
    house = House(rules(length=1000))
    queue = house.queue(1)
    simulation = Simulation(house, queue)
    numbers = count()
    giant = simulation.add(Principal("giant", lambda: 1000.0 if next(numbers) == 5 else 1.0, backlog=1))
    simulation.add(Principal("other", lambda: 1.0, backlog=50))
    simulation.run(until=1100)
    assert giant.served > 6
    assert giant.longest_s <= MOST_COST + 2


@pytest.mark.parametrize("others", [1, 5])
def test_batch_gets_its_part_once_it_has_aged(others):
    """Interactive alone would take all: with ageing, one grant in four at least is batch's."""
    house = House(rules(length=10_000, ageing_s=30.0))
    queue = house.queue(2)
    simulation = Simulation(house, queue)
    for n in range(others):
        simulation.add(Principal(f"now-{n}", lambda: 1.0, backlog=40))
    batch = simulation.add(Principal("later", lambda: 1.0, lane=Lane.BATCH, backlog=12))
    simulation.run(until=2000)
    total = sum(p.served for p in simulation.principals)
    assert batch.longest_s <= 30.0 + 12 * BATCH_EVERY / 2 + 2, "the bound that admission states"
    assert batch.served / total <= 1 / BATCH_EVERY
    assert batch.served >= 0.9 * 2000 * 12 / (30.0 + 12 * BATCH_EVERY / 2 + 2)


def test_batch_runs_whenever_nobody_is_in_a_hurry():
    house = House(rules(length=10_000))
    queue = house.queue(2)
    simulation = Simulation(house, queue)
    simulation.add(Principal("later", lambda: 1.0, lane=Lane.BATCH, backlog=5))
    simulation.run(until=100)
    assert queue.slots.grants >= 199


def test_no_wait_is_longer_than_its_bound():
    house = House(rules(length=10_000, batch=Bounds(10_000, 60.0), wait_s=10.0))
    queue = house.queue(1)
    simulation = Simulation(house, queue)
    many = [simulation.add(Principal(f"p{n}", lambda: 1.0, backlog=10)) for n in range(5)]
    many.append(simulation.add(Principal("b", lambda: 1.0, lane=Lane.BATCH, backlog=10)))
    simulation.run(until=1000)
    assert all(p.longest_s <= 10.0 + 1 for p in many[:5])
    assert many[5].longest_s <= 60.0 + 1
    assert sum(p.refused for p in many) > 0
    assert queue.slots.grants >= 999


def test_several_upstreams_are_all_kept_busy_by_whoever_may_use_them():
    """One may use both, one only the second: the first's time is not lost while anybody waits for it."""
    house = House(rules(length=1000))
    fast, slow = house.queue(1, "fast"), house.queue(3, "slow")
    simulation = Simulation(house, fast, slow)
    simulation.add(Principal("both", lambda: 1.0, backlog=20))
    simulation.add(Principal("slow only", lambda: 1.0, backlog=20, queues=[slow]))
    simulation.run(until=1000)
    assert simulation.by_queue["fast"] >= 998
    assert simulation.by_queue["slow"] >= 3 * 998


@pytest.mark.parametrize("principals", [1, 100, 10_000])
def test_ten_thousand_waiters_cost_about_as_much_each_as_two_hundred(principals):
    """To come, to leave or to be granted a slot, and to end; the machine is noisy, hence the margin."""
    cost(200, principals)
    assert cost(10_000, principals) < 5 * cost(200, principals) + 20e-6


def cost(waiters: int, principals: int) -> float:
    """Seconds of CPU for each, at best: what else the machine does is not counted."""
    house = House(rules(length=100_000))
    queue = house.queue(1)
    return min(lives(house, queue, waiters, principals) for _ in range(3)) / waiters


def lives(house: House, queue: Queue, waiters: int, principals: int) -> float:
    slots = list(house.ask(queue)[0].slots)

    class Collecting(Caller):
        def granted(self, waiting: Waiting) -> None:
            assert waiting.slot is not None
            slots.append(waiting.slot)

    began = time.thread_time()
    entered = [
        house.admission.enter(Claim(f"p{n % principals}"), [queue], Collecting(), house.now) for n in range(waiters)
    ]
    for one in entered[::2]:
        assert isinstance(one, Waiting)
        one.leave(house.now)
    while slots:
        house.now += 1.0
        slots.pop().release(house.now)
    took = time.thread_time() - began
    assert not queue.waiting
    return took
