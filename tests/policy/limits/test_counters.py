"""Counts add up: all of a demand is taken or nothing, and every end gives back exactly what it must."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from support.streams import unhurried

from edge.policy.limits.counters import Account, Counters, Used, by_day, day_of, days_before, period_ends
from edge.policy.limits.rules import Bound, Demand, Kind, Spent, Taken

NOW = datetime(2026, 11, 28, 23, 59, 0, tzinfo=UTC).timestamp()


def bounds(scope: str = "/ann", **limits: int) -> tuple[Bound, ...]:
    return tuple(Bound(Kind(kind), scope, limit) for kind, limit in limits.items())


def used(counters: Counters, kind: Kind, now: float, scope: str = "/ann") -> int:
    """By asking for what is never refused."""
    probe = Demand("probe", "ann", "", 0, (Bound(kind, scope, 10**9),))
    taken = counters.reserve(probe, now)
    counters.end(taken, None, now)
    return taken.standings[0].used - probe.bounds[0].amount(0)


def test_what_one_limit_refuses_no_other_has_counted() -> None:
    counters = Counters()
    limits = bounds(requests_per_min=2, tokens_per_min=100, concurrent=5, tokens_per_day=1000)
    assert counters.reserve(Demand("1", "ann", "", 60, limits), NOW).allowed
    refused = counters.reserve(Demand("2", "ann", "", 60, limits), NOW)
    assert not refused.allowed
    assert [standing.used for standing in refused.standings] == [1, 60, 1, 60]
    assert counters.reserve(Demand("3", "ann", "", 40, limits), NOW).allowed
    assert counters.held == 2


def test_less_than_estimated_makes_room_where_it_was_taken_and_more_is_counted_where_it_came() -> None:
    counters = Counters()
    limits = bounds(tokens_per_min=100, tokens_per_day=1000)
    cheap = counters.reserve(Demand("1", "ann", "", 80, limits), NOW)
    counters.end(cheap, Spent(10, 5), NOW + 20)
    assert used(counters, Kind.TOKENS, NOW + 20) == 15
    assert used(counters, Kind.TOKENS, NOW + 61) == 0, "as old as the request"
    dear = counters.reserve(Demand("2", "ann", "", 50, limits), NOW + 61)
    counters.end(dear, Spent(50, 200), NOW + 100)
    assert used(counters, Kind.TOKENS, NOW + 100) == 250, "over the limit by what nobody could know"
    assert not counters.reserve(Demand("3", "ann", "", 1, limits), NOW + 121).allowed
    assert used(counters, Kind.TOKENS, NOW + 122) == 200, "the answer is younger than the prompt"
    assert counters.reserve(Demand("4", "ann", "", 1, limits), NOW + 161).allowed


def test_a_request_that_is_released_has_never_been() -> None:
    counters = Counters()
    limits = bounds(requests_per_min=1, tokens_per_min=50, concurrent=1, tokens_per_day=50, tokens_per_month=50)
    for number in range(3):
        taken = counters.reserve(Demand(str(number), "ann", "", 50, limits), NOW)
        assert taken.allowed
        counters.end(taken, None, NOW + number)
        counters.end(taken, None, NOW + number)
    assert (counters.usage, counters.held) == ({}, 0)


def test_a_refused_demand_that_is_ended_gives_nothing_back() -> None:
    counters = Counters()
    limits = bounds(concurrent=1)
    assert counters.reserve(Demand("1", "ann", "", 1, limits), NOW).allowed
    refused = counters.reserve(Demand("2", "ann", "", 1, limits), NOW)
    counters.end(refused, None, NOW)
    counters.end(refused, Spent(1, 1), NOW)
    assert not counters.reserve(Demand("3", "ann", "", 1, limits), NOW).allowed


def test_a_budget_begins_anew_at_midnight_utc_and_a_request_belongs_to_the_day_on_which_it_began() -> None:
    counters = Counters()
    limits = bounds(tokens_per_day=100)
    over_midnight = counters.reserve(Demand("1", "ann", "", 40, limits), NOW)
    assert over_midnight.standings[0].wait_s == 60
    counters.end(over_midnight, Spent(40, 60), NOW + 120)
    assert not counters.reserve(Demand("2", "ann", "", 1, limits), NOW + 59).allowed
    assert counters.reserve(Demand("3", "ann", "", 100, limits), NOW + 60).allowed
    assert counters.usage == {Account("2026-11-28", "ann", ""): Used(1, 40, 60)}


def test_a_month_is_over_when_the_calendar_says_so() -> None:
    december = datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert period_ends(Kind.MONTH, NOW) == december
    assert period_ends(Kind.MONTH, december) == datetime(2027, 1, 1, tzinfo=UTC).timestamp()
    assert period_ends(Kind.DAY, NOW) == NOW + 60
    counters = Counters()
    limits = bounds(tokens_per_month=100)
    taken = counters.reserve(Demand("1", "ann", "", 100, limits), NOW)
    counters.end(taken, Spent(100, 0), NOW)
    assert not counters.reserve(Demand("2", "ann", "", 1, limits), december - 1).allowed
    assert counters.reserve(Demand("3", "ann", "", 100, limits), december).allowed


def test_a_budget_counts_what_was_used_without_a_limit_too() -> None:
    """A limit that is configured in the middle of the day finds what the day has cost so far."""
    counters = Counters()
    for principal, named in (("ann", "all"), ("ann", ""), ("bob", "all")):
        taken = counters.reserve(Demand(f"{principal}{named}", principal, named, 5), NOW)
        counters.end(taken, Spent(30, 3), NOW)
    spent = {scope: counters.spent(scope, "2026-11-28") for scope in ("/ann", "all/ann", "all/", "/bob")}
    assert spent == {"/ann": 66, "all/ann": 33, "all/": 66, "/bob": 33}


def test_usage_is_summed_by_day_and_principal() -> None:
    accounts = [
        (Account("2026-11-28", "bob", ""), Used(1, 2, 3)),
        (Account("2026-11-28", "ann", "x"), Used(1, 10, 20)),
        (Account("2026-11-28", "ann", "y"), Used(2, 1, 1)),
        (Account("2026-11-27", "bob", ""), Used(9, 9, 9)),
    ]
    assert list(by_day(accounts).items()) == [
        (("2026-11-27", "bob"), Used(9, 9, 9)),
        (("2026-11-28", "ann"), Used(3, 11, 21)),
        (("2026-11-28", "bob"), Used(1, 2, 3)),
    ]
    assert Used(3, 11, 21).tokens == 32
    assert days_before(NOW, 28) == "2026-10-31"
    assert day_of(NOW + 60) == "2026-11-29"


def test_who_has_gone_is_forgotten() -> None:
    counters = Counters()
    for number in range(50):
        limits = bounds(f"/p{number}", requests_per_min=9, tokens_per_min=9, concurrent=1, tokens_per_day=9)
        taken = counters.reserve(Demand(str(number), f"p{number}", "", 1, limits), NOW)
        counters.end(taken, Spent(1, 1), NOW)
    assert repr(counters) == "<Counters 0 held, 100 windows, 50 accounts>"
    counters.reserve(Demand("later", "ann"), NOW + 40 * 86400)
    assert (len(counters.windows), len(counters.usage), len(counters.running)) == (0, 0, 0)
    assert counters.spent("/p1", "2026-11") == 0


class Schedules(RuleBasedStateMachine):
    """Any schedule of takes, settlements, releases and time, against plain sums."""

    taken = Bundle("taken")
    LIMITS = bounds(requests_per_min=6, tokens_per_min=200, concurrent=3, tokens_per_day=2000)

    def __init__(self) -> None:
        super().__init__()
        self.counters = Counters()
        self.now = NOW - 3600
        self.count = 0
        self.held: dict[str, Taken] = {}
        self.requests: list[float] = []  # when each that counts was taken
        self.debt = 0  # what settlements added beyond the estimates
        self.spent = 0
        self.reserved = 0

    @rule(target=taken, tokens=st.integers(1, 150))
    def take(self, tokens: int) -> Taken:
        self.count += 1
        got = self.counters.reserve(Demand(str(self.count), "ann", "", tokens, self.LIMITS), self.now)
        if got.allowed:
            self.held[got.demand.id] = got
            self.requests.append(self.now)
            self.reserved += tokens
            assert self.spent + self.reserved <= 2000 + self.debt
        else:
            assert any(
                standing.used + bound.amount(tokens) > bound.limit
                for bound, standing in zip(self.LIMITS, got.standings, strict=True)
            )
        return got

    @rule(got=consumes(taken), prompt=st.integers(0, 200), completion=st.integers(0, 100), again=st.booleans())
    def settle(self, got: Taken, prompt: int, completion: int, again: bool) -> None:
        for _ in range(1 + again):
            self.counters.end(got, Spent(prompt, completion), self.now)
        if self.held.pop(got.demand.id, None):
            self.reserved -= got.demand.tokens
            self.spent += prompt + completion
            self.debt += max(0, prompt + completion - got.demand.tokens)

    @rule(got=consumes(taken), again=st.booleans())
    def release(self, got: Taken, again: bool) -> None:
        for _ in range(1 + again):
            self.counters.end(got, None, self.now)
        if self.held.pop(got.demand.id, None):
            self.reserved -= got.demand.tokens
            self.requests.remove(got.at)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.now = min(self.now + seconds, NOW)  # the day stays the same

    @invariant()
    def nothing_is_lost_and_no_limit_is_passed(self) -> None:
        counters = self.counters
        assert counters.held == len(self.held) == counters.running["/ann"] <= 3
        assert counters.spent("/ann", "2026-11-28") == self.spent + self.reserved
        assert sum(used.tokens for used in counters.usage.values()) == self.spent
        assert sum(at > self.now - 60 for at in self.requests) <= 6
        assert used(counters, Kind.TOKENS, self.now) <= 200 + self.debt

    def teardown(self) -> None:
        for got in list(self.held.values()):
            self.counters.end(got, None, self.now)
        assert (self.counters.held, len(self.counters.running)) == (0, 0)
        assert self.counters.spent("/ann", "2026-11-28") == self.spent


TestSchedules = Schedules.TestCase
TestSchedules.settings = unhurried


@unhurried
@given(st.lists(st.integers(1, 400), min_size=1, max_size=200))
def test_what_changed_adds_up_to_what_there_is(tokens: list[int]) -> None:
    """Whoever keeps the counts elsewhere can rebuild them, also when a write has failed in between."""
    counters, copy = Counters(tracked=True), Counters()
    limits = bounds(requests_per_min=50, tokens_per_min=5000)
    now = NOW - 3600
    for number, size in enumerate(tokens):
        now += size / 100
        taken = counters.reserve(Demand(str(number), "ann", "", size, limits), now)
        if taken.allowed:
            counters.end(taken, None if size % 5 == 0 else Spent(size // 2, size % 7 * 100), now + 1)
        if size % 3 == 0:
            changed = counters.drain()
            if size % 2 == 0:
                counters.restore(changed)
                continue
            for slot, amount in changed.slots.items():
                copy.learn_slot(slot, amount)
            for account, told in changed.usage.items():
                copy.learn(account, told)
    changed = counters.drain()
    for slot, amount in changed.slots.items():
        copy.learn_slot(slot, amount)
    for account, told in changed.usage.items():
        copy.learn(account, told)
    assert not counters.changed
    assert copy.usage == counters.usage
    for kind in (Kind.REQUESTS, Kind.TOKENS):
        assert used(copy, kind, now + 1) == used(counters, kind, now + 1)
