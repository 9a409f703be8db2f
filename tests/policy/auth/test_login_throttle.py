"""Wrong credentials from one address: how many, how long it waits then, and who need not."""

import tracemalloc

import pytest

from edge.policy.auth.login_throttle import WINDOW_S, LoginThrottle

A, B = b"a" * 32, b"b" * 32


def failing(count: int, address: str | None = "192.0.2.1", limit: int = 3, now: float = 0.0) -> LoginThrottle:
    attempts = LoginThrottle(limit)
    for _ in range(count):
        attempts.wrong(address, now)
    return attempts


def test_after_so_many_the_address_waits_until_a_minute_after_the_first() -> None:
    attempts = failing(2)
    assert attempts.wait_s("192.0.2.1", A, 1.0) == 0
    attempts.wrong("192.0.2.1", 10.0)
    assert attempts.wait_s("192.0.2.1", A, 10.0) == 50.0
    assert attempts.wait_s("192.0.2.1", A, 59.0) == 1.0
    assert attempts.wait_s("192.0.2.1", A, WINDOW_S) == 0
    attempts.wrong("192.0.2.1", WINDOW_S)
    assert attempts.wait_s("192.0.2.1", A, WINDOW_S) == 0, "a new minute begins"


def test_others_do_not_wait() -> None:
    attempts = failing(9)
    assert attempts.wait_s("192.0.2.2", A, 0.0) == 0
    assert attempts.wait_s(None, A, 0.0) == 0


def test_what_was_right_from_there_is_let_in_meanwhile() -> None:
    """Clients behind one router do not lock each other out."""
    attempts = LoginThrottle(3)
    attempts.right("192.0.2.1", A)
    for _ in range(9):
        attempts.wrong("192.0.2.1", 0.0)
    assert attempts.wait_s("192.0.2.1", A, 1.0) == 0
    assert attempts.wait_s("192.0.2.1", B, 1.0) > 0
    assert attempts.wait_s("192.0.2.2", A, 1.0) == 0
    for _ in range(9):
        attempts.wrong("192.0.2.2", 0.0)
    assert attempts.wait_s("192.0.2.2", A, 1.0) > 0, "right from elsewhere says nothing of here"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unix", "unix", True),
        (None, None, True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_who_counts_as_one_address(one, other, same) -> None:
    assert bool(failing(3, one).wait_s(other, A, 0.0)) is same


def test_no_limit_is_no_limit() -> None:
    assert failing(1000, limit=0).wait_s("192.0.2.1", A, 0.0) == 0


def test_it_is_counted_by_the_milliseconds_of_a_clock_that_may_be_set_back() -> None:
    attempts = failing(3, now=1_800_000_000.123)
    assert attempts.wait_s("192.0.2.1", A, 1_800_000_001.123) == pytest.approx(59, abs=0.01)
    assert attempts.wait_s("192.0.2.1", A, 1_700_000_000.0) == 0, "a lock must not last until the clock is there again"


def test_a_lock_outlasts_any_number_of_other_addresses() -> None:
    attempts = failing(3, "192.0.2.1")
    attempts.right("192.0.2.1", B)
    for n in range(20_000):
        attempts.wrong(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", 1.0)
    assert attempts.wait_s("192.0.2.1", A, 2.0) == 58.0
    assert attempts.wait_s("192.0.2.1", B, 2.0) == 0


@pytest.mark.parametrize("spread", ["10.{0}.{1}.{2}", "2001:db8:{0:x}:{1:x}{2:02x}::1"])
def test_when_the_table_is_full_further_addresses_count_together(spread: str) -> None:
    """Whoever has very many addresses has a bounded number of guesses, from each of them and from all."""
    attempts = LoginThrottle(3)
    looked_at = 0
    for n in range(65_536 * 2):
        address = spread.format(n >> 16, n >> 8 & 255, n & 255)
        if not attempts.wait_s(address, A, 1.0):
            looked_at += 1
            attempts.wrong(address, 1.0)
    assert looked_at < 4096 * 3 + 4096 * 3
    assert attempts.wait_s("198.51.100.7", A, 62.0) == 0, "a minute later all is forgotten"


def test_the_networks_of_one_48_have_a_limit_together() -> None:
    attempts = LoginThrottle(5)
    looked_at = 0
    for n in range(65_536):
        address = f"2001:db8:7:{n:x}::1"
        if not attempts.wait_s(address, A, 1.0):
            looked_at += 1
            attempts.wrong(address, 1.0)
    assert looked_at == 4 * 5
    attempts.right("2001:db8:7:1::9", B)
    assert attempts.wait_s("2001:db8:7:1::1", B, 2.0) == 0
    assert attempts.wait_s("2001:db8:8::1", A, 2.0) == 0, "the neighbours are others"


@pytest.mark.parametrize("spread", ["10.{0}.{1}.{2}", "2001:{0:x}:{1:x}{2:02x}::1"])
def test_however_many_addresses_there_are_it_stays_small(spread: str) -> None:
    tracemalloc.start()
    attempts = LoginThrottle(3)
    for n in range(12_000):  # three times what the table holds
        address = spread.format(n >> 16, n >> 8 & 255, n & 255)
        attempts.wrong(address, n / 1000)
        attempts.right(address, n.to_bytes(32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert repr(attempts) == "<LoginThrottle 4096 failing, 4096 right>"
    assert peak < 2 * 2**20
