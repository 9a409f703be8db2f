"""Slots: every event in every state, and what a look at the server proves."""

from collections.abc import Callable

import pytest

from edge.policy.queue.slots import Slot, Slots, SlotState

BUSY, DRAINING, FREE = SlotState


class Owner:
    def __init__(self) -> None:
        self.free: list[Slot] = []
        self.drained = 0

    def freed(self, slot: Slot, now: float) -> None:
        self.free.append(slot)

    def drains(self) -> None:
        self.drained += 1


def made(capacity: int | None = 2, drain_s: float = 10.0) -> tuple[Slots, Owner]:
    owner = Owner()
    return Slots(capacity, drain_s, owner), owner


STATES: dict[SlotState, Callable[[Slot], None]] = {
    BUSY: lambda slot: None,
    DRAINING: lambda slot: slot.release(5.0, draining=True),
    FREE: lambda slot: slot.release(5.0),
}
EVENTS: dict[str, Callable[[Slots, Slot], None]] = {
    "release": lambda slots, slot: slot.release(7.0),
    "cut": lambda slots, slot: slot.release(7.0, draining=True),
    "working": lambda slots, slot: slots.idle(1, 6.0, 7.0),
    "idle": lambda slots, slot: slots.idle(0, 6.0, 7.0),
    "early": lambda slots, slot: slots.tick(14.9),
    "late": lambda slots, slot: slots.tick(15.0),
}
MOVES = {
    (BUSY, "release"): FREE,
    (BUSY, "cut"): DRAINING,
    (DRAINING, "idle"): FREE,
    (DRAINING, "late"): FREE,
}


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", SlotState)
def test_what_happens_to_a_slot(state: SlotState, event: str) -> None:
    """Whatever is not in the table changes nothing: both ends may let go of a slot in the same moment."""
    slots, owner = made()
    slot = slots.occupy(0.0)
    STATES[state](slot)
    EVENTS[event](slots, slot)
    after = MOVES.get((state, event), state)
    assert slot.state is after
    assert owner.free == ([slot] if after is FREE else []), "told once"
    assert (slots.busy, slots.draining) == (after is BUSY, after is DRAINING)
    assert owner.drained == (after is DRAINING or state is DRAINING)


def test_there_are_no_more_than_there_are() -> None:
    slots, _ = made(2)
    first = slots.occupy(0.0)
    assert slots.available
    slots.occupy(0.0)
    assert not slots.available
    first.release(1.0, draining=True)
    assert not slots.available, "the server may still be at work"
    slots.idle(1, 2.0, 2.0)
    assert slots.available, "at work on the other one"
    assert repr(slots) == "<Slots 1 busy, 0 draining of 2>"
    assert repr(first) == "<Slot free since 1>"


@pytest.mark.parametrize(("capacity", "drain_s"), [(None, 10.0), (2, 0.0)])
def test_nothing_drains_where_that_is_of_no_use(capacity: int | None, drain_s: float) -> None:
    slots, owner = made(capacity, drain_s)
    slots.occupy(0.0).release(1.0, draining=True)
    assert (slots.busy, slots.draining, owner.drained) == (0, 0, 0)
    assert slots.available


def test_without_a_limit_there_is_always_one() -> None:
    slots, _ = made(None)
    for _ in range(1000):
        slots.occupy(0.0)
    assert slots.available
    assert repr(slots) == "<Slots 1000 busy, 0 draining of any>"


class TestWhatALookProves:
    """It is only proof of what it could have seen."""

    def test_as_many_as_cannot_be_at_work_any_more_are_free(self) -> None:
        slots, owner = made(4)
        taken = [slots.occupy(0.0) for _ in range(4)]
        for slot in taken[:3]:
            slot.release(1.0, draining=True)
        slots.idle(3, 2.0, 2.1)
        assert owner.free == taken[:1], "one is ours, two may be what drains"
        slots.idle(1, 3.0, 3.1)
        assert owner.free == taken[:3]

    def test_requests_of_others_leave_it_open(self) -> None:
        slots, _ = made(2)
        slots.occupy(0.0).release(1.0, draining=True)
        slots.idle(1, 2.0, 2.1)
        assert slots.draining == 1

    def test_a_request_counts_as_many_as_it_has_sequences(self) -> None:
        slots, owner = made(4)
        slots.occupy(0.0, 4)
        one, three = slots.occupy(0.0), slots.occupy(0.0, 3)
        one.release(1.0, draining=True)
        three.release(1.0, draining=True)
        slots.idle(8, 2.0, 2.1)
        assert owner.free == []
        slots.idle(7, 3.0, 3.1)
        assert owner.free == [one], "the other four are ours, three may be what drains"
        slots.idle(5, 4.0, 4.1)
        assert owner.free == [one], "one of its three is still at work"
        slots.idle(4, 5.0, 5.1)
        assert owner.free == [one, three]

    def test_what_ran_beside_ours_at_the_cut_is_of_others(self) -> None:
        slots, owner = made(3)
        slots.occupy(0.0, 2)
        cut = slots.occupy(0.0)
        cut.release(1.0, draining=True)
        slots.idle(2 + 1 + 5, 1.1, 1.2)
        assert owner.free == []
        slots.idle(2 + 1 + 6, 2.0, 2.1)
        assert owner.free == [], "one more of theirs, or the one that drains"
        slots.idle(2 + 5, 3.0, 3.1)
        assert owner.free == [cut], "while all of theirs go on"

    def test_each_cut_is_looked_at_anew(self) -> None:
        slots, owner = made(3)
        first, second = slots.occupy(0.0), slots.occupy(0.0)
        first.release(1.0, draining=True)
        slots.idle(2 + 3, 1.1, 1.2)
        second.release(2.0, draining=True)
        slots.idle(2 + 9, 2.1, 2.2)
        slots.idle(1 + 9, 3.0, 3.1)
        assert owner.free == [first], "the one of the two that was cut first"
        slots.idle(9, 4.0, 4.1)
        assert owner.free == [first, second]

    def test_at_the_latest_when_its_time_is_over(self) -> None:
        slots, owner = made(2)
        cut = slots.occupy(0.0, 2)
        cut.release(1.0, draining=True)
        slots.idle(2, 1.1, 1.2)
        slots.idle(7, 10.0, 10.1)
        slots.tick(11.0)
        assert owner.free == [cut]

    def test_what_was_cut_after_the_question_is_not_proven(self) -> None:
        slots, _ = made(2)
        slot = slots.occupy(0.0)
        slot.release(2.0, draining=True)
        slots.idle(0, 1.5, 2.5)
        assert slots.draining == 1

    def test_what_was_cut_meanwhile_was_at_work_when_it_was_asked(self) -> None:
        slots, owner = made(2)
        first, second = slots.occupy(0.0), slots.occupy(0.0)
        first.release(1.0, draining=True)
        second.release(3.0, draining=True)
        slots.idle(1, 2.0, 4.0)
        assert owner.free == [first]

    def test_what_was_taken_after_the_question_is_not_what_it_saw(self) -> None:
        slots, _ = made(2)
        slots.occupy(0.0).release(1.0, draining=True)
        slots.occupy(2.5)
        slots.idle(1, 2.0, 3.0)
        assert slots.draining == 1, "the one at work can only be the one that drains"


def test_time_spent_draining_is_counted_while_it_lasts_and_after() -> None:
    slots, _ = made(2)
    first, second = slots.occupy(0.0), slots.occupy(0.0)
    first.release(1.0, draining=True)
    assert slots.zombie_s(3.0) == 2.0
    second.release(3.0, draining=True)
    slots.tick(11.0)
    assert slots.zombie_s(12.0) == 10.0 + 9.0
    slots.tick(13.0)
    assert slots.zombie_s(99.0) == 20.0


def test_how_long_a_slot_is_held_follows_what_is_measured() -> None:
    slots, _ = made(None)
    assert slots.hold_s is None
    slots.occupy(0.0).release(0.5, served=False)
    assert slots.hold_s is None, "the server could not be reached: nothing is learnt from that"
    slots.occupy(0.0).release(4.0)
    assert slots.hold_s == 4.0
    slots.occupy(0.0).release(14.0)
    assert slots.hold_s == pytest.approx(5.0)
    for _ in range(100):
        slots.occupy(0.0).release(1.0)
    assert slots.hold_s == pytest.approx(1.0, rel=0.01)


def test_draining_counts_as_held() -> None:
    slots, _ = made(1)
    slots.occupy(0.0).release(1.0, draining=True)
    slots.idle(0, 2.0, 3.0)
    assert slots.hold_s == 3.0
