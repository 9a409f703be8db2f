"""Which limits hold for a request, and what its client is told when one is reached."""

import pickle
from typing import Any

import pytest

from edge.errors import EdgeError, OverBudget, RateLimited
from edge.policy.lifecycle import Outcome
from edge.policy.limits.allowance import UNLIMITED, Allowance
from edge.policy.limits.rules import (
    Bound,
    Course,
    Demand,
    Kind,
    Reservation,
    Rules,
    Spent,
    Standing,
    Taken,
    cost,
    duration,
    headers,
    refusal,
)
from edge.settings import Limit

NOW = 1_800_000_000.0


def demand_of(rules: Rules, principal: str = "ann", own: Allowance = UNLIMITED, **asked: Any) -> Demand:
    return rules.demand("st_1", principal, own, **{"model": "m", "surface": "chat", "tokens": 7, **asked})


def refused(kind: Kind, limit: int, tokens: int, *standing: Any) -> EdgeError:
    demand = Demand("st_1", "ann", "", tokens, (Bound(kind, "/ann", limit),))
    return refusal(Taken(demand, NOW, False, (Standing(*standing),)))


# --- which hold -----------------------------------------------------------------------------------------------------


def test_without_rules_nothing_holds_and_usage_is_counted() -> None:
    assert demand_of(Rules([])) == Demand("st_1", "ann", "", 7, ())


def test_the_first_rule_that_matches_holds_and_no_other() -> None:
    rules = Rules(
        [
            Limit(name="admins", principals=["root", "ops-*"]),
            Limit(name="big", models=["*-70b"], requests_per_min=5, concurrent=1),
            Limit(name="all", requests_per_min=60, tokens_per_min=1000),
        ]
    )
    assert demand_of(rules, "ops-1", model="x-70b").bounds == (), "a rule without limits exempts"
    assert demand_of(rules, model="x-70b").bounds == (
        Bound(Kind.REQUESTS, "big/ann", 5),
        Bound(Kind.CONCURRENT, "big/ann", 1),
    )
    assert demand_of(rules).bounds == (Bound(Kind.REQUESTS, "all/ann", 60), Bound(Kind.TOKENS, "all/ann", 1000))
    assert demand_of(rules).rule == "all"


@pytest.mark.parametrize(
    ("limit", "asked", "holds"),
    [
        ({"models": ["m*"]}, {"model": None}, False),
        ({}, {"model": None}, True),
        ({"models": ["M"]}, {"model": "m"}, True),  # one model to an Ollama
        ({"models": ["M"]}, {"model": "m2"}, False),
        ({"models": ["a", "m"]}, {"model": "m\n"}, False),
        ({"surfaces": ["ollama_*"]}, {"surface": "ollama_chat"}, True),
        ({"surfaces": ["ollama_*"]}, {"surface": "chat"}, False),
        ({"surfaces": ["/v1/audio/*"]}, {"surface": "/v1/audio/transcriptions"}, True),
        ({"principals": ["b*"], "models": ["m"]}, {}, False),
    ],
)
def test_all_that_a_rule_names_must_match(limit: dict[str, Any], asked: dict[str, Any], holds: bool) -> None:
    rules = Rules([Limit(name="r", requests_per_min=1, **limit)])
    assert bool(demand_of(rules, **asked).bounds) == holds


def test_a_shared_rule_has_one_count_for_everybody() -> None:
    rules = Rules([Limit(name="gpu", shared=True, concurrent=3)])
    assert demand_of(rules, "ann").bounds == demand_of(rules, "bob").bounds == (Bound(Kind.CONCURRENT, "gpu/", 3),)


def test_what_a_principal_is_allowed_itself_goes_before_the_rule_limit_by_limit() -> None:
    rules = Rules([Limit(name="all", requests_per_min=60, tokens_per_day=500, max_tokens=100, weight=2)])
    own = Allowance(requests_per_min=9, tokens_per_month=10_000)
    assert demand_of(rules, own=own).bounds == (
        Bound(Kind.REQUESTS, "/ann", 9),
        Bound(Kind.DAY, "all/ann", 500),
        Bound(Kind.MONTH, "/ann", 10_000),
    )
    assert rules.allowance("ann", own, "m", "chat") == Allowance(
        requests_per_min=9, tokens_per_day=500, tokens_per_month=10_000, max_tokens=100, weight=2
    )
    assert Rules([]).allowance("ann", own, "m", "chat") == own


def test_a_request_of_nothing_takes_a_token_so_that_nothing_fits_where_all_is_used() -> None:
    assert demand_of(Rules([]), tokens=0).tokens == 1


def test_the_rules_can_be_sent_to_the_process_that_reads_large_bodies() -> None:
    rules = pickle.loads(pickle.dumps(Rules([Limit(name="r", models=["a*"], max_tokens=5)])))  # noqa: S301 - our own
    assert rules.allowance("ann", UNLIMITED, "ab", "chat").max_tokens == 5


# --- what is told ---------------------------------------------------------------------------------------------------


def test_a_full_minute_says_when_to_come_again() -> None:
    error = refused(Kind.REQUESTS, 60, 10, 60, 7.2501, 55.0)
    assert isinstance(error, RateLimited)
    assert (error.status, error.code, error.type, error.retryable) == (
        429, "rate_limit_exceeded", "rate_limit_error", True,
    )  # fmt: skip
    assert error.headers == {
        "retry-after": "8",
        "retry-after-ms": "7251",
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "55s",
    }
    assert "60 requests were used in the last minute, of 60 that are allowed (requests_per_min)" in error.message
    assert error.message.endswith("this request needs 1; try again in 7.251s")


def test_tokens_over_the_limit_by_settlement_leave_nothing_not_less() -> None:
    error = refused(Kind.TOKENS, 1000, 80, 1400, 12.0, 60.0)
    assert error.headers["x-ratelimit-remaining-tokens"] == "0"
    assert "1400 tokens were used" in error.message
    assert "needs about 80" in error.message


def test_a_request_larger_than_the_limit_is_not_worth_repeating() -> None:
    error = refused(Kind.TOKENS, 1000, 1001, 0, 0.0, 0.0)
    assert (error.code, error.retryable, error.headers["x-should-retry"]) == ("rate_limit_exceeded", False, "false")
    assert "retry-after" not in error.headers
    assert "1001 tokens, more than the 1000" in error.message


@pytest.mark.parametrize(("kind", "period"), [(Kind.DAY, "day"), (Kind.MONTH, "month")])
def test_a_spent_budget_is_a_quota_that_a_retry_cannot_help(kind: Kind, period: str) -> None:
    error = refused(kind, 1000, 10, 995, 21_600.0, 21_600.0)
    assert isinstance(error, OverBudget)
    assert (error.status, error.code, error.type, error.retryable) == (
        429, "insufficient_quota", "insufficient_quota", False,
    )  # fmt: skip
    assert (error.headers["x-should-retry"], error.headers["retry-after"]) == ("false", "21600")
    assert f"1000 tokens per {period} ({kind})" in error.message
    assert "995 are spent, this request needs about 10 more" in error.message
    assert "6h0m0s" in error.message


def test_too_many_at_once_may_be_repeated_soon() -> None:
    error = refused(Kind.CONCURRENT, 2, 10, 2)
    assert (error.headers["retry-after"], error.code) == ("1", "rate_limit_exceeded")
    assert "2 requests are running, of 2" in error.message


def test_of_several_limits_the_one_that_holds_longest_is_told() -> None:
    bounds = (Bound(Kind.REQUESTS, "/a", 1), Bound(Kind.DAY, "/a", 100), Bound(Kind.TOKENS, "/a", 50))
    standings = (Standing(1, 30.0, 60.0), Standing(100, 3600.0, 3600.0), Standing(10, 0.0, 9.0))
    error = refusal(Taken(Demand("st_1", "a", "", 5, bounds), NOW, False, standings))
    assert error.code == "insufficient_quota"
    too_large = (Standing(1, 30.0, 60.0), Standing(100, 3600.0, 3600.0), Standing(0, 0.0, 0.0))
    error = refusal(Taken(Demand("st_1", "a", "", 51, bounds), NOW, False, too_large))
    assert error.code == "rate_limit_exceeded", "what can never fit goes before what only has to wait"


def test_the_headers_tell_of_the_tightest_limit_in_tokens() -> None:
    bounds = (
        Bound(Kind.REQUESTS, "/a", 60),
        Bound(Kind.TOKENS, "/a", 1000),
        Bound(Kind.CONCURRENT, "/a", 4),
        Bound(Kind.DAY, "/a", 5000),
    )
    standings = (Standing(1, 0, 61.0), Standing(400, 0, 60.2), Standing(1), Standing(4500, 0, 360.0))
    assert headers(Taken(Demand("st_1", "a", "", 5, bounds), NOW, True, standings)) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1m1s",
        "x-ratelimit-limit-tokens": "5000",
        "x-ratelimit-remaining-tokens": "500",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert headers(Taken(Demand("st_1", "a"), NOW, True)) == {}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (0.0004, "1ms"), (0.25, "250ms"), (1, "1s"), (7.6601, "7.661s"), (59.999, "59.999s"),
        (59.9999, "1m0s"), (60, "1m0s"), (360, "6m0s"), (359.4, "6m0s"), (3599.5, "1h0m0s"), (90061, "25h1m1s"),
    ],
)  # fmt: skip
def test_durations_are_spelt_as_openai_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


# --- reservations ---------------------------------------------------------------------------------------------------


def test_a_reservation_ends_once_whatever_comes_after() -> None:
    ends: list[Spent | None] = []
    taken = Taken(Demand("st_1", "ann"), NOW, True)
    settled = Reservation(taken, lambda _taken, spent: ends.append(spent))
    assert repr(settled) == "<Reservation st_1 held>"
    settled.settle(10, -3)
    settled.settle(99, 99)
    settled.release()
    released = Reservation(taken, lambda _taken, spent: ends.append(spent))
    released.release()
    released.settle(5, 5)
    assert ends == [Spent(10, 0), None]
    assert repr(released) == "<Reservation st_1 ended>"


# --- what it cost ---------------------------------------------------------------------------------------------------

O = Outcome  # noqa: E741 - the table below has it in each row


@pytest.mark.parametrize(
    ("course", "spent"),
    [
        (Course(O.COMPLETE, True, 50, 20, 45, 18), Spent(45, 18)),
        (Course(O.COMPLETE, True, 50, 20), Spent(50, 20)),
        (Course(O.COMPLETE, True, 50, 20, 45), Spent(45, 20)),
        (Course(O.COMPLETE, True, 50, 0, 45, 0), Spent(45, 0)),
        # broken off: what was streamed, whatever had been reported before
        (Course(O.CLIENT_GONE, True, 50, 20), Spent(50, 20)),
        (Course(O.CLIENT_GONE, True, 50, 20, 45, 1), Spent(45, 20)),
        (Course(O.UPSTREAM_CUT, True, 50, 20), Spent(50, 20)),
        (Course(O.UPSTREAM_STALL, True, 50, 20, 45, 30), Spent(45, 30)),
        # before the first token
        (Course(O.CLIENT_GONE, True, 50), Spent(50, 0)),
        (Course(O.STOPPED, True, 50), Spent(50, 0)),
        (Course(O.TOTAL_TIMEOUT, True, 50), Spent(50, 0)),
        (Course(O.UPSTREAM_ERROR, True, 50), Spent(0, 0)),
        (Course(O.CONNECT_TIMEOUT, True, 50), Spent(0, 0)),
        (Course(O.FIRST_TOKEN_TIMEOUT, True, 50), Spent(0, 0)),
        (Course(O.SHUTDOWN, True, 50), Spent(0, 0)),
        (Course(O.INTERNAL_ERROR, True, 50), Spent(0, 0)),
        # nobody was asked
        (Course(O.REJECTED, False, 50), None),
        (Course(O.CLIENT_GONE, False, 50), None),
        (Course(O.QUEUE_TIMEOUT, False, 50), None),
    ],
)
def test_a_request_costs_what_was_really_done_for_it(course: Course, spent: Spent | None) -> None:
    assert cost(course) == spent


def test_a_principal_can_have_the_limits_of_a_rule_by_its_name() -> None:
    rules = Rules([Limit(name="all", requests_per_min=1), Limit(name="gold", models=["none"], requests_per_min=99)])
    assert rules.demand("st_1", "ann", "gold", model="m", surface="chat", tokens=1).bounds == (
        Bound(Kind.REQUESTS, "gold/ann", 99),
    )
    assert rules.demand("st_1", "ann", "gone", model="m", surface="chat", tokens=1).rule == "all"
    assert rules.demand("st_1", "ann", None, model="m", surface="chat", tokens=1).rule == "all"
    assert rules.allowance("ann", "gold", "m", "chat").requests_per_min == 99
