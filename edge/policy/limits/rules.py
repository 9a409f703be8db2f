"""Limits: which of them hold for a request, whether it may go on, and what its client gets either way.

In: the configured rules, a principal's own allowance, and how the counters stand. Out: bounds; then a reservation, or
the error that says which limit it was, and when or whether it is worth coming again. Must not: read a clock, count
(``counters`` does), or know who keeps the counts.

PyPI's ``limits`` was looked at (5.8.0) and not taken: it takes one counter at a time, so that a request that passes one
limit and fails the next has spent the first; it has no way to give back, and what is given back by a negative cost
makes room above the limit; its days begin with the first request; its clock cannot be passed in; and it costs 58 ms
and 5.3 MB. What is left to write is ``windows`` and ``counters``, which do no I/O.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import translate
from typing import NamedTuple

from edge.errors import OverBudget, RateLimited
from edge.policy.lifecycle import Outcome
from edge.policy.limits.allowance import UNLIMITED, Allowance
from edge.policy.model_names import Globs
from edge.settings import Limit


class Kind(StrEnum):
    """What is bounded; named like the setting."""

    REQUESTS = "requests_per_min"
    TOKENS = "tokens_per_min"
    CONCURRENT = "concurrent"
    DAY = "tokens_per_day"
    MONTH = "tokens_per_month"


BUDGETS = frozenset({Kind.DAY, Kind.MONTH})
_IN_TOKENS = frozenset({Kind.TOKENS, *BUDGETS})
_SHOWN = {Kind.REQUESTS: "requests", **dict.fromkeys(_IN_TOKENS, "tokens")}
_CONCURRENT_RETRY_S = 1.0  # nobody knows when one of them ends


@dataclass(frozen=True, slots=True)
class Bound:
    """One limit that holds for a request.

    Attributes:
        scope: Whose count it is: ``RULE/PRINCIPAL``, with either left out where it does not matter.
    """

    kind: Kind
    scope: str
    limit: int

    def amount(self, tokens: int) -> int:
        """What a request of so many tokens takes of it."""
        return tokens if self.kind in _IN_TOKENS else 1


class Demand(NamedTuple):
    """What one request takes, before it is known what it costs.

    Attributes:
        id: Unique; the stream id.
        rule: The name of the rule that holds for it; empty if none does.
        tokens: Estimate of the prompt, at least 1: nothing fits where everything has been used.
    """

    id: str
    principal: str
    rule: str = ""
    tokens: int = 0
    bounds: tuple[Bound, ...] = ()


class Spent(NamedTuple):
    """What a request has cost in the end, in tokens."""

    prompt: int
    completion: int


class Standing(NamedTuple):
    """How one count stands, this request included if it was allowed.

    Attributes:
        wait_s: How long until the request fits, if nothing else is taken; 0 if it does.
        reset_s: How long until the count is at 0, likewise.
    """

    used: int
    wait_s: float = 0.0
    reset_s: float = 0.0


class Taken(NamedTuple):
    """What came of a demand.

    Attributes:
        at: When, in Unix time; the amounts are counted then, and belong to that day.
        allowed: All of it was taken; else nothing.
        standings: One for each bound.
    """

    demand: Demand
    at: float
    allowed: bool
    standings: tuple[Standing, ...] = ()


class Reservation:
    """What a request has taken, to be settled or released at its end, whichever comes first; then neither does more."""

    __slots__ = ("_end", "headers", "taken")

    def __init__(self, taken: Taken, end: Callable[[Taken, Spent | None], None]) -> None:
        self.taken = taken
        self.headers = headers(taken)
        self._end: Callable[[Taken, Spent | None], None] | None = end

    def __repr__(self) -> str:
        return f"<Reservation {self.taken.demand.id} {'held' if self._end else 'ended'}>"

    def settle(self, prompt: int, completion: int) -> None:
        """The request has cost so many tokens, whatever was estimated."""
        self._finish(Spent(max(0, prompt), max(0, completion)))

    def release(self) -> None:
        """The request came to nothing, and counts for nothing."""
        self._finish(None)

    def _finish(self, spent: Spent | None) -> None:
        end, self._end = self._end, None
        if end is not None:
            end(self.taken, spent)


# --- which limits hold ----------------------------------------------------------------------------------------------


# A principal's: limits of its own, the name of a rule, or nothing.
Own = Allowance | str | None
_REMEMBERED = 1024  # principals whose bounds need not be made anew


class Rules:
    """The rules of the configuration, in its order. Can be passed to another process.

    Of the rules that match, the first one holds, and no other; for a principal whose limits are those of a rule by
    its name, that one does, whatever it is for. What a principal's own allowance says goes before what the rule says,
    limit by limit.
    """

    def __init__(self, limits: Sequence[Limit]) -> None:
        self._rules = [_Rule(limit) for limit in limits]
        self._named = {rule.name: rule for rule in self._rules}
        self._bounds: dict[tuple[str, str, Allowance], tuple[Bound, ...]] = {}

    def find(self, principal: str, limits: Own, model: str | None, surface: str) -> "_Rule | None":
        """The rule that holds; a name that is none (any more) is as if there were no name."""
        if isinstance(limits, str) and limits in self._named:
            return self._named[limits]
        for rule in self._rules:
            if rule.matches(principal, model, surface):
                return rule
        return None

    def allowance(self, principal: str, limits: Own, model: str | None, surface: str) -> Allowance:
        """What the principal may take, all in all."""
        rule = self.find(principal, limits, model, surface)
        own = limits if isinstance(limits, Allowance) else UNLIMITED
        return own if rule is None else own.over(rule.allowance)

    def demand(
        self, request: str, principal: str, limits: Own, *, model: str | None, surface: str, tokens: int
    ) -> Demand:
        """What a request takes; ``request`` is its id, ``tokens`` the estimate of its prompt."""
        rule = self.find(principal, limits, model, surface)
        own = limits if isinstance(limits, Allowance) else UNLIMITED
        name = "" if rule is None else rule.name
        # They are the same for each request of a principal: 4 µs to look up, 14 to make.
        bounds = self._bounds.get((name, principal, own))
        if bounds is None:
            if len(self._bounds) >= _REMEMBERED:
                self._bounds.clear()
            bounds = self._bounds[name, principal, own] = tuple(_bounds(rule, principal, own))
        return Demand(request, principal, name, max(1, tokens), bounds)


def _bounds(rule: "_Rule | None", principal: str, own: Allowance) -> Iterator[Bound]:
    for kind in Kind:
        if (limit := getattr(own, kind)) is not None:
            yield Bound(kind, f"/{principal}", limit)
        elif rule is not None and (limit := getattr(rule.allowance, kind)) is not None:
            yield Bound(kind, rule.scope(principal), limit)


class _Rule:
    """One ``[[limit]]``."""

    def __init__(self, limit: Limit) -> None:
        self.name = limit.name
        self.allowance = Allowance(**{name: getattr(limit, name) or None for name in _LIMITS})
        self._shared = limit.shared
        self._principals, self._surfaces = map(_pattern, (limit.principals, limit.surfaces))
        self._models = Globs(limit.models) if limit.models else None

    def matches(self, principal: str, model: str | None, surface: str) -> bool:
        """Whether it is about such a request. One that names no model is only meant where no model is named."""
        return (
            (self._principals is None or self._principals.match(principal) is not None)
            and (self._models is None or (model is not None and self._models.fit(model)))
            and (self._surfaces is None or self._surfaces.match(surface) is not None)
        )

    def scope(self, principal: str) -> str:
        """Whose count it is."""
        return f"{self.name}/" if self._shared else f"{self.name}/{principal}"


_LIMITS = ("max_tokens", "weight", *Kind)


def _pattern(globs: Sequence[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(translate, globs))) if globs else None


# --- what the client gets -------------------------------------------------------------------------------------------


def refusal(taken: Taken) -> RateLimited | OverBudget:
    """The error for a demand that was not allowed: of the limits in its way, the one that is so for longest."""
    demand = taken.demand
    blocked = [
        (bound, standing)
        for bound, standing in zip(demand.bounds, taken.standings, strict=True)
        if standing.used + bound.amount(demand.tokens) > bound.limit
    ]
    bound, standing = max(blocked, key=lambda pair: (pair[0].amount(demand.tokens) > pair[0].limit, pair[1].wait_s))
    found = headers(taken)
    amount = bound.amount(demand.tokens)
    if bound.kind in BUDGETS:
        found |= _retry(standing.wait_s) | {"x-should-retry": "false"}
        period = "day" if bound.kind is Kind.DAY else "month"
        return OverBudget(
            f"the budget of {bound.limit} tokens per {period} ({bound.kind}) does not allow this: {standing.used} are "
            f"spent, this request needs about {amount} more; the next {period} begins in {duration(standing.wait_s)}",
            headers=found,
        )
    if amount > bound.limit:  # waiting cannot help
        error = RateLimited(
            f"the request has about {amount} tokens, more than the {bound.limit} that are allowed in a minute "
            f"({bound.kind}); send less",
            headers=found | {"x-should-retry": "false"},
        )
        error.retryable = False
        return error
    if bound.kind is Kind.CONCURRENT:
        return RateLimited(
            f"{standing.used} requests are running, of {bound.limit} that are allowed at once ({bound.kind}); "
            "wait for one to end",
            headers=found | _retry(_CONCURRENT_RETRY_S),
        )
    return RateLimited(
        f"{standing.used} {_SHOWN[bound.kind]} were used in the last minute, of {bound.limit} that are allowed "
        f"({bound.kind}), and this request needs {'about ' * (amount > 1)}{amount}; "
        f"try again in {duration(standing.wait_s)}",
        headers=found | _retry(standing.wait_s),
    )


def headers(taken: Taken) -> dict[str, str]:
    """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``; of several limits in tokens the tightest."""
    least: dict[str, tuple[int, Bound, Standing]] = {}
    for bound, standing in zip(taken.demand.bounds, taken.standings, strict=True):
        what = _SHOWN.get(bound.kind)
        if what is not None:
            left = max(0, bound.limit - standing.used)
            if what not in least or left < least[what][0]:
                least[what] = (left, bound, standing)
    found = {}
    for what, (left, bound, standing) in least.items():
        found[f"x-ratelimit-limit-{what}"] = str(bound.limit)
        found[f"x-ratelimit-remaining-{what}"] = str(left)
        found[f"x-ratelimit-reset-{what}"] = duration(standing.reset_s)
    return found


def _retry(seconds: float) -> dict[str, str]:
    ms = max(1, math.ceil(seconds * 1000))
    return {"retry-after": str(-(-ms // 1000)), "retry-after-ms": str(ms)}


def duration(seconds: float) -> str:
    """As OpenAI's clients read it: ``250ms``, ``7.66s``, ``6m0s``, ``1h0m0s``. Never shorter than it is."""
    ms = math.ceil(seconds * 1000)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    if ms < 60_000:
        return f"{ms / 1000:g}s"
    minutes, rest = divmod(math.ceil(ms / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


# --- what it cost ---------------------------------------------------------------------------------------------------

# The reader's own doing: what the server has worked on until then is the reader's.
_OWN_DOING = frozenset({Outcome.CLIENT_GONE, Outcome.CLIENT_STALL, Outcome.STOPPED, Outcome.TOTAL_TIMEOUT})


class Course(NamedTuple):
    """How a request went.

    Attributes:
        asked: Some upstream was asked.
        estimate: Of the prompt, in tokens.
        streamed: Tokens that were generated, as they were counted here.
        prompt: Tokens of the prompt, as the upstream counted them; None if it said nothing.
        completion: Likewise of the answer.
    """

    outcome: Outcome
    asked: bool
    estimate: int
    streamed: int = 0
    prompt: int | None = None
    completion: int | None = None


def cost(course: Course) -> Spent | None:
    """What a request is settled at, in tokens; None: it came to nothing and is released.

    What the upstream reports goes before what is estimated or counted here, but a stream that broke off has cost what
    was streamed, if that is more than what had been reported by then. A server that failed before its first token is
    owed nothing for the prompt.
    """
    if not course.asked:
        return None
    complete = course.outcome is Outcome.COMPLETE
    completion = course.streamed if course.completion is None else course.completion
    if not complete:
        completion = max(completion, course.streamed)
    if course.prompt is not None:
        return Spent(course.prompt, completion)
    owed = complete or course.streamed > 0 or course.outcome in _OWN_DOING
    return Spent(course.estimate if owed else 0, completion)
