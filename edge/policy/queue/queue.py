"""The queue of one upstream: its slots, and who waits for one in which lane.

In: who waits, what becomes of slots, and the time. Out: grants, in the order that ``policy.queue.admission`` describes,
and places in the queue. Must not: know the other queues, but for letting go of whoever is granted a slot elsewhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from typing_extensions import override

from edge.policy.queue.fair_share import Fair
from edge.policy.queue.lanes import Claim, Lane, Rules
from edge.policy.queue.refusal import Place, Refusal, RefusalReason
from edge.policy.queue.slots import Owner, Slot, Slots

BATCH_EVERY = 4
MOST_COST = 8.0
_UNMEASURED = 1.0  # the cost of a request as long as none has ended: only relations matter
_POSITIONS_S = 1.0  # for so long they are not counted anew: that takes a walk through the whole lane


class Waiter:
    """Who waits. Exactly one of these is called, once, unless it leaves before; neither may raise."""

    __slots__ = ()

    def granted(self, waiting: "Waiting") -> None:
        """It has a ``slot``."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """It waits no more."""
        raise NotImplementedError


class Waits(StrEnum):
    """How a wait stands."""

    WAITING = "waiting"
    GRANTED = "granted"
    REFUSED = "refused"
    LEFT = "left"


class Waiting:
    """Somebody who waits, or who need not have.

    Args:
        forget: Called when the wait is over.

    Attributes:
        since: When it came.
        queues: Where it waits; none any more when that is over.
        queue: Whose slot it was granted,
        slot: and which.
    """

    __slots__ = ("_forget", "_waiter", "claim", "queue", "queues", "since", "slot", "state")

    def __init__(self, claim: Claim, waiter: Waiter, since: float, forget: "Callable[[Waiting], None]") -> None:
        self.claim = claim
        self.since = since
        self.queues: list[Queue] = []
        self.queue: Queue | None = None
        self.slot: Slot | None = None
        self.state = Waits.WAITING
        self._waiter: Waiter | None = waiter
        self._forget = forget

    def __repr__(self) -> str:
        names = ", ".join(queue.name for queue in self.queues)
        return f"<Waiting {self.claim.principal} {self.claim.lane} {self.state}{' for ' * bool(names)}{names}>"

    def join(self, queue: "Queue", *, first: bool) -> None:
        """Wait in this queue too."""
        self.queues.append(queue)
        queue.lanes[self.claim.lane].add(self, self.claim.principal, self.claim.weight, first=first)

    def leave(self, now: float) -> None:
        """It is not waited any more; idempotent. A slot that was granted, and is not in use yet, goes back."""
        if self.state is Waits.WAITING:
            self._end(Waits.LEFT)
        elif self.slot is not None:
            self.slot.release(now, served=False)

    def place(self, now: float) -> Place:
        """Where it is: in the queue that it is likely to be served by first, if it waits in several."""
        return min((queue.place(self, now) for queue in self.queues), key=soonest)

    def begin(self, queue: "Queue", slot: Slot) -> None:
        """It has a slot before it has joined any queue; whoever asked sees it, and is not called."""
        self.queue, self.slot, self.state, self._waiter = queue, slot, Waits.GRANTED, None

    def grant(self, queue: "Queue", slot: Slot) -> None:
        """See ``Waiter.granted``."""
        self.queue, self.slot = queue, slot
        waiter = self._end(Waits.GRANTED)
        if waiter is not None:
            waiter.granted(self)

    def refuse(self, why: RefusalReason, now: float) -> None:
        """See ``Waiter.refused``."""
        queue = min(self.queues, key=lambda queue: soonest(queue.place(self, now)))
        refusal = Refusal(why, queue.place(self, now), queue.name, now - self.since)
        queue.refusals += 1
        waiter = self._end(Waits.REFUSED)
        if waiter is not None:
            waiter.refused(refusal)

    def lose(self, queue: "Queue", why: RefusalReason, now: float) -> None:
        """It cannot wait in this queue any more; if that was the last one, it is refused."""
        if len(self.queues) == 1:
            self.refuse(why, now)
        else:
            self.queues.remove(queue)
            queue.lanes[self.claim.lane].remove(self)

    def _end(self, state: Waits) -> Waiter | None:
        waiter, self._waiter = self._waiter, None
        self.state = state
        queues, self.queues = self.queues, []
        for queue in queues:
            queue.lanes[self.claim.lane].remove(self)
        self._forget(self)
        return waiter


def soonest(place: Place) -> tuple[float, int]:
    """By what places in several queues are compared."""
    return (math.inf if place.estimate_s is None else place.estimate_s, place.position)


@dataclass(frozen=True, slots=True)
class Statistics:
    """A queue, as it stands.

    Attributes:
        upstream: Whose it is.
        capacity: None = no limit.
        oldest_s: How long the oldest has waited; 0 if nobody does.
        hold_s: How long a slot is held, as of late.
    """

    name: str
    upstream: str
    capacity: int | None
    busy: int
    draining: int
    queued: dict[Lane, int]
    oldest_s: float
    totals: "Totals"
    hold_s: float | None


@dataclass(frozen=True, slots=True)
class Totals:
    """What has ever been.

    Attributes:
        grants: Slots that were given out.
        refusals: Requests that were not let in, or no longer.
        zombie_s: Seconds that slots were held only since the server might be at work on what nobody wanted.
    """

    grants: int = 0
    refusals: int = 0
    zombie_s: float = 0.0

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(self.grants + other.grants, self.refusals + other.refusals, self.zombie_s + other.zombie_s)


class Queue(Owner):
    """See the module. Made by ``Admission.queue``.

    Attributes:
        paused: Nothing is granted: the upstream is down.
        closed: Nothing ever will be.
        refusals: How many were refused.
    """

    def __init__(
        self,
        name: str,
        capacity: int | None,
        drain_s: float,
        rules: Rules,
        drains: "Callable[[Queue], None]",
        *,
        upstream: str,
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.rules = rules
        self.slots = Slots(capacity, drain_s, self)
        self.lanes: dict[Lane, Fair[Waiting]] = {lane: Fair() for lane in Lane}
        self.paused = self.closed = False
        self.refusals = 0
        self._drains = drains
        self._charged: dict[Slot, tuple[Claim, float]] = {}
        self._passed = 0  # grants in a row that were not batch's
        self._granting = False
        self._positions: dict[Lane, tuple[float, dict[Waiting, int]]] = {}

    def __repr__(self) -> str:
        queued = ", ".join(f"{len(waiting)} {lane}" for lane, waiting in self.lanes.items())
        return f"<Queue {self.name} {self.slots!r} {queued}{' paused' * self.paused}>"

    @property
    def waiting(self) -> int:
        """How many wait, in both lanes."""
        return len(self.lanes[Lane.INTERACTIVE]) + len(self.lanes[Lane.BATCH])

    @property
    def open(self) -> bool:
        """Somebody could be granted a slot now."""
        return not (self.paused or self.closed) and self.slots.available

    def resize(self, capacity: int | None, now: float) -> None:
        """The upstream has that many slots. Who has one keeps it, also above the capacity."""
        self.slots.capacity = capacity
        self.grant(now)

    def pause(self) -> None:
        """Grant nothing until ``resume``; who waits may still be granted a slot of another upstream."""
        self.paused = True

    def resume(self, now: float) -> None:
        """The upstream is up again."""
        self.paused = False
        self.grant(now)

    def idle(self, running: int, asked_at: float, now: float) -> None:
        """See ``Slots.idle``."""
        self.slots.idle(running, asked_at, now)

    def occupy(self, claim: Claim, now: float) -> Slot:
        """A slot; one must be available."""
        slot = self.slots.occupy(now, claim.sequences)
        if self.slots.capacity is None and not self.waiting:
            return slot  # there is one for everybody: nobody has it at the cost of others
        cost = self.slots.hold_s or _UNMEASURED
        self._charged[slot] = claim, cost
        self.lanes[claim.lane].charge(claim.principal, claim.weight, cost)
        self._passed = 0 if claim.lane is Lane.BATCH else self._passed + 1
        return slot

    def grant(self, now: float) -> None:
        """Give every available slot to whose turn it is. What a waiter does in ``granted`` may lead back to here."""
        if self._granting:
            return  # the loop below goes on
        self._granting = True
        try:
            while self.open and (waiting := self._next(now)) is not None:
                slot = self.occupy(waiting.claim, now)
                try:
                    waiting.grant(self, slot)
                except BaseException:
                    slot.release(now, served=False)
                    raise
        finally:
            self._granting = False

    def admits(self, claim: Claim) -> RefusalReason | None:
        """Why nobody of this principal may begin to wait here; None if one may."""
        if self.closed:
            return RefusalReason.CLOSED
        lane, most = self.lanes[claim.lane], self.rules.of(claim.lane).length
        if len(lane) < most:
            return None
        mine = lane.waiting(claim.principal)
        principals = lane.principals + (mine == 0)
        if mine < most // principals:
            return None  # somebody has more than that
        return RefusalReason.SHARE if mine and principals > 1 else RefusalReason.FULL

    def displaced(self, claim: Claim) -> Waiting | None:
        """Who has to go so that somebody whom ``admits`` lets in can wait; None if there is room."""
        lane = self.lanes[claim.lane]
        return None if len(lane) < self.rules.of(claim.lane).length else lane.newest_of_most()

    def everybody(self) -> list[Waiting]:
        """All who wait."""
        return [waiting for lane in self.lanes.values() for waiting in lane.in_order(_UNMEASURED)]

    def place(self, waiting: Waiting, now: float) -> Place:
        """Where somebody who waits here is."""
        lane = waiting.claim.lane
        counted = self._positions.get(lane)
        if counted is None or waiting not in counted[1] or now - counted[0] >= _POSITIONS_S:
            order = self.lanes[lane].in_order(self.slots.hold_s or _UNMEASURED)
            counted = self._positions[lane] = now, {one: n for n, one in enumerate(order, start=1)}
        return self._place(counted[1][waiting], lane)

    def end(self, lane: Lane) -> Place:
        """Where somebody would be who came now and stood behind all."""
        return self._place(len(self.lanes[lane]) + 1, lane)

    def statistics(self, now: float) -> Statistics:
        """A snapshot."""
        oldest = [waiting.since for lane in self.lanes.values() if (waiting := lane.oldest()) is not None]
        slots = self.slots
        return Statistics(
            name=self.name,
            upstream=self.upstream,
            capacity=slots.capacity,
            busy=slots.busy,
            draining=slots.draining,
            queued={lane: len(waiting) for lane, waiting in self.lanes.items()},
            oldest_s=now - min(oldest, default=now),
            totals=self.totals(now),
            hold_s=slots.hold_s,
        )

    def totals(self, now: float) -> Totals:
        """What has ever been."""
        return Totals(self.slots.grants, self.refusals, self.slots.zombie_s(now))

    def _place(self, position: int, lane: Lane) -> Place:
        ahead = position + (len(self.lanes[Lane.INTERACTIVE]) if lane is Lane.BATCH else 0)
        hold_s, capacity = self.slots.hold_s, self.slots.capacity
        estimate = None if hold_s is None else ahead * hold_s / max(1, capacity or 1)
        return Place(position, len(self.lanes[lane]), estimate)

    def _next(self, now: float) -> Waiting | None:
        interactive, batch = self.lanes[Lane.INTERACTIVE], self.lanes[Lane.BATCH]
        oldest = batch.oldest()
        if oldest is None:
            return interactive.next()
        aged = now - oldest.since >= self.rules.ageing_s
        if not len(interactive) or (aged and self._passed >= BATCH_EVERY - 1):
            return batch.next()
        return interactive.next()

    @override
    def drains(self) -> None:
        self._drains(self)

    @override
    def freed(self, slot: Slot, now: float) -> None:
        charged = self._charged.pop(slot, None)
        if charged is not None:
            claim, cost = charged
            held = (slot.held_s or 0.0) if slot.served else 0.0
            self.lanes[claim.lane].settle(claim.principal, held - cost, MOST_COST * cost)
        if self.waiting:
            self.grant(now)
        elif not self.slots.taken:
            for lane in self.lanes.values():
                lane.forgive()
            self._positions.clear()
