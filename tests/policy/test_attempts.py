"""Wrong credentials from one address: how many, how long it waits then, and who need not."""

import tracemalloc

import pytest

from edge.policy.attempts import WINDOW_S, Attempts

A, B = b"a" * 32, b"b" * 32


def failing(count: int, address: str | None = "192.0.2.1", limit: int = 3, now: float = 0.0) -> Attempts:
    attempts = Attempts(limit)
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
    attempts = Attempts(3)
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


def test_however_many_addresses_there_are_it_stays_small() -> None:
    tracemalloc.start()
    attempts = Attempts(3)
    for n in range(50_000):
        address = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        attempts.wrong(address, float(n))
        attempts.right(address, n.to_bytes(32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert repr(attempts) == "<Attempts 4096 failing, 4096 right>"
    assert peak < 8 * 2**20
