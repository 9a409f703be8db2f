"""A sliding minute never lets more than the limit through, and tells exactly when there is room again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.policy.limits.windows import Window, counts, slot_of

T = 1_800_000_000


def used(window: Window, now: float) -> int:
    window.clear(now)
    return window.used


def test_what_was_taken_counts_for_a_minute_at_least_and_a_second_more_at_most() -> None:
    window = Window()
    window.add(slot_of(T + 0.9), 5)
    assert used(window, T + 60.99) == 5
    assert window.reset_s(T + 60.75) == 0.25
    assert used(window, T + 61) == 0
    assert (window.slots, window.reset_s(T + 61)) == ({}, 0)


def test_what_is_given_back_goes_where_it_was_taken_and_not_below_nothing() -> None:
    window = Window({T: 3, T + 5: 4})
    assert window.add(T, -2) == -2
    assert window.add(T, -2) == -1
    assert window.add(T - 90, -7) == 0
    assert repr(window) == "<Window 4 in 1 slots>"


@pytest.mark.parametrize(("amount", "wait"), [(1, 0), (3, 0), (4, 21), (6, 21), (7, 31), (10, 31)])
def test_the_wait_is_until_enough_has_left(amount: int, wait: float) -> None:
    window = Window({T - 40: 3, T - 30: 4})
    assert window.wait_s(amount, 10, T) == wait


def test_a_clock_that_is_put_back_locks_nobody_out() -> None:
    window = Window({T: 9})
    assert used(window, T - 3600) == 0


@unhurried
@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 8)), max_size=120))
def test_in_no_minute_is_more_than_the_limit_taken(steps: list[tuple[float, int]]) -> None:
    limit, now, window = 20, float(T), Window()
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        window.clear(now)
        wait = window.wait_s(amount, limit, now)
        assert (wait == 0) == (window.used + amount <= limit)
        if wait == 0:
            window.add(slot_of(now), amount)
            taken.append((now, amount))
        else:
            later = Window(window.slots)
            later.clear(now + wait)
            assert later.used + amount <= limit, "who waits as long as was told gets in"
        assert sum(amount for at, amount in taken if at > now - 60) <= limit
        assert window.used == sum(amount for at, amount in taken if counts(slot_of(at), now))
