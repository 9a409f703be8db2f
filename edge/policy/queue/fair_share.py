"""One lane of a queue: weighted and fair among principals. Deficit round robin whose rounds are counted, not walked.

In: who waits for whom, and what each principal's requests have cost. Out: who is next. Must not: know what is waited
for, or the time.

In each round a principal is given its weight, and it is served once that has made up for what it has cost. Walking the
rounds would take as many steps as the rarest weight and the dearest request ask for. Here each principal has a
``turn``, the round in which it will be served, and the lowest turn is next: the same shares, spread more evenly
(weights of 10 and 1 do not make ten in a row), at O(log principals) whatever weights and costs there are. Whoever had
nothing to wait for begins at the present round, so that nobody saves up; a debt stays.
"""

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

_KEPT = 64  # principals that are remembered before they are looked through for the first time
_OWING = 1024  # principals whose debts are remembered while they ask for nothing

T = TypeVar("T")


class _Flow(Generic[T]):
    """One principal.

    Attributes:
        held: Charges that have not been settled.
        entry: Number of its valid entry in the heap.
    """

    __slots__ = ("entry", "held", "items", "turn", "weight")

    def __init__(self, turn: float) -> None:
        self.items: OrderedDict[T, None] = OrderedDict()
        self.turn = turn
        self.weight = 1.0
        self.held = 0
        self.entry = 0


class Fair(Generic[T]):
    """See the module. An item is in it at most once."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow[T]] = {}
        self._of: OrderedDict[T, _Flow[T]] = OrderedDict()  # in order of arrival
        self._heap: list[tuple[float, int, _Flow[T]]] = []  # (turn, entry, flow), outdated ones too
        self._entries = 0
        self._round = 0.0
        self._sweep_over = _KEPT
        self.principals = 0  # that wait

    def __len__(self) -> int:
        return len(self._of)

    def __contains__(self, item: T) -> bool:
        return item in self._of

    def __repr__(self) -> str:
        return f"<Fair {len(self._of)} of {self.principals} principals, round {self._round:g}>"

    def add(self, item: T, principal: str, weight: float, *, first: bool = False) -> None:
        """``item`` begins to wait; behind the others of its principal, or before them."""
        flow = self._flow(principal)
        flow.weight = weight
        flow.items[item] = None
        self._of[item] = flow
        if first:
            flow.items.move_to_end(item, last=False)
        if len(flow.items) == 1:
            self.principals += 1
            flow.turn = max(flow.turn, self._round)
            self._push(flow)

    def remove(self, item: T) -> None:
        """``item`` waits no more; at once, wherever it stood."""
        flow = self._of.pop(item)
        del flow.items[item]
        if not flow.items:
            self.principals -= 1

    def next(self) -> T | None:
        """Whose turn it is; None if nobody waits."""
        heap = self._heap
        while heap:
            flow = heap[0][2]
            if flow.items and flow.entry == heap[0][1]:
                return next(iter(flow.items))
            heappop(heap)
        return None

    def oldest(self) -> T | None:
        """Who came first."""
        return next(iter(self._of), None)

    def waiting(self, principal: str) -> int:
        """How many items of this principal wait."""
        flow = self._flows.get(principal)
        return len(flow.items) if flow is not None else 0

    def newest_of_most(self) -> T:
        """The newest item of the principal that has the most; there must be one."""
        flow = max(self._flows.values(), key=lambda flow: len(flow.items))
        return next(reversed(flow.items))

    def in_order(self, cost: float) -> Iterator[T]:
        """All items as they will be served, if nobody comes or goes and each costs ``cost``."""
        heap = [(f.turn, f.entry, f.weight, iter(f.items)) for f in self._flows.values() if f.items]
        heapify(heap)
        while heap:
            turn, entry, weight, items = heap[0]
            item = next(items, None)
            if item is None:
                heappop(heap)
            else:
                heapreplace(heap, (turn + cost / weight, entry, weight, items))
                yield item

    def charge(self, principal: str, weight: float, cost: float) -> None:
        """It is being served, which will cost about ``cost``; to be settled, once."""
        flow = self._flow(principal)
        flow.weight = weight
        flow.held += 1
        flow.turn = self._round = max(flow.turn, self._round)
        self._move(flow, flow.turn + cost / weight)

    def settle(self, principal: str, more: float, most: float) -> None:
        """It has been served, and that has cost ``more`` (or, below zero, less) than it was charged.

        Args:
            principal: Who was charged.
            more: The difference.
            most: No debt beyond this comes of it: nobody waits for ever for what it has had once.
        """
        flow = self._flow(principal)
        flow.held -= 1
        turn = flow.turn + more / flow.weight
        if more > 0:
            turn = max(flow.turn, min(turn, self._round + most / flow.weight))
        self._move(flow, turn)

    def forgive(self) -> None:
        """Nobody waits and nothing is held: debts mean nothing any more."""
        self._flows.clear()
        self._heap.clear()
        self._round = 0.0
        self._sweep_over = _KEPT

    def _flow(self, principal: str) -> _Flow[T]:
        flow = self._flows.get(principal)
        if flow is None:
            if len(self._flows) >= self._sweep_over:
                self._sweep()
            flow = self._flows[principal] = _Flow(self._round)
        return flow

    def _move(self, flow: _Flow[T], turn: float) -> None:
        if turn != flow.turn:
            flow.turn = turn
            if flow.items:
                self._push(flow)

    def _push(self, flow: _Flow[T]) -> None:
        self._entries += 1
        flow.entry = self._entries
        heappush(self._heap, (flow.turn, flow.entry, flow))
        if len(self._heap) > 2 * len(self._flows) + _KEPT:
            self._heap = [entry for entry in self._heap if entry[2].items and entry[1] == entry[2].entry]
            heapify(self._heap)

    def _sweep(self) -> None:
        """Forget who neither waits, nor holds, nor owes anything; and if those who owe are too many, forgive them."""
        there = {principal: flow for principal, flow in self._flows.items() if flow.items or flow.held}
        owing = {p: flow for p, flow in self._flows.items() if p not in there and flow.turn > self._round}
        self._flows = there | owing if len(owing) < _OWING else there
        self._sweep_over = max(_KEPT, 2 * len(self._flows))
