"""The file is deleted, replaced, cut or written over while it is open: told in one line, and gone on with."""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from contract.kept_streams import Heard, a_meta, ended, everything, finished, joined
from contract.session_store_contract import said, told
from support.held_locks import deleted_files
from support.sqlite import a_file, some_sessions, some_streams

from edge.settings import Sessions, Store
from edge.store.sqlite.sessions import SqliteSessions
from edge.store.sqlite.streams import SqliteStreams


@pytest.mark.parametrize("take", [Path.unlink, lambda path: shutil.rmtree(path.parent)], ids=["file", "directory"])
async def test_a_file_that_is_deleted_is_written_anew(tmp_path: Path, take: Callable[[Path], None]) -> None:
    path, hear = tmp_path / "state" / "edge.db", Heard()
    store = some_streams(path, hear=hear)
    old = store.begin(a_meta())
    old.append(b"e", 1)
    before = await finished(store, a_meta(), b"before")
    take(path)
    assert await ended(old) is True
    again = await finished(store, a_meta(), b"again")
    assert hear.reopened == [f"{path} was deleted; it has been written anew with all that was in it"]
    assert deleted_files(os.getpid(), path) == []
    await store.close()
    other = some_streams(path)
    assert joined(await everything(other, before)) == b"before"
    assert joined(await everything(other, again)) == b"again"
    await other.close()
    assert hear.failures == []
    assert whole(path)


async def test_a_file_that_is_replaced_is_gone_on_with(tmp_path: Path) -> None:
    path, hear = tmp_path / "edge.db", Heard()
    elsewhere = some_streams(tmp_path / "new.db")
    new = await finished(elsewhere, a_meta(), b"new")
    await elsewhere.close()
    store = some_streams(path, hear=hear)
    sessions = SqliteSessions(store._file, Sessions())
    old = await finished(store, a_meta(), b"old")
    (tmp_path / "new.db").rename(path)
    await sessions.append("a", "s", said("q"), told("r"))
    assert hear.reopened == [f"{path} was replaced; Edge goes on with the new one"]
    assert joined(await everything(store, new)) == b"new"
    assert await store.find(old) is None
    found = await sessions.read("a", "s")
    assert found is not None
    assert [turn.content for turn in found.turns] == ["q", "r"]
    assert deleted_files(os.getpid(), path) == []
    await sessions.close()
    await store.close()
    assert hear.failures == []
    assert whole(path)


async def test_what_is_written_while_the_file_is_replaced_is_in_the_new_one(tmp_path: Path) -> None:
    """Once: not in the old one only, which nobody finds any more."""
    path, hear = tmp_path / "edge.db", Heard()
    file = a_file(path, hear=hear)
    sessions, streams = SqliteSessions(file, Sessions()), SqliteStreams(file, Store())
    await sessions.append("a", "before", said("q"), told("r"))
    elsewhere = some_streams(tmp_path / "new.db")
    await finished(elsewhere, a_meta(), b"e")
    await elsewhere.close()
    replace = [lambda: (tmp_path / "new.db").rename(path)]

    def meanwhile(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO claims (principal, session, owner) VALUES ('a', 's', 'o')")
        if replace:
            replace.pop()()

    await file.change(meanwhile)
    assert await file.read(lambda db: db.execute("SELECT count(*) FROM claims").fetchone(), None) == (1,)
    assert len(hear.reopened) == 1
    await streams.close()
    await sessions.close()
    assert whole(path)


@pytest.mark.parametrize("left", [0.0, 0.5], ids=["emptied", "cut short"])
async def test_a_file_that_is_cut_is_set_aside_and_what_can_be_is_saved(tmp_path: Path, left: float) -> None:
    path, hear = tmp_path / "edge.db", Heard()
    file = a_file(path, hear=hear)
    streams, sessions = SqliteStreams(file, Store()), SqliteSessions(file, Sessions())
    for number in range(20):
        await finished(streams, a_meta(), b"e" * 10_000)
        await sessions.append("a", f"s{number}", said("q"), told("r"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
    await file.look()
    os.truncate(path, int(path.stat().st_size * left))
    await file.look()
    await sessions.append("a", "after", said("q"), told("r"))
    (what,) = hear.reopened
    assert what.startswith(f"{path} was {'cut short' if left else 'emptied'}; it is kept as edge.db.damaged-")
    there = [await sessions.read("a", f"s{number}") is not None for number in range(20)]
    assert all(there), "SQLite had them in memory"
    assert await sessions.read("a", "after") is not None
    assert joined(await everything(streams, await finished(streams, a_meta(), b"again"))) == b"again"
    assert deleted_files(os.getpid(), path) == []
    await sessions.close()
    await streams.close()
    assert hear.failures == []
    assert whole(path)


async def test_a_damaged_file_is_set_aside_when_that_is_found(tmp_path: Path) -> None:
    """By whoever reads first: a session from the middle of what somebody wrote over."""
    path, hear = tmp_path / "edge.db", Heard()
    first = some_sessions(path)
    for number in range(200):
        await first.append("a", f"s{number}", said("q" * 1000), told("r"))
    await first.close()
    damage = path.stat().st_size // 2
    fill = os.open(path, os.O_WRONLY)  # no connection is open: nobody's lock is lost
    os.pwrite(fill, b"damage" * 5000, damage)
    os.close(fill)
    file = a_file(path, hear=hear)
    sessions = SqliteSessions(file, Sessions())
    for number in range(200):
        await sessions.read("a", f"s{number}")
    await sessions.append("a", "after", said("q"), told("r"))
    (what,) = hear.reopened
    assert "was damaged; it is kept as edge.db.damaged-" in what
    assert await sessions.read("a", "after") is not None
    assert await sessions.read("a", "s0") is not None, "what can be read is brought over"
    await sessions.close()
    assert whole(path)


def whole(path: Path) -> bool:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
