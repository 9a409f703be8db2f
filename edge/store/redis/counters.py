"""Counts that several nodes share: taken in Redis, in one step, and settled there behind.

In: demands, and what they cost. Out: whether they fit, as Redis sees it; while it is gone, as this node does. Must not:
let a request fail by Redis, or wait for it more than once per outage.

What this node takes in Redis it counts itself too. So when Redis is gone it goes on from its own share of each minute,
from all that it has running, and from the budgets as they last stood; and what it has counted meanwhile is added when
Redis is back. The link reports both. An outage may count the requests twice whose answers it swallowed: those of a
moment, for a minute, and their estimates for a budget's period.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta

from typing_extensions import override

from edge.policy.limits.counters import Account, Changed, Counters, Used, day_of, period_ends, period_of, periods_of
from edge.policy.limits.rules import BUDGETS, Bound, Demand, Kind, Spent, Standing, Taken
from edge.policy.limits.windows import counts
from edge.store.ports import CounterStore, StoreDown
from edge.store.redis.counter_scripts import ADD, RUN, TAKE, USED
from edge.store.redis.link import Argument, Part, RedisLink

_MOST_SLOTS = 4096  # of minutes that are to be added when Redis is back; beyond, those that have passed are left out
_MOST_DAYS = 400


class RedisCounters(CounterStore, Part):
    """A ``ports.CounterStore``, on a link that other stores may use as well."""

    def __init__(self, link: RedisLink, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._clock = clock
        self._local = Counters(tracked=True)
        self._ahead = 0.0  # of the server's clock to this node's, in seconds
        self._asking: set[asyncio.Task[Taken]] = set()
        self._pending: dict[str, Demand] = {}
        self._told: set[str] = set()  # scopes of which Redis knows running requests
        self._adding: asyncio.Task[None] | None = None
        self._batch: list[Argument] = []
        self._number = 0
        self._closed = False
        link.join(self)

    def __repr__(self) -> str:
        return f"<RedisCounters {self._local!r} {self._link!r}>"

    @override
    async def open(self) -> None:
        pass

    @override
    async def reserve(self, demand: Demand) -> Taken:
        if not demand.bounds or self._is_down():
            return self._take_here(demand)
        asking = asyncio.get_running_loop().create_task(self._take_there(demand))
        self._asking.add(asking)
        asking.add_done_callback(self._asking.discard)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(self._unwanted)
            raise

    @override
    def end(self, taken: Taken, spent: Spent | None) -> None:
        self._local.end(taken, spent, self._now())
        self._changed()

    @override
    async def usage(self, first: str) -> dict[Account, Used]:
        """Not more than ``_MOST_DAYS``."""
        await self._added()
        last = date.fromisoformat(day_of(self._now())) + timedelta(days=1)
        count = min(_MOST_DAYS, (last - date.fromisoformat(first)).days)
        days = [(last - timedelta(days=back)).isoformat() for back in range(count + 1)]
        found = await self._link.ask(USED, *days)
        return dict(_read(days, found))

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._asking:
            await asyncio.wait(self._asking)
        try:
            await self._added()
        except StoreDown:
            pass  # it is gone, and so is what it did not hear
        finally:
            await self._link.leave(self)

    @override
    async def renew(self) -> None:
        """Tell which requests are running here, and add what could not be added before."""
        running = self._local.running_in()
        for demand in self._pending.values():
            for bound in demand.bounds:
                if bound.kind is Kind.CONCURRENT:
                    running.setdefault(bound.scope, []).append(demand.id)
        words: list[Argument] = []
        for scope in sorted(self._told | running.keys()):
            ids = running.get(scope, [])
            words += (f"edge:run:{scope}", len(ids), *ids)
        if words:
            await self._link.tend(RUN, self._link.owner, *words)
        self._told = set(running)
        while self._next_batch():
            await self._link.tend(ADD, self._link.owner, self._number, *self._batch)
            self._batch = []

    @override
    def went_down(self, error: StoreDown | None) -> None:
        """Whoever asked is answered by this node, nobody else waits."""

    @override
    def stop_asked(self, stream_id: str) -> None:
        """There are no streams here."""

    # --- taking ---------------------------------------------------------------------------------------------------

    def _is_down(self) -> bool:
        try:
            self._link.check()
        except StoreDown:
            return True
        return False

    def _now(self) -> float:
        return self._clock() + self._ahead

    def _take_here(self, demand: Demand) -> Taken:
        taken = self._local.reserve(demand, self._now())
        slots = self._local.changed.slots
        if len(slots) > _MOST_SLOTS:
            for slot in [slot for slot in slots if not counts(slot[2], taken.at)]:
                del slots[slot]
        return taken

    async def _take_there(self, demand: Demand) -> Taken:
        began = self._clock()
        words = [word for bound in demand.bounds for word in _words(bound, demand.tokens, self._now())]
        self._pending[demand.id] = demand
        try:
            at, ok, *numbers = await self._link.ask(TAKE, self._link.now, self._link.owner, demand.id, *words)
        except StoreDown:
            return self._take_here(demand)
        finally:
            del self._pending[demand.id]
        now = float(at)
        self._ahead = now - (began + self._clock()) / 2
        threes = zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True)
        standings = [_standing(bound, now, *three) for bound, three in zip(demand.bounds, threes, strict=True)]
        taken = Taken(demand, now, bool(ok), tuple(standings))
        if taken.allowed:
            self._local.took(taken)
        return taken

    def _unwanted(self, asked: asyncio.Task[Taken]) -> None:
        """Whoever asked has left."""
        if not asked.cancelled() and asked.exception() is None and asked.result().allowed:
            self.end(asked.result(), None)

    # --- adding ---------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        if self._is_down():
            self._local.changed.ended.clear()  # it learns what runs, when it is back
        elif self._adding is None and not self._closed:
            self._add_soon()

    def _add_soon(self) -> asyncio.Task[None]:
        self._adding = asyncio.get_running_loop().create_task(self._add())
        self._adding.add_done_callback(self._idle)
        return self._adding

    def _idle(self, _task: asyncio.Task[None]) -> None:
        self._adding = None

    async def _add(self) -> None:
        try:
            while self._next_batch():
                await self._link.write(ADD, self._link.owner, self._number, *self._batch)
                self._batch = []
        except StoreDown:
            return  # the batch is added when it is back, whether it was by now or not

    def _next_batch(self) -> bool:
        if not self._batch and self._local.changed:
            self._batch = list(_operations(self._local.drain(), self._now()))
            self._number += 1
        return bool(self._batch)

    async def _added(self) -> None:
        """Add now what is to be added. Raises ``StoreDown``."""
        self._link.check()
        if self._adding is None and (self._batch or self._local.changed):
            self._add_soon()
        if self._adding is not None:
            await asyncio.wait([self._adding])
        self._link.check()


def _words(bound: Bound, tokens: int, now: float) -> tuple[Argument, ...]:
    """For ``TAKE``."""
    amount = bound.amount(tokens)
    if bound.kind is Kind.CONCURRENT:
        return ("c", f"edge:run:{bound.scope}", amount, bound.limit, "", "")
    if bound.kind in BUDGETS:
        ends = period_ends(bound.kind, now)
        periods = (period_of(bound.kind, now), period_of(bound.kind, ends))
        key, following = (f"edge:bud:{period}:{bound.scope}" for period in periods)
        return ("b", key, amount, bound.limit, following, ends)
    return ("w", f"edge:win:{bound.kind}:{bound.scope}", amount, bound.limit, "", "")


def _standing(bound: Bound, now: float, used: int, wait_ms: int, reset_ms: int) -> Standing:
    if bound.kind in BUDGETS:
        left = period_ends(bound.kind, now) - now
        return Standing(used, left, left)
    return Standing(used, wait_ms / 1000, reset_ms / 1000)


def _operations(changed: Changed, now: float) -> Iterator[Argument]:
    """For ``ADD``."""
    for (scope, kind, slot), amount in changed.slots.items():
        if amount and counts(slot, now):
            yield from ("w", f"edge:win:{kind}:{scope}", slot, amount)
    budgets = changed.reserved.copy()
    for account, used in changed.usage.items():
        name = f"{account.rule}/{account.principal}"
        for field, amount in (("r", used.requests), ("p", used.prompt), ("c", used.completion)):
            yield from ("u", f"edge:use:{account.day}", field + name, amount)
        for budget in periods_of(account):
            budgets[budget] += used.tokens
    for (scope, period), amount in budgets.items():
        if amount:
            yield from ("b", f"edge:bud:{period}:{scope}", "", amount)
    for request, scope in changed.ended:
        yield from ("e", f"edge:run:{scope}", request, 0)


def _read(days: list[str], found: list[list[bytes]]) -> Iterator[tuple[Account, Used]]:
    """The answer to ``USED``."""
    for day, fields in zip(days, found, strict=True):
        numbers: dict[str, dict[str, int]] = {}
        for field, amount in zip(fields[::2], fields[1::2], strict=True):
            text = field.decode()
            numbers.setdefault(text[1:], {})[text[0]] = int(amount)
        for name, payload in numbers.items():
            rule, _, principal = name.partition("/")
            yield Account(day, principal, rule), Used(*(payload.get(field, 0) for field in "rpc"))
