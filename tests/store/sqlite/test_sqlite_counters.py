"""Counts in a file keep the promises of a counter store, and survive a restart."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from contract.counter_store_contract import NOON, CounterStoreContract, Opened, demand, settled
from contract.kept_streams import Heard
from contract.session_store_contract import Clock
from support.hanging import hang_limit
from support.sqlite import some_counters

from edge.policy.limits.counters import Account, Used
from edge.policy.limits.rules import Spent
from edge.store.ports import CounterStore, StoreDown
from edge.store.sqlite.counters import SqliteCounters
from edge.store.sqlite.counts import read_usage


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.1)


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[list[SqliteCounters]]:
    """They are closed at the end."""
    made: list[SqliteCounters] = []
    yield made
    for store in made:
        await store.close()


def made(stores: list[SqliteCounters], path: Path, clock: Clock, heard: Heard | None = None) -> SqliteCounters:
    store = some_counters(path, clock, heard)
    stores.append(store)
    return store


class TestSqliteCounters(CounterStoreContract):
    @pytest.fixture
    def opened(self, stores: list[SqliteCounters], tmp_path: Path) -> Opened:
        async def make(clock: Clock) -> CounterStore:
            store = made(stores, tmp_path / "edge.db", clock)
            await store.open()
            return store

        return make


async def test_what_was_counted_survives_a_restart(stores: list[SqliteCounters], tmp_path: Path) -> None:
    clock, path = Clock(NOON), tmp_path / "edge.db"
    limits = {"requests_per_min": 3, "tokens_per_min": 100, "concurrent": 1, "tokens_per_day": 500}
    before = made(stores, path, clock)
    await before.open()
    before.end(await before.reserve(demand(1, 20, **limits)), Spent(30, 40))
    running = await before.reserve(demand(2, 20, **limits))
    assert running.allowed
    await before.close()
    clock.now += 5
    after = made(stores, path, clock)
    await after.open()
    taken = await after.reserve(demand(3, 5, **limits))
    assert taken.allowed
    assert [standing.used for standing in taken.standings] == [3, 95, 1, 75], "what ran then is no more, nor reserved"
    assert not (await after.reserve(demand(4, 1, requests_per_min=3))).allowed
    assert await after.usage("2026-11-28") == {Account("2026-11-28", "ann", ""): Used(1, 30, 40)}


async def test_two_processes_on_one_file_learn_from_each_other(stores: list[SqliteCounters], tmp_path: Path) -> None:
    clock, path = Clock(NOON), tmp_path / "edge.db"
    old, new = made(stores, path, clock), made(stores, path, clock)
    await old.open()
    await new.open()
    for number in range(5):
        for name, store in (("old", old), ("new", new)):
            taken = await store.reserve(demand(f"{name}{number}", 10, requests_per_min=99, tokens_per_day=9999))
            store.end(taken, Spent(10, 0))
            await settled(store)
    await settled(new)
    last = await new.reserve(demand("last", 1, requests_per_min=99, tokens_per_day=9999))
    assert [standing.used for standing in last.standings] == [11, 101]
    assert await old.usage("2026-11-28") == {Account("2026-11-28", "ann", ""): Used(10, 100, 0)}


async def test_a_file_that_cannot_be_written_stops_nobody_is_told_once_and_catches_up(
    stores: list[SqliteCounters], tmp_path: Path
) -> None:
    clock, path, heard = Clock(NOON), tmp_path / "edge.db", Heard()
    store = some_counters(path, clock, heard, locked_s=1.0)
    stores.append(store)
    await store.open()
    other = connect(path)
    other.execute("BEGIN IMMEDIATE")
    for number in range(3):
        taken = await store.reserve(demand(number, 10, requests_per_min=3))
        assert taken.allowed
        store.end(taken, Spent(10, 1))
        with pytest.raises(StoreDown):
            await store.usage("2026-11-28")
    assert not (await store.reserve(demand("more", requests_per_min=3))).allowed
    assert heard.failures == [f"{path}: database is locked"]
    assert "not written" in repr(store)
    other.execute("ROLLBACK")
    other.close()
    async with hang_limit():
        while not heard.recoveries:
            await heard.anything()
    assert await store.usage("2026-11-28") == {Account("2026-11-28", "ann", ""): Used(3, 30, 3)}
    assert len(heard.failures) == len(heard.recoveries) == 1


async def test_a_file_that_comes_late_is_learned_then(stores: list[SqliteCounters], tmp_path: Path) -> None:
    clock, path, heard = Clock(NOON), tmp_path / "edge.db", Heard()
    before = made(stores, path, clock)
    before.end(await before.reserve(demand(1, 20, tokens_per_day=100)), Spent(30, 40))
    await before.close()
    path.rename(tmp_path / "elsewhere")
    path.mkdir()
    store = made(stores, path, clock, heard)
    await store.open()
    store.end(await store.reserve(demand(2, 1, tokens_per_day=100)), Spent(1, 1))
    path.rmdir()
    (tmp_path / "elsewhere").rename(path)
    async with hang_limit():
        while not heard.recoveries:
            await heard.anything()
    assert await store.usage("2026-11-28") == {Account("2026-11-28", "ann", ""): Used(2, 31, 41)}
    assert (await store.reserve(demand(3, 20, tokens_per_day=100))).standings[0].used == 92
    assert len(heard.failures) == len(heard.recoveries) == 1


async def test_it_is_written_by_itself(stores: list[SqliteCounters], tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    store = made(stores, path, Clock(NOON))
    await store.open()
    store.end(await store.reserve(demand(1)), Spent(1, 2))
    reader = connect(path)
    async with hang_limit():
        while not read_usage(reader, "2026-11-28"):
            await asyncio.sleep(0.05)
    reader.close()


async def test_what_has_passed_does_not_stay_in_the_file(stores: list[SqliteCounters], tmp_path: Path) -> None:
    clock, path = Clock(NOON), tmp_path / "edge.db"
    store = made(stores, path, clock)
    await store.open()
    store.end(await store.reserve(demand(1, requests_per_min=9, tokens_per_min=9)), Spent(1, 2))
    await settled(store)
    clock.now += 401 * 86400
    again = made(stores, path, clock)
    await again.open()
    reader = connect(path)
    assert reader.execute("SELECT count(*) FROM windows").fetchone() == (0,)
    assert read_usage(reader, "2020-01-01") == {}
    reader.close()
