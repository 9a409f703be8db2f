"""Limits around an exchange: taken before, settled after, whatever happens in between."""

import pickle
from dataclasses import dataclass
from typing import Any, cast

import orjson
import pytest
from contract.counter_store_contract import NOON
from contract.session_store_contract import Clock

from edge.errors import OverBudget, RateLimited
from edge.exchange.limits import Limits, settle
from edge.policy.lifecycle import Outcome
from edge.policy.limits.allowance import UNLIMITED, Allowance
from edge.policy.limits.counters import Account, Used
from edge.protocol.batch import Usage
from edge.protocol.request import Prepared, prepare
from edge.protocol.surface import Surface
from edge.settings import Limit, Settings
from edge.store.memory.counters import MemoryCounters
from edge.stream.generation import Generation


@dataclass
class Coded:
    """A codec, as far as it matters."""

    usage: Usage | None


@dataclass
class Ended:
    """A generation that has ended, as far as it matters."""

    outcome: Outcome | None = Outcome.COMPLETE
    codec: Coded | None = None
    whole: bytes | None = None
    token_count: int = 0

    def as_generation(self) -> Generation:
        return cast("Generation", self)


def limits_of(*limits: Limit) -> Limits:
    return Limits(MemoryCounters(Clock(NOON)), Settings(limit=list(limits)))


def asked(**fields: Any) -> Prepared:
    return prepare(Surface.CHAT, orjson.dumps({"model": "m", "messages": [], **fields}))


async def test_a_reservation_is_settled_by_what_the_upstream_reported() -> None:
    limits = limits_of(Limit(name="all", requests_per_min=2, tokens_per_min=100))
    reservation = await limits.reserve("st_1", "ann", UNLIMITED, asked())
    assert reservation.headers["x-ratelimit-remaining-requests"] == "1"
    ended = Ended(codec=Coded(Usage(30, 40)), token_count=7)
    settle(reservation, ended.as_generation(), asked(), asked=True)
    settle(reservation, ended.as_generation(), asked(), asked=True)
    assert await limits.store.usage("2026-11-01") == {Account("2026-11-28", "ann", "all"): Used(1, 30, 40)}


@pytest.mark.parametrize(
    ("ended", "used"),
    [
        (Ended(whole=b'{"usage":{"prompt_tokens":5,"completion_tokens":6}}'), Used(1, 5, 6)),
        (Ended(whole=b'{"text":"hi"}'), Used(1, 7, 0)),
        (Ended(Outcome.CLIENT_GONE, Coded(None), token_count=3), Used(1, 7, 3)),
        (Ended(Outcome.UPSTREAM_ERROR), Used(1, 0, 0)),
    ],
)
async def test_or_by_what_is_known_of_it(ended: Ended, used: Used) -> None:
    limits = limits_of()
    prepared = asked()
    assert prepared.tokens == 7
    settle(await limits.reserve("st_1", "ann", UNLIMITED, prepared), ended.as_generation(), prepared, asked=True)
    assert list((await limits.store.usage("2026-11-01")).values()) == [used]


async def test_what_nobody_was_asked_is_released() -> None:
    limits = limits_of(Limit(name="all", requests_per_min=1, concurrent=1))
    for number in range(3):
        reservation = await limits.reserve(f"st_{number}", "ann", UNLIMITED, asked())
        settle(reservation, Ended(Outcome.REJECTED).as_generation(), asked(), asked=False)
    assert await limits.store.usage("2026-11-01") == {}


async def test_what_does_not_fit_is_refused_with_the_limit_that_it_was() -> None:
    limits = limits_of(Limit(name="all", requests_per_min=1))
    await limits.reserve("st_1", "ann", UNLIMITED, asked())
    with pytest.raises(RateLimited, match="requests_per_min"):
        await limits.reserve("st_2", "ann", UNLIMITED, asked())
    with pytest.raises(OverBudget, match="tokens_per_day"):
        await limits.reserve("st_3", "bob", Allowance(tokens_per_day=6), asked())


async def test_a_reload_changes_the_limits_and_keeps_the_counts() -> None:
    limits = limits_of(Limit(name="all", requests_per_min=1))
    await limits.reserve("st_1", "ann", UNLIMITED, asked())
    limits.apply_settings(Settings(limit=[Limit(name="all", requests_per_min=2)]))
    reservation = await limits.reserve("st_2", "ann", UNLIMITED, asked())
    assert reservation.headers["x-ratelimit-remaining-requests"] == "0"


def test_the_cap_of_an_answer_is_looked_up_by_its_model_only_where_there_is_one() -> None:
    assert limits_of(Limit(name="all", concurrent=1)).most("ann", UNLIMITED, "chat") is None
    limits = limits_of(Limit(name="small", models=["s*"], max_tokens=10), Limit(name="all", max_tokens=99))
    most = pickle.loads(pickle.dumps(limits.most("ann", UNLIMITED, "chat")))  # noqa: S301 - our own
    assert (most("s1"), most("big"), most(None)) == (10, 99, 99)
    own = limits_of().most("ann", Allowance(max_tokens=5), "chat")
    assert own is not None
    assert own("anything") == 5


async def test_nothing_is_counted_of_nobody_unless_a_limit_is_about_it() -> None:
    free = limits_of()
    assert await free.reserve("st_1", "anonymous", None, asked(), anonymous=True) is None
    limited = limits_of(Limit(name="all", requests_per_min=5))
    reservation = await limited.reserve("st_1", "anonymous", None, asked(), anonymous=True)
    settle(reservation, Ended(codec=Coded(Usage(30, 40))).as_generation(), asked(), asked=True)
    assert list((await limited.store.usage("2026-11-01")).values()) == [Used(1, 30, 40)]
