"""Who is refused again and again gets a few lines, and a count."""

from collections.abc import Callable

import pytest

from edge.telemetry.refusals import LINES, MINUTE_S, MOST_ENTRIES, Refusals

Told = list[tuple[str | None, str | None, int]]


class Minute:
    """The clock: at most one thing is to be done."""

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None

    def later(self, delay_s: float, act: Callable[[], None]) -> Callable[[], None]:
        assert delay_s == MINUTE_S
        assert self.act is None
        self.act = act
        return self.cancel

    def cancel(self) -> None:
        self.act = None

    def over(self) -> None:
        act = self.act
        assert act is not None
        act()


@pytest.fixture
def minute() -> Minute:
    return Minute()


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
def refusals(minute: Minute, told: Told) -> Refusals:
    return Refusals(lambda client, error, more: told.append((client, error, more)), minute.later)


def admitted(refusals: Refusals, client: str | None, error: str, count: int) -> int:
    return sum(refusals.admit(client, error) for _ in range(count))


def test_ten_get_a_line_and_the_minute_tells_of_the_others(refusals: Refusals, minute: Minute, told: Told) -> None:
    for _ in range(2):
        assert admitted(refusals, "192.0.2.1", "invalid_api_key", 5000) == LINES
        minute.over()
    assert told == [("192.0.2.1", "invalid_api_key", 4990)] * 2


def test_a_minute_without_any_more_tells_nothing(refusals: Refusals, minute: Minute, told: Told) -> None:
    assert admitted(refusals, "192.0.2.1", "a", 10) == 10
    minute.over()
    assert told == []
    assert minute.act is None  # nothing is refused: there is no timer


def test_each_address_and_each_reason_counts_by_itself(refusals: Refusals, minute: Minute, told: Told) -> None:
    for client, error in (("192.0.2.1", "a"), ("192.0.2.1", "b"), ("192.0.2.2", "a"), (None, "a")):
        assert admitted(refusals, client, error, 11) == LINES
    minute.over()
    assert told == [("192.0.2.1", "a", 1), ("192.0.2.1", "b", 1), ("192.0.2.2", "a", 1), (None, "a", 1)]


def test_all_addresses_of_an_ipv6_network_are_one(refusals: Refusals) -> None:
    assert sum(refusals.admit(f"2001:db8::{number:x}", "a") for number in range(100)) == LINES
    assert refusals.admit("2001:db8:0:1::1", "a")


def test_an_ipv4_address_in_ipv6_is_that_address(refusals: Refusals) -> None:
    assert admitted(refusals, "192.0.2.1", "a", 6) + admitted(refusals, "::ffff:192.0.2.1", "a", 6) == LINES


def test_the_table_is_bounded_and_no_refusal_is_left_out(refusals: Refusals, minute: Minute, told: Told) -> None:
    """However many addresses and reasons there are."""
    callers = [(f"198.{one}.{two}.1", f"reason {two}") for one in range(50) for two in range(256)]
    lines = sum(refusals.admit(client, error) for client, error in callers * 2)
    assert len(refusals._entries) <= 2 * MOST_ENTRIES
    minute.over()
    assert lines + sum(more for _, _, more in told) == 50 * 256 * 2
    assert lines < 10 * 2 * MOST_ENTRIES
    assert ("other addresses", "other reasons") in {(client, error) for client, error, _ in told}


def test_at_the_end_the_counts_are_told_at_once(refusals: Refusals, minute: Minute, told: Told) -> None:
    admitted(refusals, "192.0.2.1", "a", 12)
    refusals.flush()
    refusals.flush()
    assert told == [("192.0.2.1", "a", 2)]
    assert minute.act is None
