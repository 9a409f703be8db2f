"""Admission as a caller meets it: let in, made to wait, granted, refused, and told where it stands."""

from collections.abc import Callable

import pytest
from support.queues import Caller, House, rules

from edge.errors import Busy, RateLimited
from edge.policy.queue.lanes import Bounds, Lane
from edge.policy.queue.queue import Totals, Waiting, Waits
from edge.policy.queue.refusal import Place, Refusal, RefusalReason
from edge.policy.queue.slots import SlotState

BATCH = Lane.BATCH


class TestGrants:
    def test_a_free_slot_is_had_at_once(self) -> None:
        house = House()
        queue = house.queue(2)
        caller, waiting = house.ask(queue)
        assert waiting.queue is queue
        assert (waiting.state, waiting.slot) == (Waits.GRANTED, caller.slots[0])
        assert not house.admission.pending

    def test_without_a_limit_nobody_waits(self) -> None:
        house = House()
        queue = house.queue(None)
        assert all(house.ask(queue)[1].slot is not None for _ in range(100))

    def test_the_next_is_granted_when_one_ends(self) -> None:
        house = House()
        queue = house.queue()
        first, _ = house.ask(queue)
        second, waiting = house.ask(queue)
        assert (waiting.state, second.slots) == (Waits.WAITING, [])
        assert house.admission.pending
        house.now = 3.0
        first.slots[0].release(house.now)
        assert waiting.slot is second.slots[0]
        assert second.slots[0].since == 3.0
        assert not house.admission.pending
        assert repr(waiting) == "<Waiting a interactive granted>"

    def test_a_waiter_of_several_upstreams_has_the_first_that_is_free_and_waits_for_no_other(self) -> None:
        house = House()
        one, two = house.queue(1, "one"), house.queue(1, "two")
        on_one, _ = house.ask(one, two)
        on_two, _ = house.ask(one, two)
        assert (on_one.queue, on_two.queue) == (one, two), "in the order that was asked for"
        caller, waiting = house.ask(one, two)
        other, _ = house.ask(one, who="b")
        assert repr(waiting) == "<Waiting a interactive waiting for one, two>"
        on_two.slots[0].release(house.now)
        assert caller.queue is two
        assert not two.waiting
        on_one.slots[0].release(house.now)
        assert other.queue is one
        assert len(caller.slots) == 1

    def test_what_was_cut_holds_its_slot_until_the_server_is_seen_idle(self) -> None:
        house = House()
        queue = house.queue()
        first, _ = house.ask(queue)
        second, _ = house.ask(queue)
        first.slots[0].release(1.0, draining=True)
        assert not second.slots
        queue.idle(0, 1.5, 2.0)
        assert second.slots

    def test_nor_for_longer_than_its_bound(self) -> None:
        house = House()
        queue = house.queue(drain_s=4.0)
        first, _ = house.ask(queue)
        second, _ = house.ask(queue)
        first.slots[0].release(house.now, draining=True)
        house.pass_(3.9)
        assert not second.slots
        house.pass_(0.1)
        assert second.slots

    def test_whoever_fails_over_goes_before_its_own_others(self) -> None:
        house = House()
        queue = house.queue()
        holder, _ = house.ask(queue)
        later, _ = house.ask(queue)
        again, _ = house.ask(queue, first=True)
        holder.slots[0].release(house.now)
        assert again.slots
        assert not later.slots

    def test_more_slots_are_given_out_at_once_and_fewer_are_waited_for(self) -> None:
        house = House()
        queue = house.queue(1)
        callers = [house.ask(queue)[0] for _ in range(4)]
        queue.resize(3, house.now)
        assert [len(caller.slots) for caller in callers] == [1, 1, 1, 0]
        queue.resize(1, house.now)
        for caller in callers[:2]:
            caller.slots[0].release(house.now)
        assert not callers[3].slots
        callers[2].slots[0].release(house.now)
        assert callers[3].slots
        queue.resize(None, house.now)
        assert house.ask(queue)[0].slots

    def test_an_upstream_that_is_down_is_granted_to_nobody(self) -> None:
        house = House()
        one, two = house.queue(1, "one"), house.queue(1, "two")
        one.pause()
        assert house.ask(one, two)[0].queue is two
        caller, _ = house.ask(one, two)
        assert not caller.slots
        one.resume(house.now)
        assert caller.queue is one
        one.pause()
        assert repr(one) == "<Queue one <Slots 1 busy, 0 draining of 1> 0 interactive, 0 batch paused>"

    def test_what_a_waiter_does_when_it_is_granted_may_lead_back_here(self) -> None:
        """Thousands in a row that fail at once: each gives its slot to the next, and no call is that deep."""
        house = House(rules(length=5000))
        queue = house.queue()
        holder, _ = house.ask(queue)
        done = []

        class Failing(Caller):
            def granted(self, waiting: Waiting) -> None:
                done.append(self)
                waiting.leave(house.now)

        for _ in range(5000):
            house.ask(queue, caller=Failing())
        holder.slots[0].release(house.now)
        assert (len(done), queue.waiting, queue.slots.taken) == (5000, 0, 0)

    def test_a_waiter_that_raises_costs_no_slot(self) -> None:
        house = House()
        queue = house.queue()
        holder, _ = house.ask(queue)

        class Broken(Caller):
            def granted(self, waiting: Waiting) -> None:
                raise RuntimeError

        house.ask(queue, caller=Broken())
        with pytest.raises(RuntimeError):
            holder.slots[0].release(house.now)
        assert queue.slots.taken == 0
        assert house.ask(queue)[0].slots


class TestLanes:
    def test_interactive_goes_first_whoever_came_first(self) -> None:
        house = House()
        queue = house.queue()
        holder, _ = house.ask(queue)
        later, _ = house.ask(queue, lane=BATCH)
        now, _ = house.ask(queue)
        holder.slots[0].release(house.now)
        assert (len(now.slots), len(later.slots)) == (1, 0)

    def test_after_ageing_every_fourth_grant_is_batchs(self) -> None:
        house = House(rules(ageing_s=10.0))
        queue = house.queue()
        running, _ = house.ask(queue)
        batch = [house.ask(queue, lane=BATCH)[0] for _ in range(2)]
        others = [house.ask(queue)[0] for _ in range(12)]
        order = []
        house.pass_(10.0)
        for _ in range(9):
            running.slots[-1].release(house.now)
            running = next(c for c in [*batch, *others] if c.slots and c.slots[-1].state is SlotState.BUSY)
            order.append("b" if running in batch else "i")
        assert "".join(order) == "iibiiibii"


EVENTS: dict[str, Callable[[House, Waiting, Caller], None]] = {
    "grant": lambda house, waiting, holder: holder.slots[0].release(house.now),
    "leave": lambda house, waiting, holder: waiting.leave(house.now),
    "late": lambda house, waiting, holder: house.pass_(20.0),
    "close": lambda house, waiting, holder: house.admission.close(house.queues[0], house.now),
}
ENDS = {"grant": Waits.GRANTED, "leave": Waits.LEFT, "late": Waits.REFUSED, "close": Waits.REFUSED}


class TestEnds:
    """Each way for a wait to end, in each state it can be in."""

    @pytest.mark.parametrize("then", EVENTS)
    @pytest.mark.parametrize("event", EVENTS)
    def test_only_the_first_counts(self, event: str, then: str) -> None:
        house = House(rules(wait_s=20.0))
        queue = house.queue()
        holder, _ = house.ask(queue)
        caller, waiting = house.ask(queue)
        EVENTS[event](house, waiting, holder)
        assert waiting.state is ENDS[event]
        assert (len(caller.slots), len(caller.refusals)) == (event == "grant", event in ("late", "close"))
        EVENTS[then](house, waiting, holder)
        assert waiting.state is ENDS[event], "it has one end"
        assert (len(caller.slots), len(caller.refusals)) == (event == "grant", event in ("late", "close"))
        assert not house.admission.pending
        given_back = event == "grant" and then == "leave"
        assert queue.slots.taken == ("grant" not in (event, then)) + (event == "grant" and not given_back)

    def test_whoever_leaves_in_the_moment_of_the_grant_gives_the_slot_to_the_next(self) -> None:
        house = House()
        queue = house.queue()
        holder, _ = house.ask(queue)
        gone, waiting = house.ask(queue)
        next_one, _ = house.ask(queue)
        holder.slots[0].release(house.now)
        assert gone.slots
        waiting.leave(house.now)
        waiting.leave(house.now)
        assert gone.slots[0].state is SlotState.FREE
        assert next_one.slots
        assert queue.slots.busy == 1

    def test_leaving_at_the_end_of_what_was_granted_gives_nothing_back_twice(self) -> None:
        house = House()
        queue = house.queue()
        caller, waiting = house.ask(queue)
        caller.slots[0].release(house.now, draining=True)
        waiting.leave(house.now)
        assert queue.slots.draining == 1


class TestRefusals:
    def test_a_full_lane(self) -> None:
        house = House(rules(length=2, batch=Bounds(1, 60.0)))
        queue = house.queue()
        for _ in range(3):
            house.ask(queue)
        assert house.refused(queue) == Refusal(RefusalReason.FULL, Place(3, 2, None), "up")
        house.ask(queue, lane=BATCH)
        assert house.refused(queue, lane=BATCH).place == Place(2, 1, None)
        assert queue.statistics(house.now).totals.refusals == 2

    def test_no_places_means_no_waiting(self) -> None:
        house = House(rules(length=0))
        queue = house.queue()
        house.ask(queue)
        assert house.refused(queue).why is RefusalReason.FULL

    def test_as_long_as_one_of_several_queues_has_room_it_is_waited_there(self) -> None:
        house = House(rules(length=1))
        one, two = house.queue(1, "one"), house.queue(1, "two")
        for queue in (one, two):
            house.ask(queue)
        house.ask(one)
        _, waiting = house.ask(one, two)
        assert waiting.queues == [two]
        assert house.refused(one, two).why is RefusalReason.FULL

    def test_each_principal_is_sure_of_its_part_of_the_places(self) -> None:
        house = House(rules(length=4))
        queue = house.queue()
        house.ask(queue)
        flood = [house.ask(queue, who="a")[0] for _ in range(4)]
        assert house.refused(queue, who="a").why is RefusalReason.FULL, "nobody else waits: it is not a matter of parts"
        house.ask(queue, who="b")
        house.ask(queue, who="b")
        assert [len(caller.refusals) for caller in flood] == [0, 0, 1, 1], "the newest of whoever has most"
        assert {refusal.why for caller in flood for refusal in caller.refusals} == {RefusalReason.SHARE}
        assert house.refused(queue, who="a").why is RefusalReason.SHARE
        assert house.refused(queue, who="b").why is RefusalReason.SHARE
        house.ask(queue, who="c")
        house.ask(queue, who="d")
        assert house.refused(queue, who="e").why is RefusalReason.FULL, "more principals than places"
        assert queue.waiting == 4

    def test_whoever_is_displaced_in_one_queue_waits_on_in_another(self) -> None:
        house = House(rules(length=1))
        one, two = house.queue(1, "one"), house.queue(1, "two")
        for queue in (one, two):
            house.ask(queue)
        house.admission.apply_rules(rules(length=2))
        _, both = house.ask(one, two)
        alone, _ = house.ask(one)
        house.ask(one, who="b")
        assert (both.state, len(alone.refusals)) == (Waits.WAITING, 1)

    def test_too_long_a_wait(self) -> None:
        house = House(rules(wait_s=10.0, batch=Bounds(9, 99.0)))
        queue = house.queue()
        house.ask(queue)
        first, _ = house.ask(queue)
        house.pass_(4.0)
        second, _ = house.ask(queue)
        batch, _ = house.ask(queue, lane=BATCH)
        house.pass_(5.9)
        assert not first.refusals
        house.pass_(0.1)
        assert first.refusals == [Refusal(RefusalReason.LATE, Place(1, 2, None), "up", 10.0)]
        assert not second.refusals
        house.admission.apply_rules(rules(wait_s=4.0))
        house.pass_(0.0)
        assert second.refusals, "a reload is for those who wait too"
        assert batch.refusals

    def test_an_upstream_that_is_let_go_of(self) -> None:
        house = House()
        one, two = house.queue(1, "one"), house.queue(1, "two")
        holder, _ = house.ask(one)
        house.ask(two)
        alone, _ = house.ask(one)
        both, waiting = house.ask(one, two)
        house.admission.close(one, house.now)
        assert [refusal.why for refusal in alone.refusals] == [RefusalReason.CLOSED]
        assert waiting.queues == [two]
        holder.slots[0].release(house.now)
        assert one.slots.taken == 0
        assert not both.slots
        assert [known.name for known in house.admission.statistics(house.now)] == ["two"]
        assert house.refused(one).why is RefusalReason.CLOSED
        assert house.ask(one, two)[1].queues == [two]


class TestPlaces:
    def test_position_and_estimate(self) -> None:
        house = House()
        queue = house.queue(2)
        running = [house.ask(queue)[0] for _ in range(2)]
        assert house.ask(queue)[1].place(house.now) == Place(1, 1, None), "nothing has been measured yet"
        house.now = 6.0
        running[0].slots[0].release(house.now)
        waiting = [house.ask(queue)[1] for _ in range(4)]
        assert [one.place(house.now) for one in waiting] == [Place(n, 4, 3.0 * n) for n in (1, 2, 3, 4)]

    def test_a_position_is_that_of_the_fair_order(self) -> None:
        house = House()
        queue = house.queue()
        house.ask(queue, who="a")
        waiting = [house.ask(queue, who="a")[1] for _ in range(3)]
        newcomer = house.ask(queue, who="b")[1]
        house.now += 2.0
        assert newcomer.place(house.now).position == 1
        assert [one.place(house.now).position for one in waiting] == [2, 3, 4]

    def test_batch_counts_those_in_a_hurry_too(self) -> None:
        house = House()
        queue = house.queue()
        running, _ = house.ask(queue)
        running.slots[0].release(2.0)
        house.ask(queue)
        house.ask(queue)
        place = house.ask(queue, lane=BATCH)[1].place(house.now)
        assert place == Place(1, 1, 4.0)

    def test_of_several_queues_the_soonest_is_told(self) -> None:
        house = House()
        quick, slow = house.queue(1, "quick"), house.queue(1, "slow")
        for queue, takes in ((slow, 10.0), (quick, 1.0)):
            house.ask(queue)[0].slots[0].release(house.now + takes)
            house.ask(queue)
        house.ask(quick)
        assert house.ask(slow, quick)[1].place(house.now) == Place(2, 2, 2.0)

    def test_they_are_not_counted_anew_for_each_that_asks(self) -> None:
        house = House(rules(length=1000))
        queue = house.queue()
        house.ask(queue)
        waiting = [house.ask(queue)[1] for _ in range(100)]
        assert waiting[-1].place(house.now).position == 100
        waiting[0].leave(house.now)
        house.now += 0.5
        assert waiting[-1].place(house.now).position == 100, "as of half a second ago"
        house.now += 0.5
        assert waiting[-1].place(house.now).position == 99


def test_what_closed_queues_have_done_is_remembered_by_upstream() -> None:
    house = House()
    one = house.admission.queue("up (a)", 1, 10.0, upstream="up")
    other = house.admission.queue("up (b)", 1, 10.0, upstream="up")
    for queue in (one, other):
        caller, _ = house.ask(queue)
        caller.slots[0].release(0.0, draining=True)
    assert house.admission.totals(2.0) == {"up": Totals(2, 0, 4.0)}
    house.admission.close(one, 3.0)
    house.admission.close(one, 4.0)
    assert house.admission.totals(5.0) == {"up": Totals(2, 0, 8.0)}
    assert [known.name for known in house.admission.statistics(5.0)] == ["up (b)"]


def test_statistics_are_a_snapshot() -> None:
    house = House()
    queue = house.queue(2)
    first, _ = house.ask(queue)
    house.ask(queue)
    first.slots[0].release(2.0, draining=True)
    house.now = 3.0
    house.ask(queue)
    house.ask(queue, lane=BATCH)
    house.now = 7.0
    told = queue.statistics(house.now)
    assert (told.name, told.capacity, told.busy, told.draining) == ("up", 2, 1, 1)
    assert told.queued == {Lane.INTERACTIVE: 1, BATCH: 1}
    assert (told.oldest_s, told.totals, told.hold_s) == (4.0, Totals(2, 0, 5.0), None)
    assert house.admission.statistics(house.now) == [told]
    assert repr(house.admission).startswith("<Admission [<Queue up")


class TestWhatTheClientIsTold:
    @pytest.mark.parametrize(
        ("estimate_s", "after"), [(None, "5"), (0.2, "1"), (3.2, "4"), (119.5, "120"), (4000.0, "120")]
    )
    def test_when_to_come_again(self, estimate_s: float | None, after: str) -> None:
        error = Refusal(RefusalReason.FULL, Place(9, 8, estimate_s), "gpu").error()
        assert error.headers["Retry-After"] == after
        assert error.headers["retry-after-ms"] == after + "000"

    def test_a_full_queue_is_503_with_its_length(self) -> None:
        error = Refusal(RefusalReason.FULL, Place(9, 8, 12.3), "gpu").error()
        assert isinstance(error, Busy)
        assert (error.status, error.code, error.retryable) == (503, "server_is_overloaded", True)
        told = {name: value for name, value in error.headers.items() if name.startswith("x-edge-queue")}
        assert told == {"x-edge-queue-position": "9", "x-edge-queue-length": "8", "x-edge-queue-estimate": "13"}
        assert error.message == "gpu is busy, and 8 requests wait already; try again later"

    def test_ones_own_part_is_429(self) -> None:
        error = Refusal(RefusalReason.SHARE, Place(9, 8, None), "gpu").error()
        assert isinstance(error, RateLimited)
        assert (error.status, error.code) == (429, "rate_limit_exceeded")
        assert "x-edge-queue-estimate" not in error.headers

    def test_too_long_a_wait_says_how_long(self) -> None:
        error = Refusal(RefusalReason.LATE, Place(2, 8, None), "gpu", 60.02).error()
        assert (error.status, error.code) == (503, "queue_timeout")
        assert "within 60 s" in error.message
        assert Refusal(RefusalReason.CLOSED, Place(1, 1, None), "gpu").error().status == 503
