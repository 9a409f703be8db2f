"""The Redis store keeps the promises of a stream store, on one node and on several."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from contract.session_store_contract import Clock
from contract.stream_store_contract import Heard, Opened, SharedStreamStoreContract, StreamStoreContract
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.settings import Store
from edge.store.base import StreamStore
from edge.store.redis_link import RedisLink
from edge.store.redis_streams import RedisStreams

NEVER_S = 600.0  # between renewals by themselves, in tests that move the clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def opened(server: RedisServer) -> AsyncIterator[Opened]:
    """Each over a link of its own, as in a process of its own; at the end no connection is left."""
    server.say("FLUSHALL")
    stores: list[RedisStreams] = []

    async def make(
        bounds: Store | None = None, clock: Callable[[], float] | None = None, hear: Any = None
    ) -> StreamStore:
        clock = clock or Clock()
        link = RedisLink(server.url, hear or Heard(), clock=clock, renew_s=NEVER_S)
        store = RedisStreams(link, bounds or Store(), clock)
        stores.append(store)
        return store

    yield make
    for store in stores:
        await store.close()
    await until(lambda: server.connections() == 0)


class TestRedisStreams(StreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened


class TestRedisStreamsOfSeveralNodes(SharedStreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    async def vanish(self, store: Any) -> None:
        await vanish(store._link)

    async def renew(self, store: Any) -> None:
        await store.open()
        await store._link.renew()
