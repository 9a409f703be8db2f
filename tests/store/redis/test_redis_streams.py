"""The Redis store keeps the promises of a stream store, on one node and on several."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from contract.kept_streams import COMPLETE, Heard, Opened, a_meta, assert_gone, ended, finished, seen, state_of
from contract.session_store_contract import NOW, Clock
from contract.shared_stream_store_contract import SharedStreamStoreContract
from contract.stream_store_contract import StreamStoreContract
from support.hanging import HANG_S
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.settings import Store
from edge.store.ports import Dropped, StreamStore
from edge.store.redis.link import RedisLink
from edge.store.redis.streams import RedisStreams

NEVER_S = 600.0  # between renewals by themselves, in tests that move the clock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def opened(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Opened]:
    """Each over a link of its own, as in a process of its own; at the end no connection is left."""
    monkeypatch.setattr("edge.store.redis.link.ANSWER_S", HANG_S)  # a busy machine is no outage
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


async def test_when_the_server_lets_go_of_events_that_they_were_there_is_remembered(
    server: RedisServer, opened: Opened
) -> None:
    """By expiry, whatever this node's clock says, or for want of memory."""
    store = await opened(bounds=Store(keep_s=60))
    stream = await finished(store, a_meta(), b"e")
    left = [int(server.say("PTTL", f"edge:{kind}:{stream}").strip()[1:]) for kind in ("ev", "st")]
    assert left[0] <= 60_000
    assert 110_000 < left[1] <= 120_000
    server.say("DEL", f"edge:ev:{stream}")
    assert await store.streams(None, 10) == []
    assert_gone(await store.find(stream), 1, COMPLETE)
    with pytest.raises(Dropped):
        await store.read(stream, 0, 1000)
    assert (await store.came_back(stream), await store.purge(NOW + 1000), await store.forget(stream)) == (0, 0, False)
    assert await store.find(stream) is None


async def test_that_a_stream_was_there_is_forgotten_when_it_would_have_expired_again(opened: Opened) -> None:
    clock = Clock(NOW + 10)
    store = await opened(bounds=Store(keep_s=60), clock=clock)
    streams = [await finished(store, a_meta(), b"e", at=NOW + number) for number in range(2)]
    assert await store.purge(NOW + 1) == 1
    clock.now = NOW + 119
    assert [(await state_of(store, stream)).gone for stream in streams] == [True, True]
    clock.now = NOW + 122
    assert [await store.find(stream) for stream in streams] == [None, None]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_stream_that_lost_its_first_events_is_not_gone_on_with(
    server: RedisServer, opened: Opened, goes_on: bool
) -> None:
    """Its process slept for so long that they expired; what it says at last is kept elsewhere, or nowhere."""
    store, other = await opened(), await opened()
    log = store.begin(meta := a_meta())
    log.append(b"one", 1)
    await seen(other, meta.id, 1)
    server.say("DEL", f"edge:ev:{meta.id}")
    if goes_on:
        log.append(b"two", 1)
    assert await ended(log) is False
    assert await other.find(meta.id) is None
