"""A file of any earlier version is brought up to date, and versions that share a file leave each other alone."""

import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contract.kept_streams import Heard, a_meta, everything, finished, joined
from contract.key_store_contract import made
from contract.session_store_contract import said, told
from support.old_schemas import EVENTS, KEY_ID, PRINCIPAL, SCHEMAS, SESSION, STREAM, has_counts, has_keys, make_old
from support.sqlite import RealClock, a_file, some_counters, some_keys, some_streams

from edge.policy.limits.counters import Account, Used
from edge.settings import Sessions, Store
from edge.store.ports import Unusable
from edge.store.sqlite.file import open_to_read, open_to_write
from edge.store.sqlite.schema import SCHEMA
from edge.store.sqlite.sessions import SqliteSessions
from edge.store.sqlite.streams import SqliteStreams


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge.db"


def tables(path: Path) -> set[str]:
    """What a file has, with the columns."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        rows = db.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
        names = [name for (name,) in rows]
        return {
            f"{name}.{column[1]}" for name in names for column in db.execute(f"PRAGMA table_info({name})").fetchall()
        } | set(names)


@pytest.mark.parametrize("name", SCHEMAS)
async def test_all_that_is_in_an_old_file_is_found_and_more_can_be_put_there(path: Path, name: str) -> None:
    make_old(path, name)
    file = a_file(path, RealClock(), hear := Heard())
    streams, sessions = SqliteStreams(file, Store()), SqliteSessions(file, Sessions())
    keys, counters = some_keys(path), some_counters(path, RealClock())
    await file.start()
    for stream in (STREAM, STREAM[:-1] + "2"):
        assert joined(await everything(streams, stream)) == b"".join(EVENTS)
        assert joined(await everything(streams, stream, most=5)) == b"".join(EVENTS)
        assert [stretch.data for stretch in await streams.read(stream, 2, 1)] == EVENTS[2:]
    found = await sessions.read(PRINCIPAL, SESSION)
    assert found is not None
    assert [turn.content for turn in found.turns] == ["q", "r"]
    assert [record.id for record in await keys.keys()] == [KEY_ID] * has_keys(name)
    there = {Account("2026-11-30", "alice", ""): Used(2, 30, 40)} if has_counts(name) else {}
    assert await counters.usage("2026-01-01") == there
    await sessions.append(PRINCIPAL, SESSION, said("q", RealClock()()), told("s", RealClock()()))
    await keys.put(made("bob"))
    assert joined(await everything(streams, await finished(streams, a_meta(), b"new"))) == b"new"
    for store in (keys, counters, sessions, streams):
        await store.close()
    assert (hear.failures, hear.reopened) == ([], [])
    new = path.with_name("new.db")
    open_to_write(new, 1).close()
    assert tables(path) == tables(new)


@pytest.mark.parametrize("name", SCHEMAS)
def test_who_only_reads_an_old_file_finds_all_tables(path: Path, name: str) -> None:
    """As ``edge usage`` does it."""
    make_old(path, name)
    reader = open_to_read(path, 1)
    assert reader is not None
    with contextlib.closing(reader):
        assert reader.execute("SELECT count(*) FROM sessions").fetchone() == (1,)
        assert reader.execute("SELECT count(*) FROM usage").fetchone() == (int(has_counts(name)),)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_number_that_old_versions_compare_stays(path: Path, name: str) -> None:
    """They refuse any other, also while they share the file with their successor."""
    make_old(path, name)
    open_to_write(path, 1).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMAS[name][0],)


def test_all_who_open_an_old_file_at_once_can(path: Path) -> None:
    make_old(path, "1, first")
    begin = threading.Barrier(8)

    def open_it() -> int:
        begin.wait()
        with contextlib.closing(open_to_write(path, 30)) as db:
            version: int = db.execute("SELECT version FROM schema_version").fetchone()[0]
            return version

    with ThreadPoolExecutor(8) as threads:
        found = [threads.submit(open_it) for _ in range(8)]
    assert [future.result() for future in found] == [SCHEMA] * 8


def test_a_step_that_fails_leaves_the_file_at_the_step_before(path: Path) -> None:
    make_old(path, "1, first")
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE VIEW gone AS SELECT 1")  # where the second step wants a table
        db.execute("CREATE TABLE gone_ended (a)")
    for _ in range(2):
        with pytest.raises(sqlite3.Error):
            open_to_write(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version FROM schema_version").fetchone() == (1,), "each step is one transaction"
        db.execute("DROP VIEW gone")
        db.execute("DROP TABLE gone_ended")
    open_to_write(path, 1).close()


def later(path: Path, min_reader: int) -> None:
    """A file that a later version has brought up to its own schema."""
    open_to_write(path, 1).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE schema_version SET version = ?, min_reader = ?", (SCHEMA + 5, min_reader))
        names = ("streams", "events", "sessions", "claims", "owners", "gone", "keys", "secrets", "usage", "windows")
        for name in (*names, "counted", "schema_version"):
            db.execute(f"ALTER TABLE {name} ADD COLUMN later TEXT NOT NULL DEFAULT 'x'")
        db.execute("CREATE TABLE later (a)")
        db.execute("INSERT INTO windows (scope, kind, slot, amount) VALUES ('/a', 'images_per_min', 1, 1)")
        db.commit()


async def test_what_a_later_version_has_added_is_ignored(path: Path) -> None:
    later(path, SCHEMA)
    file = a_file(path, hear=(hear := Heard()))
    streams, sessions = SqliteStreams(file, Store()), SqliteSessions(file, Sessions())
    keys, counters = some_keys(path), some_counters(path, RealClock())
    await file.start()
    await sessions.append("a", "s", said("q"), told("r"))
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE sessions SET turns = replace(CAST(turns AS TEXT), 'false]', 'false,\"more\"]')")
        db.commit()
    await sessions.append("a", "s", said("2"), told("3"))
    found = await sessions.read("a", "s")
    assert found is not None
    assert [turn.content for turn in found.turns] == ["q", "r", "2", "3"]
    assert await sessions.claim("a", "s")
    await sessions.yield_up("a", "s")
    await keys.put(made())
    assert len(await keys.keys()) == 1
    assert await keys.secret("tickets", b"x") == b"x"
    assert joined(await everything(streams, await finished(streams, a_meta(), b"e"))) == b"e"
    await streams.purge(2e9)
    await counters.open()
    assert await counters.usage("2026-01-01") == {}
    for store in (keys, counters, sessions, streams):
        await store.close()
    assert hear.failures == []
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT version FROM schema_version").fetchone() == (SCHEMA + 5,)
        (turns,) = db.execute("SELECT CAST(turns AS TEXT) FROM sessions").fetchone()
        assert turns.count("more") == 2, "what it says of turns stays"


async def test_a_file_that_only_a_later_version_can_read_is_refused(path: Path) -> None:
    later(path, SCHEMA + 1)
    store = some_streams(path)
    with pytest.raises(Unusable, match=f"needs an Edge that knows schema {SCHEMA + 1}, and this one knows {SCHEMA}"):
        await store._file.start()
    await store.close()


def test_another_number_in_user_version_is_no_reason_to_refuse(path: Path) -> None:
    open_to_write(path, 1).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    open_to_write(path, 1).close()
