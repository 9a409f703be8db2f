"""The SQLite store keeps the promises of a key store, alone and with others over its file."""

import asyncio
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from contract.kept_streams import a_meta, finished
from contract.key_store_contract import KeyStoreContract, SharedKeyStoreContract, made, settled
from support.sqlite import some_keys, some_streams

from edge.store.ports import KeyStore, StoreDown


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


class TestSqliteKeys(KeyStoreContract):
    @pytest.fixture
    def store(self, path: Path) -> KeyStore:
        return some_keys(path)


class TestSharedSqliteKeys(SharedKeyStoreContract):
    @pytest.fixture
    def stores(self, path: Path) -> tuple[KeyStore, KeyStore]:
        return some_keys(path), some_keys(path)


async def test_looking_makes_no_file(path: Path) -> None:
    store = some_keys(path)
    assert await store.keys() == []
    assert await store.mark() == ()
    assert not path.parent.exists()


def test_neither_the_file_nor_its_directory_is_for_others(path: Path) -> None:
    asyncio.run(some_keys(path).put(made()))
    assert path.stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="DID NOT RUN: only root can make files for others")
def test_what_root_makes_is_the_services(path: Path) -> None:
    """Also the log, which is there while somebody reads."""
    path.parent.mkdir()
    os.chown(path.parent, 12345, 23456)
    store = some_keys(path)
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
    streams, store = some_streams(path), some_keys(path)
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
        await some_keys(path).keys()
    with pytest.raises(StoreDown, match="something else"):
        await some_keys(path).put(made())


async def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreDown, match="file"):
        await some_keys(tmp_path / "file" / "edge.db").put(made())


async def test_a_file_that_is_deleted_keeps_its_keys(path: Path) -> None:
    store, record = some_keys(path), made()
    await store.put(record)
    await store.mark()
    await asyncio.to_thread(path.unlink)
    await store.mark()
    assert await store.keys() == [record]
    await store.close()
    other = some_keys(path)
    assert await other.keys() == [record]
    await other.close()


async def test_a_file_in_place_of_one_with_keys_is_not_one_without(path: Path) -> None:
    """Else everybody would be let in; also after a restart."""
    empty = path.with_name("empty.db")
    other = some_streams(empty)
    await finished(other, a_meta(), b"e")
    await other.close()
    store = some_keys(path)
    await store.put(made())
    await store.mark()
    empty.rename(path)
    for _ in range(2):
        with pytest.raises(StoreDown, match="has lost the keys"):
            await store.mark()
    await store.close()
    again = some_keys(path)
    with pytest.raises(StoreDown, match="has lost the keys"):
        await again.mark()
    await again.put(record := made("bob"))
    await again.mark()
    assert await again.keys() == [record]
    await again.forget(record.id)
    await again.mark()
    assert await again.keys() == [], "that was somebody's wish"
    await again.close()


async def test_what_a_later_version_notes_of_a_key_stays(path: Path) -> None:
    store, record = some_keys(path), made()
    await store.put(record)
    with sqlite3.connect(path) as later:
        later.execute("UPDATE keys SET record = CAST(json_set(record, '$.colour', 'red') AS BLOB)")
    assert await store.keys() == [record]
    await store.put(replace(record, revoked=1.0))
    with sqlite3.connect(path) as later:
        (kept,) = later.execute("SELECT json_extract(record, '$.colour') FROM keys").fetchone()
    later.close()
    assert kept == "red"
    await store.close()
