"""The Redis store keeps the promises of a key store, on one node and on several."""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace

import orjson
import pytest
from contract.kept_streams import Heard
from contract.key_store_contract import KeyStoreContract, SharedKeyStoreContract, made
from support.hanging import HANG_S
from support.redis_server import RedisServer, redis_server, until

from edge.store.ports import KeyStore, StoreDown
from edge.store.redis.keys import RedisKeys
from edge.store.redis.link import RedisLink


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def opened(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[], RedisKeys]]:
    """Each over a link of its own, as in a process of its own; at the end no connection is left."""
    monkeypatch.setattr("edge.store.redis.link.ANSWER_S", HANG_S)  # a busy machine is no outage
    server.say("FLUSHALL")
    stores: list[RedisKeys] = []

    def make() -> RedisKeys:
        stores.append(RedisKeys(RedisLink(server.url, Heard())))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()
    await until(lambda: server.connections() == 0)


class TestRedisKeys(KeyStoreContract):
    @pytest.fixture
    def store(self, opened: Callable[[], RedisKeys]) -> KeyStore:
        return opened()


class TestSharedRedisKeys(SharedKeyStoreContract):
    @pytest.fixture
    def stores(self, opened: Callable[[], RedisKeys]) -> tuple[KeyStore, KeyStore]:
        return opened(), opened()


async def test_a_server_that_has_lost_its_data_is_not_one_without_keys(
    server: RedisServer, opened: Callable[[], RedisKeys]
) -> None:
    """Else everybody would be let in."""
    store = opened()
    await store.put(made())
    await store.mark()
    server.say("FLUSHALL")
    for _ in range(2):
        with pytest.raises(StoreDown, match="has lost the keys"):
            await store.mark()


async def test_what_a_later_version_notes_of_a_key_stays(opened: Callable[[], RedisKeys]) -> None:
    store, record = opened(), made()
    command = store._link.command
    await store.put(record)
    noted = orjson.loads(await command("HGET", "edge:keys", record.id)) | {"colour": "red"}
    await command("HSET", "edge:keys", record.id, orjson.dumps(noted))
    assert await store.keys() == [record]
    await store.put(replace(record, revoked=1.0))
    assert orjson.loads(await command("HGET", "edge:keys", record.id)) == {**noted, "revoked": 1.0}
