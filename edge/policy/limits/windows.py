"""A sliding minute, kept in slots of a second.

In: amounts, and the time. Out: how much there was in the last minute, and when it will be less. Must not: read a clock.

What was taken in a slot counts until the slot is ``WINDOW_S`` old as a whole: for 60 to 61 seconds. So in no 60 seconds
is ever more than the limit taken, and of a limit that is always wanted at least 60/61 (98.4 %) is had. The slots are
the price: one number for each second in which something was taken, where two would do for a window that is only right
on average. In return an amount can be given back exactly where it was taken, and how long to wait is no estimate.
"""

from collections.abc import Mapping

WINDOW_S = 60


def slot_of(now: float) -> int:
    """The slot of a moment in Unix time."""
    return int(now // 1)


def counts(slot: int, now: float) -> bool:
    """Whether a slot is (still) part of the window; one far ahead was taken by a clock that has been put back."""
    return abs(slot_of(now) - slot) <= WINDOW_S


def clear_at(slot: int) -> float:
    """When a slot leaves the window."""
    return float(slot + WINDOW_S + 1)


class Window:
    """Amounts by slot."""

    __slots__ = ("_at", "slots", "used")

    def __init__(self, slots: Mapping[int, int] | None = None) -> None:
        self.slots = dict(slots or {})
        self.used = sum(self.slots.values())
        self._at = -1  # the slot that this was last cleared at

    def __repr__(self) -> str:
        return f"<Window {self.used} in {len(self.slots)} slots>"

    def clear(self, now: float) -> None:
        """Forget what is not part of the window any more. To be done before anything is asked."""
        if self._at != slot_of(now):
            self._at = slot_of(now)
            self.slots = {slot: amount for slot, amount in self.slots.items() if counts(slot, now)}
            self.used = sum(self.slots.values())

    def add(self, slot: int, amount: int) -> int:
        """Count an amount in a slot, a negative one to take it back; no slot goes below 0. What was really added."""
        before = self.slots.get(slot, 0)
        after = max(0, before + amount)
        if after:
            self.slots[slot] = after
        else:
            self.slots.pop(slot, None)
        self.used += after - before
        return after - before

    def wait_s(self, amount: int, limit: int, now: float) -> float:
        """How long until ``amount`` fits under ``limit``, if nothing else is taken meanwhile; 0 if it does now."""
        over = self.used + amount - limit
        wait = 0.0
        for slot, taken in sorted(self.slots.items()) if over > 0 else ():
            over -= taken
            wait = max(0.0, clear_at(slot) - now)
            if over <= 0:
                break
        return wait

    def reset_s(self, now: float) -> float:
        """How long until the window is empty, if nothing is taken meanwhile."""
        return max(0.0, clear_at(max(self.slots)) - now) if self.slots else 0.0
