"""Redis gone, hung, full, slow or without its data: streams go on, who asks is told, and it comes back by itself."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract.kept_streams import COMPLETE, Heard, a_meta, ended, everything, finished, joined, seen, state_of
from support.hanging import hang_limit
from support.redis_server import RedisServer, redis_server, until, vanish
from support.running import no_tasks_left

from edge.settings import Store
from edge.store.ports import Ending, StoreDown, lost
from edge.store.redis.link import RedisLink
from edge.store.redis.streams import RedisStreams

KEEP_S = 1e9  # these tests have real time, their streams not

Opened = Callable[..., RedisStreams]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def opened(server: RedisServer, heard: Heard) -> AsyncIterator[Opened]:
    stores: list[RedisStreams] = []

    def make(renew_s: float = 0.1) -> RedisStreams:
        stores.append(RedisStreams(RedisLink(server.url, heard, renew_s=renew_s), Store(keep_s=KEEP_S)))
        return stores[-1]

    before = asyncio.all_tasks()
    yield make
    for store in stores:
        await store.close()
    await no_tasks_left(before)


async def failed(heard: Heard) -> str:
    """It is down, as was told once."""
    await until(lambda: heard.failures)
    return heard.failures[-1]


async def recovered(heard: Heard, times: int = 1) -> None:
    """It is back, as was told once per outage."""
    await until(lambda: len(heard.recoveries) == times)
    assert len(heard.failures) == times


async def refused_soon(store: RedisStreams, stream: str) -> None:
    """All that asks is told so, and does not wait for the server, which does not come back meanwhile."""
    asked: list[Callable[[], Any]] = [
        lambda: store.find(stream),
        lambda: store.read(stream, 0, 1000),
        lambda: store.streams("a", 10),
        lambda: store.stop(stream),
        lambda: store.came_back(stream),
        lambda: store.changed(stream, 0, 600),
    ]
    for ask in asked:
        with pytest.raises(StoreDown):
            async with hang_limit():
                await ask()


def settling(log: Any) -> "asyncio.Future[bool]":
    settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    log.end(COMPLETE, "up", 0, settled.set_result)
    return settled


async def test_killed_and_back_with_its_data_nothing_is_missing(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    store = opened()
    meta, short = a_meta(), a_meta()
    log = store.begin(meta)
    log.append(b"before ", 1)
    await store.find(meta.id)
    server.save()
    server.kill()
    log.append(b"while ", 1)
    await failed(heard)
    log.append(b"it was ", 2)
    other = store.begin(short)  # begins and ends in the outage
    other.append(b"short", 1)
    settled = settling(other)
    await refused_soon(store, meta.id)
    assert (store.statistics().up, store.statistics().failures) == (False, 1)
    assert store.statistics().backlog_bytes > 0
    assert store.statistics().lag_s > 0
    server.start()
    await recovered(heard)
    log.append(b"gone", 1)
    assert await ended(log) is True
    assert await settled is True
    assert joined(await everything(store, meta.id)) == b"before while it was gone"
    assert joined(await everything(store, short.id)) == b"short"
    assert (store.statistics().up, store.statistics().backlog_bytes, store.statistics().lag_s) == (True, 0, 0)
    assert 0 < heard.recoveries[0] < 60


async def test_killed_and_back_without_its_data_what_began_before_is_not_kept(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    store = opened()
    metas = [a_meta() for _ in range(3)]
    going, silent, ending = (store.begin(meta) for meta in metas)
    for log in (going, silent, ending):
        log.append(b"e", 1)
    await store.find(metas[0].id)
    server.kill()
    going.append(b"e", 1)
    settled = settling(ending)
    await failed(heard)
    server.start()
    await recovered(heard)
    assert await settled is False
    assert await ended(going) is False
    assert await ended(silent) is False
    assert await store.streams(None, 10) == []
    new = await finished(store, a_meta(), b"new")
    assert joined(await everything(store, new)) == b"new"


async def test_killed_and_back_with_older_data_there_is_no_gap(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    store = opened()
    meta = a_meta()
    log = store.begin(meta)
    log.append(b"saved", 1)
    await store.find(meta.id)
    server.save()
    log.append(b"not saved", 1)
    await store.find(meta.id)
    server.kill()
    await failed(heard)
    server.start()
    await recovered(heard)
    log.append(b"after", 1)
    assert await ended(log) is False
    assert await store.find(meta.id) is None
    assert not any(meta.id.encode() in key for key in server.all_keys())


async def test_hung_and_on_again_nothing_is_missing_or_twice(server: RedisServer, heard: Heard, opened: Opened) -> None:
    """What was sent into the hanging server is carried out when it goes on, beside what is sent again."""
    store = opened()
    meta = a_meta()
    log = store.begin(meta)
    await store.find(meta.id)
    server.suspend()
    for number in range(50):
        log.append(b"%d " % number, 1)
    assert "no answer" in await failed(heard)
    for number in range(50, 100):
        log.append(b"%d " % number, 1)
    await refused_soon(store, meta.id)
    server.resume()
    await recovered(heard)
    assert await ended(log) is True
    assert joined(await everything(store, meta.id)) == b"".join(b"%d " % number for number in range(100))
    assert (await state_of(store, meta.id)).last == 100


async def test_who_asks_while_it_hangs_is_told_with_all_others(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    """After about a second: one after the other they would take minutes."""
    store = opened(renew_s=600)
    meta = a_meta()
    store.begin(meta)
    await store.find(meta.id)
    server.suspend()
    async with hang_limit():
        answers = await asyncio.gather(*(store.find(meta.id) for _ in range(500)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {StoreDown}
    assert len(heard.failures) == 1
    server.resume()


async def test_full_it_refuses_and_can_still_be_purged(server: RedisServer, heard: Heard, opened: Opened) -> None:
    store = opened()
    old = await finished(store, a_meta(), b"old")
    log = store.begin(meta := a_meta())
    log.append(b"one ", 1)
    await store.find(meta.id)
    server.fill()
    log.append(b"two ", 1)
    assert "no memory left" in await failed(heard)
    await refused_soon(store, meta.id)
    assert (await store.sizes()).streams == 2
    assert await store.purge(time.time() + 1e9) == 1
    server.empty()
    await recovered(heard)
    log.append(b"three", 1)
    assert await ended(log) is True
    assert joined(await everything(store, meta.id)) == b"one two three"
    assert (await state_of(store, old)).gone


async def test_slow_is_not_down(server: RedisServer, heard: Heard, opened: Opened) -> None:
    store = opened(renew_s=600)
    meta = a_meta()
    log = store.begin(meta)
    await store.find(meta.id)
    for _ in range(3):
        server.pause(0.3)
        log.append(b"e", 1)
        assert (await state_of(store, meta.id)).size > 0
    assert await ended(log) is True
    assert joined(await everything(store, meta.id)) == b"eee"
    assert heard.failures == []


async def test_not_there_at_the_start_it_is_used_once_it_is(server: RedisServer, heard: Heard, opened: Opened) -> None:
    server.kill()
    store = opened()
    await store.open()
    assert f":{server.port}" in await failed(heard)
    log = store.begin(meta := a_meta())
    log.append(b"early", 1)
    settled = settling(log)
    await refused_soon(store, meta.id)
    server.start()
    await recovered(heard)
    assert await settled is True
    assert joined(await everything(store, meta.id)) == b"early"


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "asked"])
async def test_connections_that_are_closed_are_replaced_and_nobody_is_refused(
    server: RedisServer, heard: Heard, opened: Opened, *, idle: bool
) -> None:
    """By an administrator, an idle limit or a proxy: the server is there, so it is no outage."""
    store, other = opened(), opened()
    log = store.begin(meta := a_meta())
    await store.find(meta.id)
    for last in range(1, 6):
        following = asyncio.create_task(seen(other, meta.id, last))
        asking = [asyncio.create_task(ask) for ask in (store.find(meta.id), other.find(meta.id), other.streams("a", 9))]
        if idle:
            await asyncio.gather(*asking)
        server.say("CLIENT", "KILL", "TYPE", "normal")
        server.say("CLIENT", "KILL", "TYPE", "pubsub")
        asking += [
            asyncio.create_task(ask) for ask in (store.find(meta.id), other.read(meta.id, 0, 9), store.stop("x"))
        ]
        async with hang_limit():
            await asyncio.gather(*asking)
        log.append(b"e", 1)
        async with hang_limit():
            await following
    assert await ended(log) is True
    assert joined(await everything(other, meta.id)) == b"e" * 5
    assert heard.failures == []


async def test_who_waits_for_a_stream_is_told_of_the_outage(server: RedisServer, heard: Heard, opened: Opened) -> None:
    store = opened()
    store.begin(meta := a_meta())
    waiting = [asyncio.create_task(store.changed(meta.id, 0, 600)) for _ in range(3)]
    await until(lambda: len(store._followers) == 1)
    server.kill()
    async with hang_limit():
        await asyncio.gather(*waiting, return_exceptions=True)  # at the latest whoever looks again is told
    with pytest.raises(StoreDown):
        await store.changed(meta.id, 0, 600)
    await failed(heard)


async def test_what_waits_for_redis_is_bounded(server: RedisServer, heard: Heard, opened: Opened) -> None:
    """The stream that is over the bound is not kept; the others are, and later ones again."""
    store = opened()
    small = store.begin(first := a_meta())
    small.append(b"small", 1)
    big = store.begin(second := a_meta(keep_bytes=2**26))
    await store.find(second.id)
    server.suspend()
    await failed(heard)
    piece = b"x" * 2**20
    for _ in range(40):
        big.append(piece, 1)
        small.append(b".", 1)
        assert store.statistics().backlog_bytes <= 33 * 2**20
    assert store.statistics().backlog_bytes < 2**20
    assert await ended(big) is False
    server.resume()
    await recovered(heard)
    assert await ended(small) is True
    assert joined(await everything(store, first.id)) == b"small" + b"." * 40
    assert await store.find(second.id) is None
    assert await finished(store, a_meta(), piece)


async def test_closing_in_an_outage_ends_soon_and_says_what_is_not_kept(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    store = opened()
    log = store.begin(meta := a_meta())
    await store.find(meta.id)
    server.suspend()
    log.append(b"e", 1)
    settled = settling(log)
    async with hang_limit():
        await store.close()
    assert settled.result() is False
    server.resume()
    await until(lambda: server.connections() == 0)


async def test_a_node_that_seemed_gone_takes_its_streams_back(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    """By the server's clock."""
    owner, other = opened(renew_s=600), opened(renew_s=600)
    log = owner.begin(meta := a_meta())
    log.append(b"one", 1)
    await owner.find(meta.id)
    await other.find(meta.id)
    server.say("DEL", f"edge:lease:{owner._link.owner}")
    ending = (await state_of(other, meta.id)).ending
    assert ending is not None
    assert ending == lost(ending.at)
    assert abs(ending.at - time.time()) < 60
    await owner._link.renew()
    assert (await state_of(other, meta.id)).ending is None
    log.append(b"two", 1)
    assert await ended(log) is True
    assert joined(await everything(other, meta.id)) == b"onetwo"


async def test_after_an_outage_nobody_is_taken_for_gone_before_there_was_time_to_come_back(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    """Nodes do not all reconnect at the same moment."""
    owner, other = opened(), opened()
    owner.begin(meta := a_meta())
    await owner.find(meta.id)
    await other.find(meta.id)
    await vanish(owner._link)
    server.say("SET", f"edge:lease:{owner._link.owner}", "1")
    server.save()
    server.kill()
    await failed(heard)
    server.start()
    await recovered(heard)
    assert (await state_of(other, meta.id)).ending is None
    waiting = asyncio.create_task(other.changed(meta.id, 0, 600))
    await until(lambda: meta.id in other._followers._of and other._followers._of[meta.id].looked)
    assert not waiting.done()
    waiting.cancel()


async def test_a_stop_whose_message_is_lost_is_heard_all_the_same(
    server: RedisServer, heard: Heard, opened: Opened
) -> None:
    store = opened()
    log = store.begin(meta := a_meta())
    await store.find(meta.id)
    server.say("HSET", f"edge:st:{meta.id}", "stop", "1")
    await until(lambda: heard.stops)
    await store.stop(meta.id)
    await store._link.renew()
    assert heard.stops == [meta.id]
    assert await ended(log, Ending("stopped", clean=False, at=time.time(), status=499))
