"""A budget is never exceeded, and whoever took gives back exactly what was taken, once."""

from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.policy.limits.byte_budget import ByteBudget


def test_what_does_not_fit_takes_nothing() -> None:
    budget = ByteBudget(100)
    first, second = budget.share(), budget.share()
    assert first.reserve(60)
    assert not second.reserve(41)
    assert budget.used == 60
    assert second.reserve(40), "exactly full is not too much"
    assert not second.reserve(1)
    assert second.reserve(0)
    assert repr(budget) == "<ByteBudget 100/100>"


def test_giving_back_twice_gives_back_once() -> None:
    budget = ByteBudget(100)
    first, second = budget.share(), budget.share()
    assert first.reserve(30)
    assert first.reserve(20)
    assert second.reserve(50)
    first.give_back()
    first.give_back()
    assert (budget.used, budget.peak) == (50, 100)
    assert first.reserve(50), "a share can be filled again"
    first.give_back()
    second.give_back()
    assert (budget.used, budget.peak) == (0, 100)


def test_one_holder_has_a_part_only_and_leaves_the_rest_to_others() -> None:
    budget = ByteBudget(100, each=40)
    shares = [budget.share("a") for _ in range(3)]
    assert shares[0].reserve(30)
    assert not shares[1].reserve(11)
    assert shares[1].reserve(10)
    assert not shares[2].reserve(1)
    assert shares[0].reserve(20, made_here=True), "what Edge itself makes of it is bounded by the whole"
    assert not shares[0].reserve(41, made_here=True)
    assert budget.share("b").reserve(40)
    assert not budget.share("c").reserve(1), "all of it is held"
    for share in shares:
        share.give_back()
        share.give_back()
    assert budget.held == {"b": 40}
    assert budget.share().reserve(60), "of nobody in particular"


@unhurried
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60) | st.none())))
def test_any_order_adds_up(steps: list[tuple[int, int | None]]) -> None:
    """None gives back; the rest takes."""
    budget = ByteBudget(100)
    shares = [budget.share() for _ in range(4)]
    taken = [0] * 4
    for who, size in steps:
        if size is None:
            shares[who].give_back()
            taken[who] = 0
        elif shares[who].reserve(size):
            taken[who] += size
        else:
            assert sum(taken) + size > 100
        assert budget.used == sum(taken) <= budget.peak <= 100
    for share in shares:
        share.give_back()
    assert budget.used == 0
