"""The slots of one upstream: taken, given back, and not free before the server is.

In: who takes one, what becomes of it, and what others have seen of the server. Out: ``Slot`` objects, whose owner
hears of their end. Must not: ask the server anything, wait, or give out more than there are.

A slot is ``busy`` while a request has it. Let go of after a whole answer it is free at once. After a cancel the server
may still be at work on what nobody wants (it looks only between two batches of a prompt), so that the slot is
``draining``: until the server has been seen to be idle (``idle``), or for ``drain_s`` at the most (``tick``).
"""

from enum import StrEnum

# The newest holding time counts a tenth: a burst of embeddings between long answers does not turn the estimate over.
_NEWEST = 0.1


class SlotState(StrEnum):
    """Where a slot is."""

    BUSY = "busy"
    DRAINING = "draining"
    FREE = "free"


class Owner:
    """Whose slots they are."""

    __slots__ = ()

    def freed(self, slot: "Slot", now: float) -> None:
        """``slot`` is free from now on."""
        raise NotImplementedError

    def drains(self) -> None:
        """Some slot has begun to drain."""
        raise NotImplementedError


class Slot:
    """One taken slot. Free it is over; the next one is another object.

    Attributes:
        since: When it was taken.
        sequences: How many answers the server works on for the request that has it.
        at_the_cut: How much the server worked on when the slot began to drain, by a look at it.
        drains_since: When it was let go of, if it is or was draining; otherwise ``since``.
        held_s: How long it was taken, draining included; None until it is free.
        served: The server has worked on something in it.
    """

    __slots__ = ("_slots", "at_the_cut", "drains_since", "held_s", "sequences", "served", "since", "state")

    def __init__(self, slots: "Slots", now: float, sequences: int) -> None:
        self._slots = slots
        self.sequences = sequences
        self.at_the_cut = False
        self.state = SlotState.BUSY
        self.since = now
        self.drains_since = now
        self.held_s: float | None = None
        self.served = True

    def __repr__(self) -> str:
        return f"<Slot {self.state} since {self.drains_since:g}>"

    def release(self, now: float, *, draining: bool = False, served: bool = True) -> None:
        """Let go of it; idempotent.

        Args:
            now: Seconds.
            draining: The server may still be at work on it: the request was cut off.
            served: The server has got to work on something; without that, nothing is learnt from how long it took.
        """
        if self.state is not SlotState.BUSY:
            return
        self.served = served
        if draining and self._slots.draining_helps:
            self.state, self.drains_since = SlotState.DRAINING, now
        self._slots.released(self, now)


class Slots:
    """See the module.

    Args:
        capacity: How many there are; None = no limit, and then nothing drains.
        drain_s: How long one may be draining; 0 = no time.
        owner: Hears what becomes of them.

    Attributes:
        hold_s: How long a slot is held, as of late; None until one has been.
        grants: How many were ever taken.
    """

    def __init__(self, capacity: int | None, drain_s: float, owner: Owner) -> None:
        self.capacity = capacity
        self.drain_s = drain_s
        self.hold_s: float | None = None
        self.grants = 0
        self._owner = owner
        self._busy: dict[Slot, None] = {}
        self._draining: dict[Slot, None] = {}  # the one that has been so for longest first
        self._zombie_s = 0.0  # of those that are over
        self._others = 0  # sequences that were not ours when the latest slot was cut off

    def __repr__(self) -> str:
        most = "any" if self.capacity is None else self.capacity
        return f"<Slots {self.busy} busy, {self.draining} draining of {most}>"

    @property
    def busy(self) -> int:
        """How many have a request."""
        return len(self._busy)

    @property
    def draining(self) -> int:
        """How many are only held because the server may be at work on them."""
        return len(self._draining)

    @property
    def taken(self) -> int:
        """How many are not free."""
        return len(self._busy) + len(self._draining)

    @property
    def available(self) -> bool:
        """Whether one can be taken."""
        return self.capacity is None or self.taken < self.capacity

    @property
    def draining_helps(self) -> bool:
        """Whether a slot that was cut off has to drain."""
        return self.capacity is not None and self.drain_s > 0

    def zombie_s(self, now: float) -> float:
        """Seconds that slots have ever spent draining."""
        return self._zombie_s + sum(now - slot.drains_since for slot in self._draining)

    def occupy(self, now: float, sequences: int = 1) -> Slot:
        """One that is available, for a request of so many sequences."""
        slot = Slot(self, now, sequences)
        self._busy[slot] = None
        self.grants += 1
        return slot

    def released(self, slot: Slot, now: float) -> None:
        """See ``Slot.release``."""
        del self._busy[slot]
        if slot.state is SlotState.DRAINING:
            self._draining[slot] = None
            self._owner.drains()
        else:
            self._free(slot, now)

    def idle(self, running: int, asked_at: float, now: float) -> None:
        """The server was asked at ``asked_at``, and was at work on ``running`` sequences then.

        Those are of our requests that were with it at that time, of others, and of what is draining. The first look
        after a cut shows how many are of others: whatever is more than all of ours, the cut ones included. A slot is
        free when no more is running than what is ours and theirs.
        """
        ours = sum(slot.sequences for slot in self._busy if slot.since < asked_at)
        drained = []
        for slot in self._draining:
            if slot.drains_since < asked_at:
                drained.append(slot)
            else:
                ours += slot.sequences  # it was with the server, and was let go of while that answered
        left = sum(slot.sequences for slot in drained)
        if not all(slot.at_the_cut for slot in drained):
            self._others = max(0, running - ours - left)
            for slot in drained:
                slot.at_the_cut = True
        still = max(0, running - ours - self._others)
        for slot in drained:
            if left - slot.sequences < still:
                break
            left -= slot.sequences
            self._end(slot, now)

    def tick(self, now: float, stops_s: float | None = None) -> None:
        """Free what has been draining for long enough, whatever it works on: ``drain_s``, or a lesser ``stops_s``."""
        most_s = self.drain_s if stops_s is None else min(self.drain_s, stops_s)
        for slot in [slot for slot in self._draining if now - slot.drains_since >= most_s]:
            self._end(slot, now)

    def _end(self, slot: Slot, now: float) -> None:
        if slot in self._draining:  # ``Owner.freed`` may have led back to here
            del self._draining[slot]
            self._zombie_s += now - slot.drains_since
            self._free(slot, now)

    def _free(self, slot: Slot, now: float) -> None:
        slot.state = SlotState.FREE
        slot.held_s = held = now - slot.since
        if slot.served:
            self.hold_s = held if self.hold_s is None else self.hold_s + _NEWEST * (held - self.hold_s)
        self._owner.freed(slot, now)
