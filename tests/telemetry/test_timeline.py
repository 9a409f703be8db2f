"""Each moment of an exchange belongs to exactly one phase, so that the phases add up to the total."""

from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.telemetry.timeline import Phase, Timeline


def test_time_is_booked_on_the_phase_that_ends() -> None:
    timeline = Timeline(100.0)
    for phase, now in (
        (Phase.QUEUED, 100.25),
        (Phase.CONNECTING, 101.25),
        (Phase.UPSTREAM, 101.5),
        (Phase.CLIENT_BLOCKED, 103.5),
        (Phase.UPSTREAM, 107.5),
        (Phase.EDGE, 107.75),
    ):
        timeline.enter(phase, now)
    booked = {phase: timeline.seconds(phase) for phase in Phase}
    assert booked == {
        Phase.EDGE: 0.25, Phase.QUEUED: 1.0, Phase.CONNECTING: 0.25, Phase.UPSTREAM: 2.25, Phase.CLIENT_BLOCKED: 4.0,
    }  # fmt: skip
    assert timeline.total == 7.75
    assert timeline.started == 100.0


def test_before_the_first_change_nothing_is_booked() -> None:
    timeline = Timeline(5.0)
    assert timeline.total == 0
    assert [timeline.seconds(phase) for phase in Phase] == [0.0] * 5


def test_entering_the_same_phase_again_books_what_has_passed() -> None:
    """So the status' headers can tell what is known by then."""
    timeline = Timeline(0.0)
    timeline.enter(Phase.UPSTREAM, 1.0)
    timeline.enter(Phase.UPSTREAM, 1.5)
    timeline.enter(Phase.UPSTREAM, 1.5)
    assert (timeline.seconds(Phase.UPSTREAM), timeline.seconds(Phase.EDGE), timeline.total) == (0.5, 1.0, 1.5)


# 64ths of a second: sums of them are exact.
steps = st.lists(st.tuples(st.sampled_from(Phase), st.integers(0, 10**6).map(lambda part: part / 64)))


@unhurried
@given(st.integers(0, 10**9), steps)
def test_the_phases_add_up_exactly(started: int, changes: list[tuple[Phase, float]]) -> None:
    timeline = Timeline(now := float(started))
    for phase, passed in changes:
        now += passed
        timeline.enter(phase, now)
    assert sum(timeline.seconds(phase) for phase in Phase) == timeline.total == now - started


def test_server_timing_tells_what_is_known_at_the_commit() -> None:
    """In milliseconds; that the reader will be slow is not known yet."""
    timeline = Timeline(0.0)
    timeline.enter(Phase.CONNECTING, 0.0015)
    timeline.enter(Phase.UPSTREAM, 0.0035)
    timeline.enter(Phase.EDGE, 1.0035)
    assert timeline.server_timing() == "queued;dur=0.0, connect;dur=2.0, upstream;dur=1000.0, edge;dur=1.5"


def test_a_clock_that_steps_back_makes_no_time_negative() -> None:
    timeline = Timeline(10.0)
    timeline.enter(Phase.UPSTREAM, 9.5)
    timeline.enter(Phase.EDGE, 12.0)
    assert (timeline.seconds(Phase.EDGE), timeline.seconds(Phase.UPSTREAM), timeline.total) == (0.0, 2.0, 2.0)
