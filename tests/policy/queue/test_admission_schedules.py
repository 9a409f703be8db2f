"""Ten thousand random lives of three queues: no slot is lost, none is given out twice, nobody is forgotten."""

import random
from collections.abc import Callable

import pytest
from support.queues import Caller, House, rules

from edge.policy.queue.lanes import Bounds, Claim, Lane
from edge.policy.queue.queue import Waiting, Waits
from edge.policy.queue.refusal import Refusal
from edge.policy.queue.slots import Slot, SlotState

SCHEDULES = 10_000
STEPS = 30


class Someone(Caller):
    """Does something of its own, now and then, in the very moment in which it is told something."""

    def __init__(self, life: "Life") -> None:
        super().__init__()
        self.life = life

    def granted(self, waiting: Waiting) -> None:
        super().granted(waiting)
        assert waiting.slot is not None
        self.life.given(waiting.slot)
        if self.life.chance.random() < 0.3:
            waiting.leave(self.life.house.now)
        elif self.life.chance.random() < 0.2:
            self.life.come()

    def refused(self, refusal: Refusal) -> None:
        super().refused(refusal)
        if self.life.chance.random() < 0.2:
            self.life.come()


class Life:
    """One random schedule."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.house = House(rules(length=4, wait_s=30.0, ageing_s=10.0, batch=Bounds(3, 60.0)))
        capacities = [1, 2, chance.choice([1, 3, None])]
        self.queues = [self.house.queue(capacity, f"q{n}", drain_s=5.0) for n, capacity in enumerate(capacities)]
        self.waits: list[tuple[Someone, Waiting]] = []
        self.slots: list[Slot] = []

    def given(self, slot: Slot) -> None:
        assert slot not in self.slots, "granted twice"
        self.slots.append(slot)

    def come(self) -> None:
        chance = self.chance
        someone = Someone(self)
        claim = Claim(chance.choice("abcd"), chance.choice([0.5, 1.0, 3.0]), chance.choice(list(Lane)))
        queues = chance.sample(self.queues, chance.randint(1, 3))
        answer = self.house.admission.enter(claim, queues, someone, self.house.now, first=chance.random() < 0.1)
        if isinstance(answer, Waiting):
            self.waits.append((someone, answer))
            if answer.slot is not None and not someone.slots:
                someone.slots.append(answer.slot)
                self.given(answer.slot)

    def leave(self) -> None:
        if self.waits:
            self.chance.choice(self.waits)[1].leave(self.house.now)

    def release(self) -> None:
        if self.slots:
            slot = self.chance.choice(self.slots)
            slot.release(self.house.now, draining=self.chance.random() < 0.4, served=self.chance.random() < 0.8)

    def idle(self) -> None:
        self.chance.choice(self.queues).idle(self.chance.randint(0, 2), self.house.now - 0.5, self.house.now)

    def tick(self) -> None:
        self.house.pass_(self.chance.choice([0.0, 0.1, 1.0, 10.0]))

    def ups_and_downs(self) -> None:
        queue = self.chance.choice(self.queues)
        if queue.paused:
            queue.resume(self.house.now)
        else:
            queue.pause()

    def resize(self) -> None:
        self.chance.choice(self.queues).resize(self.chance.choice([1, 2, 3]), self.house.now)

    def look(self) -> None:
        for _, waiting in self.waits:
            if waiting.state is Waits.WAITING:
                place = waiting.place(self.house.now)
                assert place.position >= 1

    def check(self) -> None:
        """What holds between any two events."""
        of_queue = {queue: [s for s in self.slots if s._slots is queue.slots] for queue in self.queues}
        for queue, slots in of_queue.items():
            assert queue.slots.busy == sum(slot.state is SlotState.BUSY for slot in slots), "lost"
            assert queue.slots.draining == sum(slot.state is SlotState.DRAINING for slot in slots)
            taken = {slot for slot in slots if slot.state is not SlotState.FREE}
            assert set(queue._charged) <= taken, "charged, and never settled"
            assert not (queue.open and queue.waiting), "a free slot, and somebody waits"
        for someone, waiting in self.waits:
            assert len(someone.slots) == (waiting.state is Waits.GRANTED)
            assert len(someone.refusals) == (waiting.state is Waits.REFUSED)
            assert bool(waiting.queues) == (waiting.state is Waits.WAITING)
            assert all(waiting in queue.lanes[waiting.claim.lane] for queue in waiting.queues)
        waiting_now = sum(waiting.state is Waits.WAITING for _, waiting in self.waits)
        assert waiting_now == sum(map(len, self.house.admission._waiting.values()))

    def end(self) -> None:
        """Everybody goes: nothing is left."""
        for queue in self.queues:
            queue.resume(self.house.now)
        for _ in range(1000):
            live = [slot for slot in self.slots if slot.state is SlotState.BUSY]
            waits = [waiting for _, waiting in self.waits if waiting.state is Waits.WAITING]
            if not live and not waits:
                break
            for slot in live:
                slot.release(self.house.now)
            for waiting in waits[::2]:
                waiting.leave(self.house.now)
        self.house.pass_(6.0)
        self.check()
        assert not self.house.admission.pending
        for queue in self.queues:
            assert (queue.slots.taken, queue.waiting, queue._charged) == (0, 0, {})
            flows = [flow for lane in queue.lanes.values() for flow in lane._flows.values()]
            assert not any(flow.items or flow.held for flow in flows)


@pytest.mark.parametrize("part", range(10))
def test_no_slot_is_lost_and_none_given_twice(part: int) -> None:
    for seed in range(part * SCHEDULES // 10, (part + 1) * SCHEDULES // 10):
        life = Life(seed)
        steps: list[Callable[[], None]] = [
            *[life.come] * 6, *[life.release] * 4, *[life.leave] * 2,
            life.idle, life.tick, life.ups_and_downs, life.resize, life.look,
        ]  # fmt: skip
        try:
            for _ in range(STEPS):
                life.chance.choice(steps)()
                life.check()
            life.end()
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
