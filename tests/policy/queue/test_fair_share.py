"""One lane: whose turn it is, and that nothing is kept of whoever has gone."""

from edge.policy.queue.fair_share import Fair


def drained(fair: Fair[str]) -> list[str]:
    order = []
    while (item := fair.next()) is not None:
        fair.remove(item)
        fair.charge(item[0], 1.0, 1.0)
        order.append(item)
    return order


def filled(*items: str, **weights: float) -> Fair[str]:
    """The first letter of an item is its principal."""
    fair = Fair[str]()
    for item in items:
        fair.add(item, item[0], weights.get(item[0], 1.0))
    return fair


def test_each_in_turn() -> None:
    fair = filled("a1", "a2", "a3", "b1", "b2", "c1")
    assert list(fair.in_order(1.0)) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert drained(fair) == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_twice_the_weight_is_twice_as_often() -> None:
    fair = filled("a1", "a2", "a3", "a4", "b1", "b2", a=2.0)
    assert list(fair.in_order(1.0)) == ["a1", "b1", "a2", "a3", "b2", "a4"]


def test_the_order_that_is_told_is_the_one_that_comes() -> None:
    fair = filled(*(f"{who}{n}" for n in range(20) for who in "abcde"))
    fair.charge("c", 1.0, 7.5)
    fair.charge("d", 1.0, 2.5)
    assert list(fair.in_order(1.0)) == drained(fair)


def test_whoever_leaves_is_skipped_wherever_it_stood() -> None:
    fair = filled("a1", "a2", "a3", "b1", "c1")
    for gone in ("a1", "a3", "b1"):
        fair.remove(gone)
    assert (len(fair), fair.principals) == (2, 2)
    assert "a1" not in fair
    assert drained(fair) == ["a2", "c1"]
    assert fair.next() is None
    assert fair.oldest() is None


def test_first_stands_before_its_principals_others_alone() -> None:
    fair = filled("b1", "a1", "a2")
    fair.add("a0", "a", 1.0, first=True)
    assert drained(fair) == ["b1", "a0", "a1", "a2"]


def test_nobody_saves_up_while_it_asks_for_nothing() -> None:
    fair = filled(*(f"a{n}" for n in range(100)), "b1")
    assert drained(fair)[:2] == ["a0", "b1"]
    for item in ("a1", "b1", "a2", "b2", "a3", "b3"):
        fair.add(item, item[0], 1.0)
    order = drained(fair)
    assert sorted(order[:2]) == ["a1", "b1"], "b has had 99 less, long ago"


def test_a_debt_is_paid_and_bounded() -> None:
    fair = filled("a1", "a2", *(f"b{n}" for n in range(9)))
    fair.remove("a1")
    fair.charge("a", 1.0, 1.0)
    fair.settle("a", 1000.0, 4.0)
    assert list(fair.in_order(1.0)).index("a2") == 5, "after 4 of b, and the one whose turn is the same"


def test_what_was_charged_too_much_comes_back() -> None:
    fair = filled("a1", "a2", "b1", "b2")
    fair.remove("a1")
    fair.charge("a", 1.0, 1.0)
    fair.settle("a", -1.0, 8.0)
    assert list(fair.in_order(1.0)) == ["b1", "a2", "b2"]


def test_coming_and_going_without_end_keeps_nothing() -> None:
    fair = filled("a1")
    for n in range(10_000):
        fair.add("x", f"p{n % 500}", 1.0)
        fair.remove("x")
    assert len(fair._heap) <= 2 * len(fair._flows) + 65
    assert len(fair._flows) <= 130, "whoever owes nothing is forgotten"
    for n in range(10_000):
        fair.charge(f"q{n}", 1.0, 1.0)
        fair.settle(f"q{n}", 0.0, 8.0)
    assert len(fair._flows) <= 2100, "nor are the debts of all that ever asked kept"
    assert repr(fair).startswith("<Fair 1 of 1 principals")


def test_when_all_is_over_all_is_forgiven() -> None:
    fair = filled("a1", "b1")
    drained(fair)
    fair.forgive()
    assert (fair._flows, fair._heap, fair._round) == ({}, [], 0.0)
