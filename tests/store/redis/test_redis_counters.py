"""The Redis store keeps the promises of a counter store, on one node and on several, and does without Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from contract.counter_store_contract import NOON, CounterStoreContract, Opened, demand, settled
from contract.session_store_contract import Clock
from support.hanging import HANG_S, hang_limit
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.policy.limits.counters import Account, Used, day_of
from edge.policy.limits.rules import Demand, Spent, Taken
from edge.store.ports import CounterStore, StoreDown
from edge.store.redis.counters import RedisCounters
from edge.store.redis.link import RedisLink

NEVER_S = 600.0  # between renewals by themselves, in tests that move the clock

Opens = Callable[..., RedisCounters]


class Heard:
    """Who is told of outages."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.recovered = 0

    def stop_asked(self, stream_id: str) -> None:
        raise AssertionError(stream_id)

    def store_failed(self, why: str) -> None:
        self.failed.append(why)

    def store_recovered(self, after_s: float) -> None:
        self.recovered += 1

    def store_reopened(self, what: str) -> None:
        raise AssertionError(what)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def opens(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opens]:
    """Each over a link of its own, as in a process of its own; at the end no connection is left."""
    monkeypatch.setattr("edge.store.redis.link.ANSWER_S", HANG_S)  # a busy machine is no outage
    server.say("FLUSHALL")
    stores: list[RedisCounters] = []

    def make(clock: Clock | None = None, heard: Heard | None = None, renew_s: float = NEVER_S) -> RedisCounters:
        link = RedisLink(server.url, heard or Heard(), clock=clock, renew_s=renew_s)
        stores.append(RedisCounters(link) if clock is None else RedisCounters(link, clock))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()
    await until(lambda: server.connections() == 0)


class TestRedisCounters(CounterStoreContract):
    @pytest.fixture
    def opened(self, opens: Opens) -> Opened:
        async def make(clock: Clock) -> CounterStore:
            return opens(clock)

        return make


async def test_two_nodes_hold_one_limit(opens: Opens) -> None:
    """No more than the limit in any minute, and at least 98 % of it where more is wanted."""
    clock = Clock(NOON)
    nodes = (opens(clock), opens(clock))
    limits = {"requests_per_min": 300, "concurrent": 2}
    times: list[float] = []
    for number in range(2000):
        clock.now += 0.09  # 667 a minute are wanted, for 3 minutes
        node = nodes[number % 2]
        taken = await node.reserve(demand(number, **limits))
        if taken.allowed:
            times.append(clock.now)
            node.end(taken, Spent(1, 1))
            await settled(node)
    for at in times:
        assert sum(at - 60 < other <= at for other in times) <= 300
    assert len(times) >= 0.98 * 300 * 3


async def test_two_nodes_at_once_let_exactly_as_much_in_as_there_is_room_for(opens: Opens) -> None:
    nodes = (opens(), opens())
    for node in nodes:
        await node._link.open()  # as Edge does when it starts
    limits = {"requests_per_min": 100, "concurrent": 60, "tokens_per_day": 5000}
    takes = [nodes[number % 2].reserve(demand(number, 70, **limits)) for number in range(200)]
    got = await asyncio.gather(*takes)
    held = [(nodes[number % 2], taken) for number, taken in enumerate(got) if taken.allowed]
    assert len(held) == 60
    for node, taken in held:
        node.end(taken, Spent(50, 10))
    for node in nodes:
        await settled(node)
    got = await asyncio.gather(
        *(nodes[number % 2].reserve(demand(f"b{number}", 70, **limits)) for number in range(200))
    )
    assert sum(taken.allowed for taken in got) == (5000 - 60 * 60) // 70
    assert await nodes[0].usage(day_of(got[0].at)) == {Account(day_of(got[0].at), "ann", ""): Used(60, 3000, 600)}


async def test_what_a_node_had_running_is_free_again_when_the_node_is_gone(opens: Opens) -> None:
    clock = Clock(NOON)
    dying, living = opens(clock), opens(clock)
    for number in range(2):
        assert (await dying.reserve(demand(number, concurrent=2))).allowed
    assert not (await living.reserve(demand("full", concurrent=2))).allowed
    await vanish(dying._link)
    clock.now += 9
    await living._link.renew()
    assert not (await living.reserve(demand("still full", concurrent=2))).allowed
    clock.now += 2
    assert (await living.reserve(demand("free", concurrent=2))).allowed


async def test_without_redis_the_limits_are_local_and_that_is_said_once(server: RedisServer, opens: Opens) -> None:
    clock, heard = Clock(NOON), Heard()
    node = opens(clock, heard)
    limits = {"requests_per_min": 4, "concurrent": 3, "tokens_per_day": 100}
    first = [await node.reserve(demand(number, 10, **limits)) for number in range(2)]
    server.kill()
    took = [await node.reserve(demand(f"b{number}", 10, **limits)) for number in range(3)]
    assert [taken.allowed for taken in took] == [True, False, False], "what ran before is known"
    node.end(first[0], Spent(10, 20))
    node.end(took[0], Spent(10, 5))
    fourth = await node.reserve(demand("c", 10, **limits))
    assert (fourth.allowed, fourth.standings[0].used, fourth.standings[2].used) == (True, 4, 65)
    assert not (await node.reserve(demand("d", 10, **limits))).allowed
    with pytest.raises(StoreDown):
        await node.usage("2026-11-01")
    assert (len(heard.failed), heard.recovered) == (1, 0)
    server.start()
    await until(lambda: heard.recovered == 1)
    assert await node.usage("2026-11-01") == {Account("2026-11-28", "ann", ""): Used(2, 20, 25)}
    assert len(heard.failed) == 1


async def test_what_was_counted_without_redis_counts_for_all_when_it_is_back(server: RedisServer, opens: Opens) -> None:
    clock, heard = Clock(NOON), Heard()
    node, other = opens(clock, heard), opens(clock)
    limits = {"requests_per_min": 10, "tokens_per_min": 1000, "concurrent": 10, "tokens_per_day": 1000}
    await node.reserve(demand("before", 10, **limits))
    await settled(node)
    server.save()
    server.kill()
    ended = await node.reserve(demand("ended", 10, **limits))
    node.end(ended, Spent(10, 30))
    running = await node.reserve(demand("running", 10, **limits))
    server.start()
    await until(lambda: heard.recovered == 1)
    seen = await other.reserve(demand("seen", 1, **limits))
    assert [standing.used for standing in seen.standings] == [4, 61, 3, 61]
    node.end(running, None)
    await settled(node)
    seen = await other.reserve(demand("seen again", 1, **limits))
    assert [standing.used for standing in seen.standings] == [4, 52, 3, 52]


async def test_a_redis_that_hangs_holds_up_one_moment_and_no_more(
    server: RedisServer, opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge.store.redis.link.ANSWER_S", 1.0)
    heard = Heard()
    node = opens(None, heard, 2.5)
    limits = {"requests_per_min": 1000}
    await node.reserve(demand("before", **limits))
    server.suspend()
    try:
        async with hang_limit():  # each by itself would take longer
            takes = [node.reserve(demand(number, **limits)) for number in range(200)]
            assert all(taken.allowed for taken in await asyncio.gather(*takes))
        async with hang_limit():  # it is known by now
            for number in range(700):
                node.end(await node.reserve(demand(f"b{number}", **limits)), Spent(1, 1))
        assert len(heard.failed) == 1
    finally:
        server.resume()
    await until(lambda: heard.recovered == 1)
    (used,) = (await node.usage("2026-01-01")).values()
    assert used == Used(700, 700, 700)


async def test_nothing_is_added_twice(server: RedisServer, opens: Opens) -> None:
    """The answer to a batch was lost, so it is sent again."""
    clock = Clock(NOON)
    node = opens(clock)
    taken = await node.reserve(demand(1, 10, tokens_per_day=1000))
    node.end(taken, Spent(20, 30))
    batch: list[Any] = []
    real = node._link.write

    async def lossy(*words: Any) -> Any:
        await real(*words)
        if not batch:
            batch.append(words)
            raise StoreDown("the answer is lost")

    node._link.write = lossy  # type: ignore[method-assign] - a wire that loses an answer
    await settled(node)
    assert await node.usage("2026-11-01") == {Account("2026-11-28", "ann", ""): Used(1, 20, 30)}
    assert (await node.reserve(demand(2, 1, tokens_per_day=1000))).standings[0].used == 51


async def test_usage_of_all_nodes_is_told_by_each(opens: Opens) -> None:
    nodes = (opens(), opens())
    taken: Taken | None = None
    for number in range(10):
        node = nodes[number % 2]
        taken = await node.reserve(Demand(f"st_{number}", "a/b", "rule"))
        node.end(taken, Spent(2, 3))
    for node in nodes:
        await settled(node)
    assert taken is not None
    account = Account(day_of(taken.at), "a/b", "rule")
    assert [await node.usage("2020-01-01") for node in nodes] == [{account: Used(10, 20, 30)}] * 2


async def test_every_key_expires(server: RedisServer, opens: Opens) -> None:
    node = opens()
    limits = {
        "requests_per_min": 9,
        "tokens_per_min": 99,
        "concurrent": 9,
        "tokens_per_day": 99,
        "tokens_per_month": 99,
    }
    node.end(await node.reserve(demand(1, **limits)), Spent(1, 1))
    await node.reserve(demand(2, **limits))
    await settled(node)
    found = server.all_keys()
    keys = [key.decode() for key in found if key != b"edge:schema"]
    assert len(keys) > 8
    assert [key for key in keys if int(server.say("PTTL", key)[1:]) <= 0] == []
