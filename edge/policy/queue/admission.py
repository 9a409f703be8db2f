"""Admission: who gets a slot of which upstream, and in which order the others wait.

In: requests that come, leave, are served and end, each with the time. Out: slots, at once or by ``Waiter.granted``;
refusals; places in the queue. Must not: wait, log, do I/O, or keep a slot free that somebody waits for.

Who waits may do so for several upstreams at once: the first free slot of any of them is its own, and then it waits for
none. Each upstream's queue has two lanes, and each lane is fair among principals by weight.

- *What is shared is time.* A request is charged what one takes on average when it is granted, and the difference when
  its slot is free. A count of requests would favour whoever sends the longest; tokens could only be guessed, from
  ``max_tokens`` that clients set ten times too high and answers that have no length yet.
- *Interactive goes before batch*, with one exception: once the oldest of the batch lane has waited for ``ageing_s``, of
  ``BATCH_EVERY`` grants in a row one at least is batch's. So whoever has n before it in that lane has a slot after
  ``ageing_s`` and (n + 1) x ``BATCH_EVERY`` grants, at the latest.
- *No principal can fill a lane for the others.* In a full lane each is sure of an equal part of the places: whoever has
  less displaces the newest of whoever has most.
- *Debts are bounded:* what a principal has had before keeps it waiting for ``MOST_COST`` average requests of each of
  the others, at the most.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from edge.policy.queue.lanes import Claim, Lane, Rules
from edge.policy.queue.queue import Queue, Statistics, Totals, Waiter, Waiting, soonest
from edge.policy.queue.refusal import Refusal, RefusalReason


class Admission:
    """All queues.

    Args:
        rules: The bounds of their lanes.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._queues: dict[Queue, None] = {}
        self._past: dict[str, Totals] = {}  # of the queues that are closed, by upstream
        self._waiting: dict[Lane, OrderedDict[Waiting, None]] = {lane: OrderedDict() for lane in Lane}

    def __repr__(self) -> str:
        return f"<Admission {list(self._queues)}>"

    @property
    def pending(self) -> bool:
        """Somebody waits."""
        return any(self._waiting.values())

    def queue(
        self,
        name: str,
        capacity: int | None,
        drain_s: float = 0.0,
        drains: Callable[[Queue], None] = lambda _: None,
        *,
        upstream: str | None = None,
    ) -> Queue:
        """Another queue.

        Args:
            name: For people.
            capacity: How many slots there are; None = no limit.
            drain_s: See ``slots.Slots``.
            drains: Called with it when one of its slots has begun to drain.
            upstream: Whose queue it is; without one, it is the upstream's only queue and has its name.
        """
        queue = Queue(name, capacity, drain_s, self._rules, drains, upstream=upstream or name)
        self._queues[queue] = None
        return queue

    def close(self, queue: Queue, now: float) -> None:
        """The upstream is not there any more. Its slots may still be released; who waits for no other is refused."""
        if queue.closed:
            return
        queue.closed = True
        for waiting in queue.everybody():
            waiting.lose(queue, RefusalReason.CLOSED, now)
        del self._queues[queue]
        self._past[queue.upstream] = self._past.get(queue.upstream, Totals()) + queue.totals(now)

    def apply_rules(self, rules: Rules) -> None:
        """Other bounds are in force, for those who wait already too."""
        self._rules = rules
        for queue in self._queues:
            queue.rules = rules

    def enter(
        self, claim: Claim, queues: Sequence[Queue], waiter: Waiter, now: float, *, first: bool = False
    ) -> Waiting | Refusal:
        """A slot of any of these upstreams is wanted.

        Args:
            claim: For whom.
            queues: Of the upstreams that can be asked, the one to be preferred first; at least one.
            waiter: Hears of the grant, unless that is at once: then the answer has its ``slot``.
            now: Seconds.
            first: It has been granted a slot before, of an upstream that failed: it goes before its principal's others.
        """
        waiting = Waiting(claim, waiter, now, self._forget)
        for queue in queues:
            if queue.open and not queue.waiting:
                waiting.begin(queue, queue.occupy(claim, now))
                return waiting
        reasons = {queue: queue.admits(claim) for queue in queues}
        admitting = [queue for queue, why in reasons.items() if why is None]
        if not admitting:
            queue = min(reasons, key=lambda queue: soonest(queue.end(claim.lane)))
            queue.refusals += 1
            return Refusal(reasons[queue] or RefusalReason.FULL, queue.end(claim.lane), queue.name)
        for queue in admitting:
            displaced = queue.displaced(claim)
            if displaced is not None:
                displaced.lose(queue, RefusalReason.SHARE, now)
            waiting.join(queue, first=first)
        self._waiting[claim.lane][waiting] = None
        return waiting

    def tick(self, now: float) -> None:
        """Refuse who has waited for too long, and free what has been draining for long enough."""
        for lane, waiting in self._waiting.items():
            wait_s = self._rules.of(lane).wait_s
            while waiting and now - (oldest := next(iter(waiting))).since >= wait_s:
                oldest.refuse(RefusalReason.LATE, now)
        for queue in tuple(self._queues):
            queue.slots.tick(now)

    def statistics(self, now: float) -> list[Statistics]:
        """A snapshot of each queue."""
        return [queue.statistics(now) for queue in self._queues]

    def totals(self, now: float) -> dict[str, Totals]:
        """What all queues of each upstream have ever done, those that are closed among them until then."""
        totals = dict(self._past)
        for queue in self._queues:
            totals[queue.upstream] = totals.get(queue.upstream, Totals()) + queue.totals(now)
        return totals

    def _forget(self, waiting: Waiting) -> None:
        self._waiting[waiting.claim.lane].pop(waiting, None)
