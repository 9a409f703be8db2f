"""Several processes over one SQLite file, one of which is killed."""

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from contract.kept_streams import SOON_S, a_meta, everything, finished, joined, seen
from contract.session_store_contract import Clock
from support.hanging import hang_limit
from support.sqlite import some_streams
from support.sqlite_process import event

import edge
from edge.store.ports import LEASE_S, lost

Child = asyncio.subprocess.Process
Started = Callable[..., Awaitable[tuple[Child, list[str]]]]


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[Started]:
    """Start a process with so many streams in ``edge.db``; and their ids."""
    children: list[Child] = []
    tests = Path(__file__).parents[2]

    async def start(streams: int) -> tuple[Child, list[str]]:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "support.sqlite_process", tmp_path / "edge.db", str(streams)),
            env={**os.environ, "PYTHONPATH": f"{Path(edge.__file__).parent.parent}:{tests}"},
            stdout=asyncio.subprocess.PIPE,
        )
        children.append(child)
        return child, (await line(child)).split()

    yield start
    for child in children:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def line(child: Child) -> str:
    assert child.stdout is not None
    async with hang_limit():
        return (await child.stdout.readline()).decode()


def expected(last: int) -> bytes:
    return b"".join(map(event, range(1, last + 1)))


async def test_a_killed_process_leaves_its_streams_complete_up_to_its_last_batch(
    tmp_path: Path, started: Started
) -> None:
    child, streams = await started(20)
    clock = Clock(time.time())
    store = some_streams(tmp_path / "edge.db", clock=clock)
    before = [(await seen(store, stream, 100)).last for stream in streams]
    child.kill()
    await child.wait()
    clock.now = time.time() + LEASE_S + 1
    for stream, last in zip(streams, before, strict=True):
        state = await seen(store, stream)
        assert state.ending is not None
        assert state.ending == lost(state.ending.at)
        assert state.last >= last
        assert joined(await everything(store, stream, most=500)) == expected(state.last)
    await finished(store, a_meta(), b"e")
    await store.close()
    connection = sqlite3.connect(tmp_path / "edge.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_killed_one_is_followed_up_to_its_end(tmp_path: Path, started: Started) -> None:
    """Who waits learns that its lease has lapsed, though nobody writes that."""
    child, (stream,) = await started(1)
    clock = Clock(time.time())
    store = some_streams(tmp_path / "edge.db", clock=clock)
    await seen(store, stream, 10)
    child.kill()
    await child.wait()
    last = (await seen(store, stream)).last
    waiting = asyncio.create_task(store.changed(stream, last, 600))
    await asyncio.sleep(0)
    clock.now = time.time() + LEASE_S + 1
    async with hang_limit():
        await waiting
    assert (await seen(store, stream)).ending is not None
    assert joined(await everything(store, stream)) == expected(last)
    await store.close()


class RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


async def test_another_process_is_followed_live_and_stopped(tmp_path: Path, started: Started) -> None:
    child, (stream, other) = await started(2)
    store = some_streams(tmp_path / "edge.db", clock=RealClock())
    await seen(store, other)
    assert [state.here for state in await store.streams("a", 10)] == [False, False]
    read, last, pace = b"", 0, 0
    while last < 300:
        await store.changed(stream, last, SOON_S)
        for stretch in await store.read(stream, last, 2**20):
            assert stretch.last - stretch.count == last
            read, last = read + stretch.data, stretch.last
        pace += 1
    assert read == expected(last)
    assert pace > 3  # it came bit by bit
    await store.stop(stream)
    assert (await line(child)).split() == [stream, "True"]
    state = await seen(store, stream)
    while state.ending is None:
        await store.changed(stream, state.last, SOON_S)
        state = await seen(store, stream)
    assert state.ending.outcome == "cancelled"
    assert joined(await everything(store, stream)) == expected(state.last)
    assert (await seen(store, other)).ending is None
    await store.close()


async def test_processes_write_at_once(tmp_path: Path, started: Started) -> None:
    """Three of them, and this one."""
    store = some_streams(tmp_path / "edge.db", clock=RealClock())
    log = store.begin(meta := a_meta(created=time.time()))
    child, _ = await started(50)
    for number in range(1, 301):
        log.append(event(number), 1)
        await asyncio.sleep(0.002)
    assert joined(await everything(store, meta.id)) == expected(300)
    assert store.statistics().up
    assert store.statistics().failures == 0
    assert child.returncode is None
    assert all(state.last > 0 for state in await store.streams("a", 100))
    await store.close()
