"""The Redis store keeps the promises of a session store, on one node and on several."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.kept_streams import Heard
from contract.session_store_contract import Opened, SessionStoreContract, SharedSessionStoreContract, said, told
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.settings import Sessions
from edge.store.base import SessionStore, StoreDown
from edge.store.redis_link import RedisLink
from edge.store.redis_sessions import RedisSessions

NEVER_S = 600.0  # between renewals by themselves, in tests that move the clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def opened(server: RedisServer) -> AsyncIterator[Opened]:
    """Each over a link of its own, as in a process of its own; at the end no connection is left."""
    server.say("FLUSHALL")
    stores: list[RedisSessions] = []

    def make(bounds: Sessions, clock: Callable[[], float]) -> SessionStore:
        link = RedisLink(server.url, Heard(), clock=clock, renew_s=NEVER_S)
        stores.append(RedisSessions(link, bounds, clock))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()
    await until(lambda: server.connections() == 0)


class TestRedisSessions(SessionStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened


class TestRedisSessionsOfSeveralNodes(SharedSessionStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    async def vanish(self, store: Any) -> None:
        await vanish(store._link)

    async def renew(self, store: Any) -> None:
        await store._link.open()
        await store._link.renew()


async def test_an_outage_is_told_and_claims_are_given_up_after_it(tmp_path: Path) -> None:
    heard = Heard()
    with redis_server(tmp_path) as server:
        stores = [RedisSessions(RedisLink(server.url, heard, renew_s=0.1), Sessions()) for _ in range(2)]
        one, other = stores
        assert await one.claim("a", "s") is True
        assert await one.claim("a", "t") is True
        server.save()
        server.kill()
        await until(lambda: heard.failures)
        for ask in (one.read("a", "s"), one.append("a", "s", said("q"), told("r")), one.claim("a", "u")):
            with pytest.raises(StoreDown):
                await ask
        await one.yield_up("a", "s")
        server.start()
        await until(lambda: len(heard.recoveries) >= 1)
        async with asyncio.timeout(10):
            while True:
                try:
                    if await other.claim("a", "s"):
                        break
                except StoreDown:
                    await asyncio.sleep(0.05)
        assert await other.claim("a", "t") is False
        for store in stores:
            await store.close()
        await until(lambda: server.connections() == 0)
