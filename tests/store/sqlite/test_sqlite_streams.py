"""The SQLite store keeps the promises of a stream store, alone and with others over its file."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from contract.kept_streams import Opened, a_meta, finished, is_gone
from contract.session_store_contract import NOW, Clock
from contract.shared_stream_store_contract import SharedStreamStoreContract
from contract.stream_store_contract import StreamStoreContract
from support.sqlite import renew, some_streams, vanish

from edge.settings import Settings, Store
from edge.store.ports import StreamStore
from edge.store.sqlite.tables import MOST_GONE


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    stores: list[StreamStore] = []

    async def make(**given: Any) -> StreamStore:
        stores.append(some_streams(tmp_path / "state" / "edge.db", **given))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


class TestSqliteStreams(StreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened


class TestSharedSqliteStreams(SharedStreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    async def vanish(self, store: Any) -> None:
        await vanish(store)

    async def renew(self, store: Any) -> None:
        await renew(store)


def rows(path: Path) -> int:
    """Of streams that are remembered without their events."""
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM gone").fetchone()
    return int(count)


async def test_that_a_stream_was_there_is_forgotten_when_it_would_have_expired_again(tmp_path: Path) -> None:
    """Whether its events are deleted yet or not."""
    clock = Clock(NOW + 10)
    store = some_streams(tmp_path / "edge.db", Store(keep_s=60), clock)
    purged = await finished(store, a_meta(), b"e", at=NOW)
    assert await store.purge(NOW + 1) == 1
    expired = await finished(store, a_meta(), b"e", at=NOW)
    clock.now = NOW + 119
    assert [await is_gone(store, stream) for stream in (purged, expired)] == [True, True]
    assert None not in [await store.find(purged), await store.find(expired)]
    clock.now = NOW + 121
    assert [await store.find(stream) for stream in (purged, expired)] == [None, None]
    store.apply_settings(Settings(store=Store(keep_s=60)))
    await store._file.flush()
    await store.close()
    assert rows(tmp_path / "edge.db") == 0


async def test_so_many_are_remembered_the_first_that_went_are_not(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    store = some_streams(path, clock=Clock(NOW + 10))
    first, second = [await finished(store, a_meta(), b"e") for _ in range(2)]
    assert await store.purge(NOW + 10) == 2
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO gone (id, principal, surface, request_id, created, keep_bytes, owner, last, reconnections,"
            " ended, ending) WITH RECURSIVE n (i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " SELECT i, 'a', 'chat', '', 0, 0, '', 1, 0, ?, '' FROM n",
            (MOST_GONE, NOW),
        )
    assert rows(path) == MOST_GONE
    last = await finished(store, a_meta(), b"e")
    assert await store.purge(NOW + 10) == 1
    assert await store.find(first) is None
    assert [(await store.find(stream)) is not None for stream in (second, last)] == [True, True]
    await store.close()
    assert rows(path) == MOST_GONE
