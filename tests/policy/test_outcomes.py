"""When a server that answers looks is held to be failing, and when it is tried again."""

from edge.policy.outcomes import FIRST_TRIAL_S, IN_A_ROW, LONGEST_S, Outcomes


def broken() -> Outcomes:
    outcomes = Outcomes()
    for _ in range(IN_A_ROW):
        outcomes.failed("engine dead", 0.0)
    return outcomes


def test_a_few_failures_in_a_row_are_the_sign() -> None:
    outcomes = Outcomes()
    for _ in range(IN_A_ROW - 1):
        outcomes.failed("x", 0.0)
        assert outcomes.failing is None
    outcomes.failed("engine dead", 0.0)
    assert outcomes.failing is not None
    assert outcomes.failing.endswith("its last error: engine dead")


def test_an_answer_in_between_is_none() -> None:
    outcomes = Outcomes()
    for _ in range(10):
        for _ in range(IN_A_ROW - 1):
            outcomes.failed("x", 0.0)
        outcomes.forget()
    assert outcomes.failing is None


def test_it_is_tried_again_each_time_later() -> None:
    outcomes, now, pauses = broken(), 0.0, []
    for _ in range(6):
        began = now
        while outcomes.failing is not None:
            now += 1.0
            outcomes.try_again(now)
        pauses.append(now - began)
        outcomes.failed("still dead", now)
        assert outcomes.failing is not None, "once is enough now"
    assert pauses == [FIRST_TRIAL_S, 10.0, 20.0, 40.0, LONGEST_S, LONGEST_S]


def test_an_answer_makes_it_as_good_as_before() -> None:
    outcomes = broken()
    outcomes.forget()
    outcomes.failed("x", 0.0)
    assert outcomes.failing is None
    assert repr(outcomes) == "<Outcomes 1 failures in a row, not failing>"
