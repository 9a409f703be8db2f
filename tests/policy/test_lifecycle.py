"""Every (state, event) of the three lifecycles: what the table says, an error of ours, or nothing at the end."""

import pytest

from edge.policy.lifecycle import (
    ATTEMPT,
    GENERATION,
    READER,
    AttemptState,
    Illegal,
    LifecycleEvent,
    Outcome,
    ReaderEvent,
    ReaderState,
    State,
    attempt_step,
    reader_step,
    step,
)

ROUTING, ASKING, STREAMING, ENDED = State
HELD, OPEN, ENDING, CLOSED = ReaderState
LIVE = (ROUTING, ASKING, STREAMING)

# What is written here is the contract, told a second time and by state instead of by table.
MOVES = {
    ROUTING: {"open": ASKING},
    ASKING: {"retry": ROUTING, "content": STREAMING},
    STREAMING: {},
}
ENDS_OF_AN_ATTEMPT = {"done": "complete", "cut": "upstream_cut", "error": "upstream_error", "reject": "rejected"}
ENDS = {
    ROUTING: {"reject": "rejected", "queue_timeout": "queue_timeout"},
    ASKING: {
        **ENDS_OF_AN_ATTEMPT,
        "connect_timeout": "connect_timeout",
        "first_token_timeout": "first_token_timeout",
    },
    STREAMING: {**ENDS_OF_AN_ATTEMPT, "stall": "upstream_stall"},
}
ATTEMPT_MOVES = {
    AttemptState.CONNECTING: {"connected": AttemptState.WAITING},
    AttemptState.WAITING: {"content": AttemptState.STREAMING},
    AttemptState.STREAMING: {},
}
ATTEMPT_ENDS = {
    AttemptState.CONNECTING: {"cut", "error", "connect_timeout"},
    AttemptState.WAITING: {"done", "cut", "error", "reject", "first_token_timeout"},
    AttemptState.STREAMING: {"done", "cut", "error", "reject", "stall"},
}
ENDS_ANYWHERE = {
    "total_timeout": "total_timeout",
    "reader_gone": "client_gone",
    "reader_stalled": "client_stall",
    "stop": "stopped",
    "shutdown": "shutdown",
    "bug": "internal_error",
}
READER_MOVES = {
    HELD: {"commit": OPEN, "answer": ENDING, "gone": CLOSED},
    OPEN: {"end": ENDING, "gone": CLOSED, "stalled": CLOSED},
    ENDING: {"flushed": CLOSED, "gone": CLOSED, "stalled": CLOSED},
}


@pytest.mark.parametrize("what", list(LifecycleEvent))
@pytest.mark.parametrize("state", LIVE)
def test_what_happens_to_a_generation(state: State, what: LifecycleEvent) -> None:
    ends = ENDS[state] | ENDS_ANYWHERE
    if what in MOVES[state]:
        assert step(state, what) == (MOVES[state][what], None)
    elif what in ends:
        assert step(state, what) == (ENDED, Outcome(ends[what]))
    else:
        with pytest.raises(Illegal, match=f"a generation that is {state} cannot take {what}"):
            step(state, what)


@pytest.mark.parametrize("what", list(LifecycleEvent))
@pytest.mark.parametrize("state", list(ATTEMPT_MOVES))
def test_what_happens_to_an_attempt(state: AttemptState, what: LifecycleEvent) -> None:
    if what in ATTEMPT_MOVES[state]:
        assert attempt_step(state, what) is ATTEMPT_MOVES[state][what]
    elif what in ATTEMPT_ENDS[state] | ENDS_ANYWHERE.keys():
        assert attempt_step(state, what) is AttemptState.ENDED
    else:
        with pytest.raises(Illegal, match=f"an attempt that is {state} cannot take {what}"):
            attempt_step(state, what)


@pytest.mark.parametrize("what", list(ReaderEvent))
@pytest.mark.parametrize("state", [HELD, OPEN, ENDING])
def test_what_happens_to_a_reader(state: ReaderState, what: ReaderEvent) -> None:
    if what in READER_MOVES[state]:
        assert reader_step(state, what) is READER_MOVES[state][what]
    else:
        with pytest.raises(Illegal, match=f"a subscriber that is {state} cannot take {what}"):
            reader_step(state, what)


def test_what_has_ended_stays_so_and_has_no_second_outcome() -> None:
    """Both ends may fail in the same moment: only the first to be noticed counts."""
    assert {step(ENDED, what) for what in LifecycleEvent} == {(ENDED, None)}
    assert {attempt_step(AttemptState.ENDED, what) for what in LifecycleEvent} == {AttemptState.ENDED}
    assert {reader_step(CLOSED, what) for what in ReaderEvent} == {CLOSED}


def test_the_tables_have_nothing_else() -> None:
    assert len(GENERATION) == sum(map(len, [*MOVES.values(), *ENDS.values()])) + len(LIVE) * len(ENDS_ANYWHERE)
    assert len(READER) == sum(map(len, READER_MOVES.values()))
    attempts = sum(map(len, [*ATTEMPT_MOVES.values(), *ATTEMPT_ENDS.values()]))
    assert len(ATTEMPT) == attempts + len(ATTEMPT_MOVES) * len(ENDS_ANYWHERE)
    assert {what for _, what in [*GENERATION, *ATTEMPT]} == set(LifecycleEvent), "no event that no state takes"
    assert {what for _, what in READER} == set(ReaderEvent)


def test_an_outcome_is_told_exactly_at_the_end() -> None:
    for state, outcome in GENERATION.values():
        assert (outcome is not None) is (state is ENDED)


def test_every_state_and_every_outcome_can_be_reached_from_the_start() -> None:
    reached, outcomes = {ROUTING}, set[Outcome]()
    for _ in State:
        for (state, _), (following, outcome) in GENERATION.items():
            if state in reached:
                reached.add(following)
                outcomes |= {outcome} if outcome else set()
    assert reached == set(State)
    assert outcomes == set(Outcome)
    readers = {HELD}
    for _ in ReaderState:
        readers |= {following for (state, _), following in READER.items() if state in readers}
    assert readers == set(ReaderState)


def test_the_end_can_be_reached_from_everywhere() -> None:
    for state in LIVE:
        assert step(state, LifecycleEvent.BUG) == (ENDED, Outcome.INTERNAL_ERROR)
    for attempt in ATTEMPT_MOVES:
        assert attempt_step(attempt, LifecycleEvent.BUG) is AttemptState.ENDED
    for reader in (HELD, OPEN, ENDING):
        assert reader_step(reader, ReaderEvent.GONE) is CLOSED


def test_after_content_there_is_no_other_attempt() -> None:
    assert {state for state, what in GENERATION if what is LifecycleEvent.RETRY} == {ASKING}
