"""The SQLite store keeps the promises of a key store, alone and with others over its file."""

import asyncio
import os
import sqlite3
from pathlib import Path

import pytest
from contract.key_store_contract import KeyStoreContract, SharedKeyStoreContract, made, settled
from support.sqlite import some_streams

from edge.store.base import KeyStore, StoreDown
from edge.store.sqlite_keys import SqliteKeys


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


class TestSqliteKeys(KeyStoreContract):
    @pytest.fixture
    def store(self, path: Path) -> KeyStore:
        return SqliteKeys(path)


class TestSharedSqliteKeys(SharedKeyStoreContract):
    @pytest.fixture
    def stores(self, path: Path) -> tuple[KeyStore, KeyStore]:
        return SqliteKeys(path), SqliteKeys(path)


async def test_looking_makes_no_file(path: Path) -> None:
    store = SqliteKeys(path)
    assert await store.keys() == []
    assert await store.mark() == ()
    assert not path.parent.exists()


def test_neither_the_file_nor_its_directory_is_for_others(path: Path) -> None:
    asyncio.run(SqliteKeys(path).put(made()))
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="DID NOT RUN: only root can make files for others")
def test_what_root_makes_is_the_services(path: Path) -> None:
    """Also the log, which is there while somebody reads."""
    path.parent.mkdir()
    os.chown(path.parent, 12345, 23456)
    store = SqliteKeys(path)
    asyncio.run(store.put(made()))
    with sqlite3.connect(path) as reader:
        reader.execute("SELECT count(*) FROM keys").fetchone()
        asyncio.run(store.put(made("bob")))
        files = sorted(path.parent.iterdir())
        assert len(files) == 3
        assert {(file.stat().st_uid, file.stat().st_gid) for file in files} == {(12345, 23456)}
    reader.close()


async def test_the_file_is_shared_with_streams_that_are_written(path: Path) -> None:
    """As in a service that runs, while somebody makes a key by hand."""
    streams, store = some_streams(path), SqliteKeys(path)
    try:
        assert await streams.find("st_none") is None
        record = made()
        await store.put(record)
        assert await store.keys() == [record]
        mark = await settled(store)
        await store.keys()
        assert await settled(store) == mark
    finally:
        await streams.close()
    assert await store.keys() == [record]


async def test_a_file_that_is_not_edges_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(StoreDown, match="something else"):
        await SqliteKeys(path).keys()
    with pytest.raises(StoreDown, match="something else"):
        await SqliteKeys(path).put(made())


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDown, match="file"):
        await SqliteKeys(tmp_path / "file" / "edge.db").put(made())


def test_a_file_that_has_gone_is_not_one_without_keys(path: Path) -> None:
    """Else everybody would be let in."""
    store = SqliteKeys(path)
    asyncio.run(store.put(made()))
    asyncio.run(store.mark())
    path.rename(path.with_name("away"))
    for _ in range(2):
        with pytest.raises(StoreDown, match="is gone"):
            asyncio.run(store.mark())
