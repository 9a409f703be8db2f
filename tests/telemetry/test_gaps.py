import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.telemetry.timeline import FLOOR_S, RELATIVE_ERROR, Gaps

seconds = st.one_of(
    st.just(0.0),
    st.floats(min_value=0, max_value=1e-4),
    st.floats(min_value=1e-4, max_value=2000),
    st.integers(min_value=-20, max_value=10).map(lambda power: 2.0**power),
)


def exact(values: list[float], share: float) -> float:
    return sorted(values)[max(1, math.ceil(len(values) * share)) - 1]


@given(st.lists(st.tuples(seconds, st.integers(1, 5)), min_size=1, max_size=60), st.floats(0, 1))
def test_percentiles_are_those_of_the_exact_gaps_within_the_bucket_error(reads, share):
    gaps = Gaps()
    every: list[float] = []
    for gap, tokens in reads:
        gaps.add(gap, tokens)
        every += [gap] + [0.0] * (tokens - 1)
    wanted = exact(every, share)
    assert gaps.percentile(share) == pytest.approx(wanted, rel=RELATIVE_ERROR, abs=FLOOR_S)
    assert gaps.count == len(every)
    assert gaps.max == pytest.approx(max(every), abs=FLOOR_S)


def test_no_gaps_have_no_percentile():
    assert Gaps().percentile(0.5) is None
    assert (Gaps().count, Gaps().max) == (0, None)


def test_tokens_of_one_read_are_one_gap_and_none_between():
    gaps = Gaps()
    gaps.add(0.5, tokens=4)
    assert gaps.count == 4
    assert gaps.percentile(0.75) == 0
    assert gaps.percentile(0.99) == pytest.approx(0.5, rel=RELATIVE_ERROR)


def test_a_percentile_never_exceeds_the_longest_gap():
    gaps = Gaps()
    gaps.add(0.5001)
    assert gaps.percentile(0.99) == gaps.max == 0.5001


@pytest.mark.parametrize("gap", [3000.0, 1e9])
def test_gaps_beyond_the_last_bucket_are_told_exactly_as_the_longest(gap):
    gaps = Gaps()
    gaps.add(gap)
    assert gaps.percentile(0.5) == gap


def test_a_clock_that_went_back_counts_as_no_gap():
    gaps = Gaps()
    gaps.add(-1.0)
    assert (gaps.percentile(0.5), gaps.max) == (0.0, 0.0)
