"""Admission under test: waiters that write down what they were told, and a simulation of servers on a fake clock.

In: who asks for what, and how long each request takes. Out: who had which slot for how long. Must not: take real time.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

from edge.policy.queue.admission import Admission
from edge.policy.queue.lanes import Bounds, Claim, Lane, Rules
from edge.policy.queue.queue import Queue, Waiting
from edge.policy.queue.refusal import Refusal
from edge.policy.queue.slots import Slot


def rules(length: int = 100, wait_s: float = 1e9, ageing_s: float = 1e9, *, batch: Bounds | None = None) -> Rules:
    """The same bounds for both lanes, unless told otherwise."""
    bounds = Bounds(length, wait_s)
    return Rules(bounds, bounds if batch is None else batch, ageing_s)


@dataclass(eq=False)
class Caller:
    """A waiter that remembers."""

    slots: list[Slot] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    queue: Queue | None = None

    def granted(self, waiting: Waiting) -> None:
        assert waiting.slot is not None
        self.slots.append(waiting.slot)
        self.queue = waiting.queue

    def refused(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


class House:
    """An admission, its clock, and whoever comes."""

    def __init__(self, told: Rules | None = None) -> None:
        self.now = 0.0
        self.admission = Admission(told or rules())
        self.queues: list[Queue] = []

    def queue(self, capacity: int | None = 1, name: str = "up", drain_s: float = 10.0) -> Queue:
        queue = self.admission.queue(name, capacity, drain_s)
        self.queues.append(queue)
        return queue

    def ask(
        self,
        *queues: Queue,
        who: str = "a",
        weight: float = 1.0,
        lane: Lane = Lane.INTERACTIVE,
        first: bool = False,
        caller: Caller | None = None,
    ) -> tuple[Caller, Waiting]:
        """Somebody comes, and is let in or has to wait."""
        caller = caller or Caller()
        waiting = self.admission.enter(Claim(who, weight, lane), queues, caller, self.now, first=first)
        assert isinstance(waiting, Waiting), waiting
        if waiting.slot is not None:
            caller.granted(waiting)
        return caller, waiting

    def refused(self, *queues: Queue, who: str = "a", lane: Lane = Lane.INTERACTIVE) -> Refusal:
        """Somebody comes, and is not let in."""
        refusal = self.admission.enter(Claim(who, 1.0, lane), queues, Caller(), self.now)
        assert isinstance(refusal, Refusal), refusal
        return refusal

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.admission.tick(self.now)


@dataclass(eq=False)
class Principal:
    """One who keeps ``backlog`` requests waiting or running, each of which takes what ``takes`` says.

    Attributes:
        busy_s: Slot time that it has had.
        served: Requests.
        longest_s: The longest wait.
    """

    name: str
    takes: Callable[[], float]
    weight: float = 1.0
    lane: Lane = Lane.INTERACTIVE
    backlog: int = 8
    queues: Sequence[Queue] = ()
    busy_s: float = 0.0
    served: int = 0
    refused: int = 0
    longest_s: float = 0.0


class Simulation:
    """Principals that never rest, on a fake clock."""

    def __init__(self, house: House, *queues: Queue) -> None:
        self.house = house
        self.queues = queues
        self.principals: list[Principal] = []
        self.by_queue: dict[str, float] = defaultdict(float)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = count()
        self._begun = 0

    def add(self, principal: Principal) -> Principal:
        self.principals.append(principal)
        return principal

    def run(self, until: float) -> None:
        """Let everybody ask, and the time pass."""
        house = self.house
        for principal in self.principals[self._begun :]:
            for _ in range(principal.backlog):
                self._ask(principal)
        self._begun = len(self.principals)
        while self._events and self._events[0][0] <= until:
            house.now, _, happens = heappop(self._events)
            happens()
            house.admission.tick(house.now)
            assert not any(queue.open and queue.waiting for queue in self.queues), "a free slot, and somebody waits"

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heappush(self._events, (when, next(self._count), what))

    def _ask(self, principal: Principal) -> None:
        house, asked_at = self.house, self.house.now
        simulation = self

        class Asking(Caller):
            def granted(self, waiting: Waiting) -> None:
                simulation._serve(principal, waiting, house.now - asked_at)

            def refused(self, refusal: Refusal) -> None:
                principal.refused += 1
                simulation._at(house.now + refusal.retry_after_s, lambda: simulation._ask(principal))

        asking = Asking()
        claim = Claim(principal.name, principal.weight, principal.lane)
        answer = house.admission.enter(claim, principal.queues or self.queues, asking, house.now)
        if isinstance(answer, Refusal):
            asking.refused(answer)
        elif answer.slot is not None:
            asking.granted(answer)

    def _serve(self, principal: Principal, waiting: Waiting, waited_s: float) -> None:
        slot, queue, takes = waiting.slot, waiting.queue, principal.takes()
        assert slot is not None
        assert queue is not None
        principal.longest_s = max(principal.longest_s, waited_s)

        def done() -> None:
            principal.busy_s += takes
            principal.served += 1
            self.by_queue[queue.name] += takes
            slot.release(self.house.now)
            self._ask(principal)

        self._at(self.house.now + takes, done)
