"""Limits around an exchange: reserved before an upstream is asked, settled when the answer has ended.

In: who asks for what; a generation that has ended. Out: a reservation, or the error that refuses the request. Must
not: decide (``policy.limits.rules`` does), or count (a counter store does).
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from edge.policy.lifecycle import Outcome
from edge.policy.limits.allowance import Allowance
from edge.policy.limits.counters import Counters
from edge.policy.limits.rules import Course, Kind, Own, Reservation, Rules, cost, refusal
from edge.protocol.batch import Usage
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface
from edge.protocol.whole_answer import usage_in
from edge.settings import READS, Settings
from edge.store.ports import CounterStore
from edge.stream.generation import Generation


@dataclass(frozen=True, slots=True)
class Most:
    """The most tokens that an answer of a model may have, for one principal on one surface. Can be pickled."""

    rules: Rules
    principal: str
    limits: Own
    surface: str

    def __call__(self, model: str | None) -> int | None:
        """The most for this model; None = no limit."""
        return self.rules.allowance(self.principal, self.limits, model, self.surface).max_tokens


class Limits:
    """The limits in force."""

    def __init__(self, store: CounterStore, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._reads = Counters()
        self._clock = clock
        self.apply_settings(settings)

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self.rules = Rules(settings.limit)
        self._weighted = any(limit.weight for limit in settings.limit)
        self._capped = any(limit.max_tokens for limit in settings.limit)

    def most(self, principal: str, limits: Own, surface: str) -> Callable[[str | None], int | None] | None:
        """The bound on answers, for ``protocol.request.prepare``; None if no rule has one."""
        own = isinstance(limits, Allowance) and limits.max_tokens is not None
        return Most(self.rules, principal, limits, surface) if self._capped or own else None

    def weight(self, principal: str, limits: Own, prepared: Prepared) -> float:
        """The principal's share of a busy upstream, relative to the shares of others."""
        if not self._weighted and not isinstance(limits, Allowance):
            return 1.0
        return self.rules.allowance(principal, limits, prepared.model, str(prepared.surface)).weight or 1.0

    def read(self, request: str, principal: str, limits: Own) -> None:
        """Count a request that reads or ends stored streams and sessions; ``request`` is its id.

        The request limits of the caller hold for these too, but they are counted apart from generating requests: a
        reader that lost its connection may come back for the answer to its last request. They are counted in this
        process only, so that a read costs no query of the counter store.

        Raises:
            RateLimited: the caller has sent too many.
        """
        demand = self.rules.demand(request, principal, limits, model=None, surface=READS, tokens=0)
        bounds = tuple(bound for bound in demand.bounds if bound.kind is Kind.REQUESTS)
        if bounds:
            taken = self._reads.reserve(demand._replace(bounds=bounds), self._clock())
            if not taken.allowed:
                raise refusal(taken)
            self._reads.keep(taken)

    async def reserve(
        self, request: str, principal: str, limits: Own, prepared: Prepared, *, anonymous: bool = False
    ) -> Reservation | None:
        """Reserve what a request needs; ``request`` is its id. The caller has to end the reservation, whatever happens.

        None if the caller is ``anonymous`` and no rule applies: an Edge without keys and limits keeps no counts.

        Raises:
            RateLimited, OverBudget: the limits do not allow it; nothing was reserved.
        """
        surface, model = str(prepared.surface), prepared.model
        if anonymous and self.rules.find(principal, limits, model, surface) is None:
            return None
        demand = self.rules.demand(request, principal, limits, model=model, surface=surface, tokens=prepared.tokens)
        taken = await self.store.reserve(demand)
        if not taken.allowed:
            raise refusal(taken)
        return Reservation(taken, self.store.end)


def usage_of(generation: Generation, surface: Surface) -> Usage | None:
    """The usage that the answer reports, as a stream or in one body of ``surface``; None if it reports none."""
    usage = None if generation.codec is None else generation.codec.usage
    if usage is None and generation.whole is not None:
        return usage_in(surface, generation.whole)
    return usage


def settle(reservation: Reservation, generation: Generation, prepared: Prepared, *, asked: bool) -> None:
    """Settle a reservation by what its generation has cost; idempotent. ``asked``: an upstream was asked."""
    usage = usage_of(generation, prepared.surface)
    spent = cost(
        Course(
            outcome=generation.outcome or Outcome.INTERNAL_ERROR,
            asked=asked,
            estimate=prepared.tokens,
            streamed=generation.token_count,
            prompt=None if usage is None else usage.prompt,
            completion=None if usage is None else usage.completion,
        )
    )
    if spent is None:
        reservation.release()
    else:
        reservation.settle(spent.prompt, spent.completion)
