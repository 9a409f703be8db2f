"""The journal gives back the bytes it was given, from any position it still holds, and says when one is gone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.stream.journal import Expired, Journal, JournalStatistics


def journal_of(*batches: bytes) -> Journal:
    journal = Journal()
    for batch in batches:
        journal.append(batch, 1)
    return journal


def test_what_was_appended_is_read_in_order_and_then_nothing() -> None:
    journal = journal_of(b"abc", b"de", b"f")
    assert journal.read(0, 100) == b"abcdef"
    assert journal.read(3, 100) == b"def"
    assert journal.read(6, 100) == b""
    assert Journal().read(0, 100) == b""


@pytest.mark.parametrize(("most", "data"), [(1, b"abc"), (3, b"abc"), (4, b"abcde"), (5, b"abcde"), (6, b"abcdef")])
def test_a_read_ends_with_a_batch(most: int, data: bytes) -> None:
    """One at least: no event is cut, and every read makes progress."""
    assert journal_of(b"abc", b"de", b"f").read(0, most) == data


def test_a_read_may_begin_within_a_batch() -> None:
    journal = journal_of(b"abc", b"de")
    assert [journal.read(at, 100) for at in range(6)] == [b"abcde", b"bcde", b"cde", b"de", b"e", b""]
    assert journal.read(1, 2) == b"bc"


def test_a_single_batch_is_not_copied() -> None:
    """The hot path hands on what came from the network."""
    batch = bytes(range(100))
    assert journal_of(b"x", batch).read(1, 10) is batch


def test_what_all_have_taken_is_let_go_of() -> None:
    journal = journal_of(b"abc", b"de", b"f")
    journal.trim(4)
    assert (journal.start, journal.end) == (3, 6), "a batch is kept while any of it is needed"
    assert journal.read(4, 100) == b"ef"
    with pytest.raises(Expired, match="position 2 is gone; the journal begins at 3"):
        journal.read(2, 100)
    journal.trim(0)
    assert journal.start == 3, "what is gone stays gone, and nothing else goes with it"
    journal.trim(6)
    assert (journal.start, journal.read(6, 1)) == (6, b"")
    journal.append(b"g", 1)
    assert journal.read(6, 1) == b"g"
    with pytest.raises(Expired):
        journal.read(0, 1)


def test_the_statistics_remember_the_peak() -> None:
    journal = journal_of(b"abc", b"de")
    assert journal.statistics() == JournalStatistics(held=5, peak=5, end=5)
    journal.trim(5)
    journal.append(b"f", 1)
    assert journal.statistics() == JournalStatistics(held=1, peak=5, end=6)
    assert Journal().statistics() == JournalStatistics(0, 0, 0)


def test_it_shows_what_it_holds() -> None:
    journal = journal_of(b"abc", b"de")
    journal.trim(3)
    assert repr(journal) == "<Journal 3..5>"


@unhurried
@given(st.lists(st.tuples(st.binary(min_size=1, max_size=9), st.integers(1, 20), st.booleans())))
def test_readers_of_any_pace_get_every_byte(steps: list[tuple[bytes, int, bool]]) -> None:
    """Two of them, the journal trimmed behind the slower one."""
    journal = Journal()
    written, taken = b"", [b"", b""]
    for batch, most, who in [*steps, *[(b"", 10**6, who) for who in (False, True)]]:
        if batch:
            journal.append(batch, 1)
            written += batch
        data = journal.read(len(taken[who]), most)
        assert data or len(taken[who]) == len(written)
        taken[who] += data
        journal.trim(min(map(len, taken)))
        assert journal.statistics().held <= len(written) - min(map(len, taken)) + 8, "no more than a part of a batch"
    assert taken == [written, written]
    assert journal.statistics().held == 0
