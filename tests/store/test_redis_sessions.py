"""The Redis store keeps the promises of a session store, on one node and on several."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from contract.session_store_contract import Opened, SessionStoreContract, SharedSessionStoreContract
from contract.stream_store_contract import Heard
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.settings import Sessions
from edge.store.base import SessionStore
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
