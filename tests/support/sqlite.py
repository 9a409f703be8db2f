"""SQLite stores, opened over one file as if each were in a process of its own, and how one of them dies."""

import asyncio
import time
from pathlib import Path

from contract.kept_streams import Heard
from contract.session_store_contract import Clock

from edge.settings import Sessions, Store
from edge.store.sqlite.batcher import SqliteFile
from edge.store.sqlite.counters import SqliteCounters
from edge.store.sqlite.keys import SqliteKeys
from edge.store.sqlite.sessions import SqliteSessions
from edge.store.sqlite.streams import SqliteStreams
from support.hanging import HANG_S


def a_file(
    path: Path, clock: Clock | None = None, hear: Heard | None = None, locked_s: float = HANG_S, hung_s: float = HANG_S
) -> SqliteFile:
    """With a clock that only a test moves, for both, it never looks as if the machine had slept."""
    clock = clock or Clock()
    return SqliteFile(path, hear or Heard(), clock, clock, retry_s=0.2, locked_s=locked_s, hung_s=hung_s)


def some_streams(
    path: Path, bounds: Store | None = None, clock: Clock | None = None, hear: Heard | None = None
) -> SqliteStreams:
    return SqliteStreams(a_file(path, clock, hear), bounds or Store())


def some_sessions(path: Path, bounds: Sessions | None = None, clock: Clock | None = None) -> SqliteSessions:
    return SqliteSessions(a_file(path, clock), bounds or Sessions())


def some_keys(path: Path, hear: Heard | None = None) -> SqliteKeys:
    return SqliteKeys(path, lambda: a_file(path, RealClock(), hear))


def some_counters(path: Path, clock: Clock, hear: Heard | None = None, locked_s: float = HANG_S) -> SqliteCounters:
    return SqliteCounters(lambda: a_file(path, clock, hear, locked_s), clock)


class RealClock(Clock):
    def __call__(self) -> float:
        return time.time()


async def vanish(store: SqliteStreams | SqliteSessions) -> None:
    """End it as a kill does: nothing more is written, its connections are gone."""
    file = store._file
    file._closed = True
    if file._timer is not None:
        file._timer.cancel()
    if file._round is not None:
        await asyncio.wait({file._round})
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(file._reading, file._reader.drop)
    await loop.run_in_executor(file._writing, file._writer.file.drop)


async def renew(store: SqliteStreams | SqliteSessions) -> None:
    file = store._file
    await file.change(lambda connection: file.lease.renew(connection, file.lease.now()))
