"""A disk that hangs: nobody waits for it for ever, and what it has done in the end is neither lost nor done twice."""

import asyncio
from pathlib import Path

import pytest
from contract.counter_store_contract import NOON, demand
from contract.kept_streams import Heard, a_meta, ended, everything, finished, joined
from contract.session_store_contract import Clock, contents, said, told
from support.hanging import hang_limit, until
from support.hung_disk import HungDisk
from support.sqlite import a_file

from edge.policy.limits.rules import Spent
from edge.settings import Sessions, Store
from edge.store.patient_sessions import PatientSessions
from edge.store.ports import StoreDown
from edge.store.sqlite.batcher import SqliteFile
from edge.store.sqlite.counters import SqliteCounters
from edge.store.sqlite.keys import SqliteKeys
from edge.store.sqlite.sessions import SqliteSessions
from edge.store.sqlite.streams import SqliteStreams

WHY = "no answer from the disk within"


async def recovered(hear: Heard) -> None:
    async with hang_limit():
        while not hear.recoveries:
            await hear.anything()


def opened(tmp_path: Path) -> tuple[SqliteFile, SqliteStreams, SqliteSessions, Heard]:
    hear = Heard()
    file = a_file(tmp_path / "edge.db", hear=hear)
    return file, SqliteStreams(file, Store()), SqliteSessions(file, Sessions()), hear


async def test_while_nothing_can_be_written_a_stream_goes_on_and_who_waits_is_told(tmp_path: Path) -> None:
    file, streams, sessions, hear = opened(tmp_path)
    await sessions.append("a", "s", said("q"), told("r"))
    with HungDisk(file) as disk:
        live = streams.begin(meta := a_meta())
        live.append(b"one", 1)
        await disk.hangs.wait()
        async with hang_limit():
            with pytest.raises(StoreDown, match=WHY):
                await sessions.claim("a", "s")
            with pytest.raises(StoreDown, match=WHY):
                await sessions.append("a", "s", said("not"), told("kept"))
            with pytest.raises(StoreDown, match=WHY):
                await streams.came_back_all([meta.id])
            live.append(b"two", 1)
            assert joined(await everything(streams, meta.id)) == b"onetwo"
            assert contents(await sessions.read("a", "s")) == ["q", "r"]
        assert (len(hear.failures), streams.statistics().up) == (1, False)
    await recovered(hear)
    assert await ended(live) is True
    assert joined(await everything(streams, meta.id)) == b"onetwo"
    assert contents(await sessions.read("a", "s")) == ["q", "r"], "what was refused was not done later"
    assert await sessions.claim("a", "s")
    assert (len(hear.failures), len(hear.recoveries)) == (1, 1)
    await sessions.close()
    await streams.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
async def test_a_turn_is_kept_once_wherever_the_disk_hung(tmp_path: Path, statement: str) -> None:
    file, streams, sessions, hear = opened(tmp_path)
    patient = PatientSessions(lambda: sessions, Sessions(), 2**20)
    await patient.append("a", "s", said("q1"), told("r1"))
    with HungDisk(file, statement):
        async with hang_limit():
            await patient.append("a", "s", said("q2"), told("r2"))
    await recovered(hear)
    assert contents(await patient.read("a", "s")) == ["q1", "r1", "q2", "r2"]
    assert contents(await sessions.read("a", "s")) == ["q1", "r1", "q2", "r2"]
    await patient.close()
    await streams.close()


async def test_a_session_that_was_had_in_the_end_is_not_kept_from_others(tmp_path: Path) -> None:
    file, streams, sessions, hear = opened(tmp_path)
    other = SqliteSessions(a_file(tmp_path / "edge.db"), Sessions())
    await sessions.append("a", "s", said("q"), told("r"))
    with HungDisk(file, "COMMIT"):
        async with hang_limit():
            with pytest.raises(StoreDown, match=WHY):
                await sessions.claim("a", "s")
    await recovered(hear)
    await file.flush()
    assert await other.claim("a", "s")
    await other.close()
    await sessions.close()
    await streams.close()


async def test_while_nothing_can_be_read_who_asks_is_told_and_no_queue_grows(tmp_path: Path) -> None:
    file, streams, sessions, _ = opened(tmp_path)
    keys = SqliteKeys(file.path, lambda: file)
    kept = await finished(streams, a_meta(), b"e")
    assert await keys.find("k") is None
    with HungDisk(file, reading=True):
        async with hang_limit():
            for ask in (lambda: keys.find("k"), keys.keys, lambda: sessions.read("a", "s"), streams.sizes) * 20:
                with pytest.raises(StoreDown, match=WHY):
                    await ask()
        assert file._reading._work_queue.qsize() == 0
        assert await ended(streams.begin(a_meta())) is True, "the writer does not hang"
    await until(lambda: file._hung_read is None or file._hung_read.done())
    assert joined(await everything(streams, kept)) == b"e"
    await keys.close()
    await sessions.close()
    await streams.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT", "COMMIT"])
async def test_what_was_used_is_counted_once_wherever_the_disk_hung(tmp_path: Path, statement: str) -> None:
    clock, hear = Clock(NOON), Heard()
    file = a_file(tmp_path / "edge.db", clock, hear)
    counters = SqliteCounters(lambda: file, clock)
    await counters.open()
    with HungDisk(file, statement):
        async with hang_limit():
            counters.end(await counters.reserve(demand(1, 20, tokens_per_day=500)), Spent(30, 40))
            with pytest.raises(StoreDown):
                await counters.usage("2000-01-01")
            assert (await counters.reserve(demand(2, 20, tokens_per_day=500))).allowed
    async with hang_limit():
        while True:
            try:
                used = await counters.usage("2000-01-01")
            except StoreDown:
                await asyncio.sleep(0.01)
            else:
                break
    assert [(row.prompt, row.completion) for row in used.values()] == [(30, 40)]
    await counters.close()


async def test_it_can_be_closed_while_the_disk_hangs(tmp_path: Path) -> None:
    file, streams, sessions, _ = opened(tmp_path)
    await sessions.append("a", "s", said("q"), told("r"))
    with HungDisk(file) as disk:
        log = streams.begin(a_meta())
        log.append(b"e", 1)
        await disk.hangs.wait()
        async with hang_limit():
            await sessions.close()
            await streams.close()
        with pytest.raises(StoreDown):
            await streams.find("st_1")
    if file._round is not None:
        await asyncio.wait({file._round})


async def test_a_moment_without_memory_is_an_outage_that_passes(tmp_path: Path) -> None:
    file, streams, sessions, hear = opened(tmp_path)
    await sessions.append("a", "s", said("q"), told("r"))

    def fails(_: object) -> None:
        raise MemoryError

    with pytest.raises(StoreDown, match="out of memory"):
        await file.change(fails)
    with pytest.raises(StoreDown, match="out of memory"):
        await file.read(fails, None)
    assert hear.failures == [f"{file.path}: out of memory"]
    await recovered(hear)
    assert contents(await sessions.read("a", "s")) == ["q", "r"]
    await sessions.append("a", "s", said("q"), told("r"))
    await sessions.close()
    await streams.close()
