"""The counts behind the limits: minutes, requests at once, budgets, and who has used how much on which day.

In: demands, and what they cost in the end, each with the time. Out: whether a demand was taken, all of it or nothing.
Must not: read a clock, or do I/O; whoever keeps the counts elsewhere too finds what is new in ``changed``.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple

from edge.policy.limits.rules import BUDGETS, Bound, Demand, Kind, Spent, Standing, Taken
from edge.policy.limits.windows import Window, slot_of

KEPT_DAYS = 31  # in memory; the current month is among them, so that its budget is known
_SWEEP_S = 60.0
_DAY_S = 86400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Account(NamedTuple):
    """Whose usage, under which rule (empty for none), on which day (``2026-11-28``, by UTC)."""

    day: str
    principal: str
    rule: str


@dataclass(frozen=True, slots=True)
class Used:
    """What was used."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0

    def __add__(self, other: "Used") -> "Used":
        return Used(self.requests + other.requests, self.prompt + other.prompt, self.completion + other.completion)

    def __sub__(self, other: "Used") -> "Used":
        return Used(self.requests - other.requests, self.prompt - other.prompt, self.completion - other.completion)

    @property
    def tokens(self) -> int:
        """Of prompts and answers."""
        return self.prompt + self.completion


NOTHING = Used()
Period = tuple[str, str]  # a scope, and the day or month
Slot = tuple[str, Kind, int]  # the scope of a window, its kind, and the slot in it


def day_of(now: float) -> str:
    """The day of a moment in Unix time."""
    return _day(int(now // _DAY_S))


@cache
def _day(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).date().isoformat()


def period_of(kind: Kind, now: float) -> str:
    """The day or month that a budget is for."""
    return day_of(now) if kind is Kind.DAY else day_of(now)[:7]


def period_ends(kind: Kind, now: float) -> float:
    """When the next day or month begins, in Unix time."""
    number = int(now // _DAY_S)
    return (number + 1) * _DAY_S if kind is Kind.DAY else _month_ends(_day(number)[:7])


@cache
def _month_ends(month: str) -> float:
    within_the_next = datetime.fromisoformat(f"{month}-01").replace(tzinfo=UTC) + timedelta(days=32)
    return within_the_next.replace(day=1).timestamp()


@lru_cache(4096)
def periods_of(account: Account) -> list[Period]:
    """All budgets that usage can count towards, whether there are such or not."""
    scopes = {f"/{account.principal}", f"{account.rule}/{account.principal}", f"{account.rule}/"}
    return [(scope, period) for scope in sorted(scopes) for period in (account.day, account.day[:7])]


def days_before(now: float, days: int) -> str:
    """The day so many days before today."""
    return day_of(now - days * _DAY_S)


@dataclass(slots=True)
class Changed:
    """What was counted since somebody last looked, to be added to what is kept elsewhere.

    Attributes:
        reserved: Of budgets, by scope and period: taken before it is known what was used.
        ended: Ids of demands that have ended, with the scopes in which they were counted as running.
    """

    slots: Counter[Slot] = field(default_factory=Counter)
    usage: dict[Account, Used] = field(default_factory=dict)
    reserved: Counter[Period] = field(default_factory=Counter)
    ended: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.slots or self.usage or self.reserved or self.ended)


class Counters:
    """All counts of one process.

    Args:
        tracked: Somebody empties what is ``changed``.
    """

    def __init__(self, *, tracked: bool = False) -> None:
        self._tracked = tracked
        self.windows: dict[tuple[str, Kind], Window] = defaultdict(Window)
        self.running: Counter[str] = Counter()  # by scope
        self.usage: dict[Account, Used] = {}
        self.changed = Changed()
        self._spent: Counter[tuple[str, str]] = Counter()  # by scope and period; what is only reserved is in it
        self._held: dict[str, Taken] = {}
        self._swept_at = 0.0

    def __repr__(self) -> str:
        return f"<Counters {len(self._held)} held, {len(self.windows)} windows, {len(self.usage)} accounts>"

    @property
    def held(self) -> int:
        """Demands that were taken and have not ended."""
        return len(self._held)

    def reserve(self, demand: Demand, now: float) -> Taken:
        """Take all that a demand is bounded by, or nothing of it. Its ``id`` must not be held already."""
        self._sweep(now)
        bounds, tokens = demand.bounds, demand.tokens
        used = [(bound, bound.amount(tokens), self._used(bound, now)) for bound in bounds]
        for bound, amount, before in used:
            if before + amount > bound.limit:
                standings = tuple([self._standing(bound, before, amount, now) for bound, amount, before in used])
                return Taken(demand, now, False, standings)
        for bound, amount, _ in used:
            self._add(bound, amount, now)
        after = tuple([self._standing(bound, before + amount, 0, now) for bound, amount, before in used])
        taken = self._held[demand.id] = Taken(demand, now, True, after)
        return taken

    def took(self, taken: Taken) -> None:
        """Count what was taken elsewhere for a request of this process, and how budgets stand there."""
        self._sweep(taken.at)
        demand = self._held.setdefault(taken.demand.id, taken).demand
        for bound, standing in zip(demand.bounds, taken.standings, strict=True):
            if bound.kind in BUDGETS:
                self._spent[bound.scope, period_of(bound.kind, taken.at)] = standing.used
            else:
                self._add(bound, bound.amount(demand.tokens), taken.at, known=True)

    def keep(self, taken: Taken) -> None:
        """End a demand that is no use of a model: what it took of the minute stays taken."""
        self._held.pop(taken.demand.id, None)

    def end(self, taken: Taken, spent: Spent | None, now: float) -> None:
        """Settle a demand that was taken, or with None give all of it back. Done twice it does nothing more.

        What cost less than was estimated is given back where it was taken; what cost more is taken now, whatever the
        limit: it was generated.
        """
        demand = taken.demand
        if self._held.pop(demand.id, None) is None:
            return
        for bound in demand.bounds:
            if bound.kind is Kind.CONCURRENT:
                self._add(bound, -1, taken.at)
                if self._tracked:
                    self.changed.ended.append((demand.id, bound.scope))
            elif spent is None:
                self._add(bound, -bound.amount(demand.tokens), taken.at)
            elif bound.kind is Kind.TOKENS:
                more = spent.prompt + spent.completion - demand.tokens
                self._add(bound, more, now if more > 0 else taken.at)
            elif bound.kind in BUDGETS:
                self._add(bound, -demand.tokens, taken.at)  # what it cost follows with the usage
        if spent is not None:
            account = Account(day_of(taken.at), demand.principal, demand.rule)
            self.use(account, Used(1, spent.prompt, spent.completion))

    def use(self, account: Account, usage: Used) -> None:
        """Count what was used here."""
        self.learn(account, usage)
        if self._tracked:
            self.changed.usage[account] = self.changed.usage.get(account, NOTHING) + usage

    def learn(self, account: Account, usage: Used) -> None:
        """Count what was used elsewhere or before; a correction may be negative."""
        self.usage[account] = self.usage.get(account, NOTHING) + usage
        tokens, spent = usage.tokens, self._spent
        for period in periods_of(account):
            spent[period] += tokens

    def drain(self) -> Changed:
        """What has changed, which is then somebody else's to keep."""
        changed, self.changed = self.changed, Changed()
        return changed

    def restore(self, changed: Changed) -> None:
        """It could not be kept: it is still to be."""
        later, self.changed = self.changed, changed
        changed.slots.update(later.slots)
        changed.reserved.update(later.reserved)
        changed.ended += later.ended
        for account, used in later.usage.items():
            changed.usage[account] = changed.usage.get(account, NOTHING) + used

    def learn_slot(self, slot: Slot, amount: int) -> None:
        """Count what was taken of a minute elsewhere or before."""
        scope, kind, at = slot
        self.windows[scope, kind].add(at, amount)

    def running_in(self) -> dict[str, list[str]]:
        """Ids of the demands that are counted as running, by scope."""
        ids: dict[str, list[str]] = {}
        for taken in self._held.values():
            for bound in taken.demand.bounds:
                if bound.kind is Kind.CONCURRENT:
                    ids.setdefault(bound.scope, []).append(taken.demand.id)
        return ids

    def spent(self, scope: str, period: str) -> int:
        """Of a budget, in tokens; what is reserved is in it."""
        return self._spent[scope, period]

    # --- counting -----------------------------------------------------------------------------------------------

    def _used(self, bound: Bound, now: float) -> int:
        if bound.kind is Kind.CONCURRENT:
            return self.running[bound.scope]
        if bound.kind in BUDGETS:
            return self._spent[bound.scope, period_of(bound.kind, now)]
        window = self.windows[bound.scope, bound.kind]
        window.clear(now)
        return window.used

    def _standing(self, bound: Bound, used: int, amount: int, now: float) -> Standing:
        """Of a count that is at ``used``, for whom ``amount`` more is wanted."""
        if bound.kind is Kind.CONCURRENT:
            return Standing(used)
        if bound.kind in BUDGETS:
            left = period_ends(bound.kind, now) - now
            return Standing(used, left, left)
        window = self.windows[bound.scope, bound.kind]
        return Standing(used, window.wait_s(amount, bound.limit, now), window.reset_s(now))

    def _add(self, bound: Bound, amount: int, at: float, *, known: bool = False) -> None:
        """Count; ``known``: it is counted already where the counts are kept too."""
        tracked = self._tracked and not known
        if bound.kind is Kind.CONCURRENT:
            self.running[bound.scope] += amount
            if not self.running[bound.scope]:
                del self.running[bound.scope]
        elif bound.kind in BUDGETS:
            period = (bound.scope, period_of(bound.kind, at))
            self._spent[period] += amount
            if tracked:
                self.changed.reserved[period] += amount
        else:
            slot = slot_of(at)
            added = self.windows[bound.scope, bound.kind].add(slot, amount)
            if added and tracked:
                self.changed.slots[bound.scope, bound.kind, slot] += added

    def _sweep(self, now: float) -> None:
        """Forget who has long not been here, and days that no budget is about any more."""
        if abs(now - self._swept_at) < _SWEEP_S:
            return
        self._swept_at = now
        for key, window in list(self.windows.items()):
            window.clear(now)
            if not window.slots:
                del self.windows[key]
        self._forget(min(days_before(now, KEPT_DAYS), f"{day_of(now)[:7]}-01"), now)

    def _forget(self, before: str, now: float) -> None:
        old = [account for account in self.usage if account.day < before and account not in self.changed.usage]
        for account in old:
            del self.usage[account]
        current = (day_of(now), day_of(now)[:7])
        held = {day_of(taken.at) for taken in self._held.values()}
        held |= {day[:7] for day in held}
        for key in [key for key in self._spent if key[1] not in current and key[1] not in held]:
            del self._spent[key]


def by_day(usage: Iterable[tuple[Account, Used]]) -> dict[tuple[str, str], Used]:
    """What was used by day and principal, whatever the rules."""
    summed: dict[tuple[str, str], Used] = {}
    for account, used in usage:
        key = (account.day, account.principal)
        summed[key] = summed.get(key, NOTHING) + used
    return dict(sorted(summed.items()))
