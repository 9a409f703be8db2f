"""What goes wrong with an SQLite file: not ours, locked, full, gone. Whatever it is, appending goes on."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract.kept_streams import (
    COMPLETE,
    Heard,
    a_meta,
    ended,
    everything,
    finished,
    is_gone,
    joined,
    seen,
    state_of,
)
from contract.session_store_contract import NOW, Clock, contents, said, told
from support.hanging import HANG_S, hang_limit
from support.sqlite import a_file, renew, some_streams

from edge.settings import Sessions, Settings, Store
from edge.store.opening import path_of
from edge.store.ports import LEASE_S, Dropped, StoreDown, Unusable
from edge.store.sqlite.batcher import SqliteFile
from edge.store.sqlite.sessions import SqliteSessions
from edge.store.sqlite.streams import SqliteStreams


def a_database(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


async def made(path: Path) -> None:
    """A file of Edge's."""
    store = some_streams(path)
    await finished(store, a_meta(), b"e")
    await store.close()


async def refused(path: Path) -> str:
    """Why a file cannot be used, as it is told at the start and to who uses it."""
    hear = Heard()
    store = some_streams(path, hear=hear)
    with pytest.raises(Unusable) as at_start:
        await store._file.start()
    with pytest.raises(StoreDown) as at_use:
        await store.find("st_1")
    assert await ended(store.begin(a_meta())) is False
    assert hear.failures == [str(at_start.value)] == [str(at_use.value)]
    await store.close()
    return str(at_start.value)


async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    path.write_bytes(b"garbage, " * 1000)
    assert await refused(path) == f"{path} is no database; move it away, or set store.url to another file"
    assert path.read_bytes() == b"garbage, " * 1000


async def test_a_database_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    a_database(path, "CREATE TABLE theirs (a)")
    assert await refused(path) == f"{path} is a database of something else; set store.url to another file"
    a_database(path, "INSERT INTO theirs VALUES (1)")


async def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    store = some_streams(tmp_path / "new" / "edge.db")
    await store._file.start()
    assert await store.find("st_1") is None
    assert await store.streams(None, 10) == []
    assert await store.purge(NOW) == 0
    assert (await store.sizes()).bytes == 0
    await store.close()
    assert not (tmp_path / "new").exists()


async def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "edge.db"
    store = some_streams(path)
    await finished(store, a_meta(), b"e")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (path.parent, *path.parent.iterdir())}
    assert modes == {"new": 0o700, "edge.db": 0o600, "edge.db-wal": 0o600, "edge.db-shm": 0o600}
    await store.close()


async def test_a_held_lock_does_not_hold_whoever_appends(tmp_path: Path) -> None:
    """Nor the loop; when it is given up, all is written."""
    path = tmp_path / "edge.db"
    await made(path)
    # Whoever waited for the lock would do so for longer than this test may take.
    store = SqliteStreams(SqliteFile(path, Heard(), Clock(), Clock(), locked_s=10 * HANG_S), Store())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    log = store.begin(meta := a_meta())
    async with hang_limit():
        for number in range(100):
            log.append(b"%d " % number, 1)
            await asyncio.sleep(0.002)
    assert (await state_of(store, meta.id)).last == 100
    assert joined(await everything(store, meta.id)) == b"".join(b"%d " % number for number in range(100))
    assert store.statistics().backlog_bytes == 290
    assert store.statistics().lag_s > 0.1
    other.execute("ROLLBACK")
    other.close()
    assert await ended(log) is True
    assert (store.statistics().up, store.statistics().backlog_bytes, store.statistics().lag_s) == (True, 0, 0.0)
    await store.close()


async def test_a_lock_that_is_held_too_long_is_an_outage_told_once(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    await made(path)
    hear = Heard()
    file = a_file(path, hear=hear, locked_s=1.0)
    store, sessions = SqliteStreams(file, Store()), SqliteSessions(file, Sessions())
    await sessions.append("a", "s", said("q"), told("r"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    live = store.begin(meta := a_meta())
    live.append(b"one", 1)
    done = store.begin(lost := a_meta())
    done.append(b"e", 1)
    assert await ended(done) is False
    assert hear.failures == [f"{path}: database is locked"]
    assert await store.find(lost.id) is None
    async with hang_limit():  # each at once: waiting for the lock would take a second every time
        for _ in range(100):
            with pytest.raises(StoreDown):
                await sessions.append("a", "s", said("q"), told("r"))
            with pytest.raises(StoreDown):
                await sessions.claim("a", "s")
    assert contents(await sessions.read("a", "s")) == ["q", "r"]
    live.append(b"two", 1)
    assert joined(await everything(store, meta.id)) == b"onetwo"
    assert await ended(store.begin(a_meta())) is False
    assert (len(hear.failures), store.statistics().up) == (1, False)
    other.execute("ROLLBACK")
    other.close()
    async with hang_limit():
        while not hear.recoveries:
            await hear.anything()
    live.append(b"three", 1)
    assert await ended(live) is True
    assert joined(await everything(store, meta.id)) == b"onetwothree"
    assert await store.find(lost.id) is None
    await sessions.append("a", "s", said("q"), told("r"))
    assert (len(hear.failures), len(hear.recoveries), store.statistics().up) == (1, 1, True)
    await sessions.close()
    await store.close()


async def test_where_no_file_can_be_it_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("in the way")
    hear = Heard()
    store = some_streams(tmp_path / "place" / "edge.db", hear=hear)
    log = store.begin(meta := a_meta())
    log.append(b"one", 1)
    await hear.anything()
    assert len(hear.failures) == 1
    assert str(tmp_path / "place") in hear.failures[0]
    assert (await state_of(store, meta.id)).last == 1
    with pytest.raises(StoreDown):
        await store.find("st_1")
    with pytest.raises(StoreDown):
        await store.streams("a", 10)
    (tmp_path / "place").unlink()
    await hear.anything()
    assert len(hear.recoveries) == 1
    assert await ended(log) is True
    assert joined(await everything(store, meta.id)) == b"one"
    await store.close()


async def test_what_cannot_be_written_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "place").write_text("in the way")
    store = some_streams(tmp_path / "place" / "edge.db")
    logs = [store.begin(a_meta(keep_bytes=2**23)) for _ in range(2)]
    small = store.begin(few := a_meta())
    small.append(b"e", 1)
    for _ in range(40):
        for log in logs:
            log.append(b"x" * 2**20, 1)
    assert store.statistics().backlog_bytes <= 2 * 2**23 + 1  # what is over ``keep_bytes`` is not held either
    many = [store.begin(a_meta(keep_bytes=2**21)) for _ in range(40)]
    for log in many:
        log.append(b"x" * 2**20, 1)
        log.append(b"y", 1)
        assert store.statistics().backlog_bytes <= 2**25
    dropped = many[-1].meta.id
    state = await state_of(store, dropped)
    assert (state.first, state.last, state.size) == (3, 2, 0)
    with pytest.raises(Dropped):
        await store.read(dropped, 0, 1000)
    assert await store.read(dropped, 2, 1000) == []
    assert await ended(many[-1]) is False
    (tmp_path / "place").unlink()
    assert await ended(small) is True
    assert await ended(many[0]) is True
    assert joined(await everything(store, few.id)) == b"e"
    assert await store.find(dropped) is None
    await store.close()


def fill(path: Path) -> None:
    """All the room that there is."""
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"\0" * 4096):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = subprocess.run(  # noqa: S603 - fixed
        ["/bin/mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"A FULL DISK WAS NOT TESTED: mounting a tmpfs needs root: {mount.stderr.strip()}")
    yield place
    subprocess.run(["/bin/umount", place], check=True)  # noqa: S603 - fixed


async def test_a_full_disk_is_an_outage_until_there_is_room(small_disk: Path) -> None:
    hear = Heard()
    store = some_streams(small_disk / "edge.db", hear=hear)
    kept = await finished(store, a_meta(), b"before")
    live = store.begin(meta := a_meta())
    live.append(b"one", 1)
    await seen(store, meta.id, 1)
    filler = small_disk / "filler"
    fill(filler)
    settled: list[bool] = []
    async with hang_limit():
        while not hear.failures:
            log = store.begin(a_meta())
            log.append(os.urandom(100_000), 1)
            settled.append(await ended(log))
    assert settled[-1] is False
    assert len(hear.failures) == 1
    assert "full" in hear.failures[0]
    live.append(b"two", 1)
    assert joined(await everything(store, meta.id)) == b"onetwo"
    assert joined(await everything(store, kept)) == b"before"
    assert await ended(store.begin(a_meta())) is False
    assert hear.recoveries == []
    filler.unlink()
    async with hang_limit():
        while not hear.recoveries:
            await hear.anything()
    live.append(b"three", 1)
    assert await ended(live) is True
    assert joined(await everything(store, meta.id)) == b"onetwothree"
    assert joined(await everything(store, kept)) == b"before"
    assert (len(hear.failures), len(hear.recoveries)) == (1, 1)
    await store.close()
    connection = sqlite3.connect(small_disk / "edge.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_all_processes_asleep_at_once_are_none_that_is_gone(tmp_path: Path) -> None:
    """A machine that wakes, or a clock that is set: each has its time to renew its lease; who does not is gone."""
    clock, ran = Clock(), Clock()
    owner, other = (SqliteStreams(SqliteFile(tmp_path / "edge.db", Heard(), clock, ran), Store()) for _ in range(2))
    log = owner.begin(meta := a_meta())
    await seen(other, meta.id)
    for jump in (3600, -1800):
        clock.now += jump
        assert (await state_of(other, meta.id)).ending is None
        await renew(owner)
        clock.now += LEASE_S - 1
        ran.now += LEASE_S - 1
        assert (await state_of(other, meta.id)).ending is None
    clock.now += LEASE_S
    ran.now += LEASE_S
    assert (await state_of(other, meta.id)).ending is not None
    assert await ended(log) is True
    assert (await state_of(other, meta.id)).ending == COMPLETE
    await owner.close()
    await other.close()


async def test_what_ended_first_goes_when_all_is_over_the_bound(tmp_path: Path) -> None:
    store = some_streams(tmp_path / "edge.db", Store(disk_bytes=100_000), Clock(NOW + 100))
    live = store.begin(meta := a_meta())
    live.append(b"x" * 10_000, 1)
    streams = [await finished(store, a_meta(), b"x" * 10_000, at=NOW + number) for number in range(20)]
    async with hang_limit():
        while (await store.sizes()).stream_bytes > 100_000:
            await finished(store, a_meta(), b"e", at=NOW + 50)
    gone = [await is_gone(store, stream) for stream in streams]
    assert gone == [True] * 11 + [False] * 9
    for stream in streams[:11]:
        assert (await state_of(store, stream)).last == 1, "that it was there is remembered"
    assert (await state_of(store, meta.id)).size == 10_000
    await store.close()


async def test_what_has_expired_leaves_the_file(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "edge.db"
    file = a_file(path, clock)
    store, sessions = SqliteStreams(file, Store()), SqliteSessions(file, Sessions(max_age_s=60))
    await finished(store, a_meta(), os.urandom(1_000_000))
    await sessions.append("a", "s", said("q"), told("r"))
    clock.now += 70
    store.apply_settings(Settings(store=Store(keep_s=60)))
    await finished(store, a_meta(), b"e", at=clock.now)
    sizes = await store.sizes()
    assert (sizes.streams, sizes.sessions) == (1, 0)
    await store.close()
    await sessions.close()
    assert path.stat().st_size < 200_000  # its pages went back to the file system


async def test_a_purge_gives_its_room_back_while_another_process_has_the_file(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    store, operator = some_streams(path), some_streams(path)
    for _ in range(10):
        await finished(store, a_meta(), os.urandom(1_000_000))
    live = store.begin(a_meta())
    live.append(b"e", 1)
    assert (await operator.sizes()).bytes > 10_000_000
    assert await operator.purge(NOW + 100) == 10
    await operator.close()
    assert await ended(live) is True
    assert (await store.sizes()).streams == 1
    await store.close()
    assert path.stat().st_size < 200_000


def test_where_the_file_is() -> None:
    assert path_of("sqlite:/a/b.db", {"STATE_DIRECTORY": "/x"}) == Path("/a/b.db")
    assert path_of("sqlite:b.db", {}) == Path("b.db")
    assert path_of("sqlite:", {"STATE_DIRECTORY": "/x:/y", "XDG_STATE_HOME": "/z"}) == Path("/x/edge.db")
    assert path_of("sqlite:", {"XDG_STATE_HOME": "/z", "HOME": "/h"}) == Path("/z/edge/edge.db")
    assert path_of("sqlite:", {"HOME": "/h"}) == Path("/h/.local/state/edge/edge.db")
    assert path_of("sqlite:", {}) == Path.home() / ".local/state/edge/edge.db"
