"""The Redis store keeps the promises of a session store, on one node and on several."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from contract.kept_streams import Heard
from contract.session_store_contract import (
    Opened,
    SessionStoreContract,
    SharedSessionStoreContract,
    contents,
    said,
    told,
)
from support.hanging import HANG_S, hang_limit
from support.redis_server import RedisServer, redis_server, until, vanish

from edge.settings import Sessions
from edge.store.ports import SessionStore, StoreDown
from edge.store.redis.link import RedisLink
from edge.store.redis.scripts import whose
from edge.store.redis.session_scripts import KEEP
from edge.store.redis.sessions import RedisSessions

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
        async with hang_limit():
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


async def test_what_a_later_version_says_of_a_turn_is_ignored_and_stays(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = RedisSessions(RedisLink(server.url, Heard()), Sessions())
        await store.append("a", "s", said("q", time.time()), told("r", time.time()))
        command, key = store._link.command, f"edge:se:{whose('a', 's')}"
        words = await command("HGETALL", key)
        name, text = next(pair for pair in zip(words[::2], words[1::2], strict=True) if pair[1].startswith(b"{"))
        document = orjson.loads(text) | {"later": 1}
        document["turns"][0]["later"] = 1
        await command("HSET", key, name, orjson.dumps(document))
        await store.append("a", "s", said("2", time.time()), told("3", time.time()))
        found = await store.read("a", "s")
        assert found is not None
        assert [turn.content for turn in found.turns] == ["q", "r", "2", "3"]
        kept = orjson.loads(await command("HGET", key, name))
        assert (kept["later"], kept["turns"][0]["later"]) == (1, 1)
        await store.close()


async def test_a_turn_whose_confirmation_was_lost_with_the_connection_is_kept_once(server: RedisServer) -> None:
    """Redis had kept it; asked again, on another connection, it says so."""
    server.say("FLUSHALL")
    server.say("SCRIPT", "LOAD", KEEP.text)
    async with losing_the_answer_to(KEEP.sha.encode(), server.port) as (port, lost):
        heard = Heard()
        store = RedisSessions(RedisLink(f"redis://127.0.0.1:{port}/0", heard), Sessions(), time.time)
        try:
            now = time.time()
            for number in range(3):
                await store.append("a", "s", said(f"q{number}", now), told(f"a{number}", now))
            assert contents(await store.read("a", "s")) == ["q0", "a0", "q1", "a1", "q2", "a2"]
            assert lost.is_set()
            assert heard.failures == []
        finally:
            await store.close()


@asynccontextmanager
async def losing_the_answer_to(command: bytes, port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port before Redis. What answers the first such command is lost, with the connection."""
    lost = asyncio.Event()

    async def passed_on(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        redis, to_redis = await asyncio.open_connection("127.0.0.1", port)
        asked = asyncio.Event()

        async def answers() -> None:
            while (data := await redis.read(65536)) and (lost.is_set() or not asked.is_set()):
                to_client.write(data)
            if data:
                lost.set()
            to_client.transport.abort()

        answering = asyncio.create_task(answers())
        with contextlib.suppress(ConnectionError):
            while data := await client.read(65536):
                if command in data:
                    asked.set()
                to_redis.write(data)
        to_redis.close()
        await answering

    listening = await asyncio.start_server(passed_on, "127.0.0.1", 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1], lost
