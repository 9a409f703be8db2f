"""The two threads that speak with the file, and when: writing goes by rounds, one in 50 ms while there is anything.

In: what the stores that are in the file want written, read or looked for. Out: that, once it is done; one telling per
outage. Must not: let the loop wait for the disk, or give up: while the file cannot be written it tries again.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from edge.store.base import Hear, StoreDown, Unusable
from edge.store.sqlite_file import open_to_read, open_to_write
from edge.store.sqlite_lease import Lease

T = TypeVar("T")

BATCH_S = 0.05
_IDLE_S = 60.0  # between rounds while there is nothing: only what has expired goes
_RETRY_S = 2.0
_LOCKED_S = 5.0
_SWEEP_S = 30.0
_CLOSE_S = 10.0  # for the last round; a disk that hangs does not keep Edge from ending
_PROBE_BYTES = 65536  # written to see whether there is room again
_VACUUM_PAGES = 2000  # given back to the file system by one sweep
_FAULTS = (sqlite3.Error, OSError, Unusable)


class Errand(Protocol):
    """Something to be written in the next round."""

    def write(self, connection: sqlite3.Connection, now: float) -> None:
        """In the writer's thread, in a transaction."""

    def done(self) -> None:
        """On the loop: it is written."""

    def failed(self) -> None:
        """On the loop: it is not."""


class Part(Protocol):
    """A store that is in the file."""

    @property
    def interval_s(self) -> float | None:
        """How soon it wants the next round, whatever is to be written; None: it has nothing of its own in the file."""

    def take(self) -> Errand | None:
        """On the loop: what is to be written now."""

    def look(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """In the writer's thread: another process has written. What it returns is called on the loop."""

    def sweep(self, connection: sqlite3.Connection, now: float, gone: dict[str, float]) -> bool:
        """In the writer's thread, in a transaction: let go of some of what is over the bounds; whether more is.

        ``gone`` are the owners that are, and since when.
        """

    def leave(self, connection: sqlite3.Connection, now: float) -> None:
        """In the writer's thread, in a transaction, at the end: what this process had is nobody's."""


class SqliteFile:
    """The file, as its stores (``Part``) share it within a process. Nothing is opened before it is used.

    Args:
        path: See ``sqlite_file.path_of``.
        clock: Unix time.
        monotonic: See ``Lease``.
        retry_s: Between tries while the file cannot be written.
        locked_s: How long another process may hold it before the store counts as down.
    """

    def __init__(
        self,
        path: Path,
        hear: Hear,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        retry_s: float = _RETRY_S,
        locked_s: float = _LOCKED_S,
    ) -> None:
        self.path = path
        self.hear = hear
        self.lease = Lease(clock, monotonic)
        self.up = True
        self.failures = 0
        self._retry_s = retry_s
        self._locked_s = locked_s
        self._why = ""
        self._down_since = 0.0
        self._parts: list[Part] = []
        self._chores: list[Callable[[sqlite3.Connection], None]] = []
        self._closed = False
        # The loop's side.
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Future[list[Callable[[], None]]] | None = None
        # Of the threads, each of which has its own connection.
        self._writer = ThreadPoolExecutor(1, "edge-store-write")
        self._reader = ThreadPoolExecutor(1, "edge-store-read")
        self._to_write: sqlite3.Connection | None = None
        self._to_read: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._read_inode: tuple[int, int] | None = None
        self._stuck: str | None = None
        self._version = -1
        self._sweep_at = 0.0

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}{'' if self.up else ' down: ' + self._why}>"

    # --- the loop's side ----------------------------------------------------------------------------------------

    def join(self, part: Part) -> None:
        """One more store is in the file."""
        self._parts.append(part)

    async def start(self) -> None:
        """See that the file can be used, if there is one.

        Raises:
            Unusable: it cannot, whatever happens. (If it only cannot be opened now, the store is down.)
        """
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._reader, self.path.exists):
            try:
                await loop.run_in_executor(self._writer, self._opened)
            except (sqlite3.Error, OSError) as error:
                self._failed(error)
            self._arm()

    def want(self, within_s: float) -> None:
        """Have a round soon."""
        if self._round is not None or self._closed:
            return  # after the one that runs, it is seen what is wanted
        loop = asyncio.get_running_loop()
        at = loop.time() + (within_s if self.up else self._retry_s)
        if self._timer is not None:
            if self._timer.when() <= at or not self.up:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._begin)

    def chore(self, do: Callable[[sqlite3.Connection], None]) -> None:
        """Have something done with the next round that succeeds, in its transaction."""
        self._chores.append(do)
        self.want(BATCH_S)

    async def flush(self) -> None:
        """Have everything written that is there by now.

        Raises:
            StoreDown: it could not be.
        """
        if self._round is not None:
            await asyncio.wait({self._round})
        if not self.up or self._closed:
            raise StoreDown(self._why)
        if self._round is None:
            self._begin()
        if self._round is not None:
            await asyncio.wait({self._round})
        if not self.up:
            raise StoreDown(self._why)

    async def read(self, ask: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """What the file says; ``nothing`` while there is no file.

        Raises:
            StoreDown: it cannot be asked.
        """
        if self._closed:
            raise StoreDown("the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, ask, nothing)
        except _FAULTS as error:
            self.failures += 1
            raise StoreDown(_told(self.path, error)) from error

    async def change(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Have something done at once, in a transaction of its own.

        Raises:
            StoreDown: it is not done.
        """
        if not self.up or self._closed:
            raise StoreDown(self._why or "the store is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._writer, self._change, do)
        except _FAULTS as error:
            self._failed(error)
            self.want(self._retry_s)
            raise StoreDown(self._why) from error

    def size(self) -> int:
        """Bytes of the file, and of what belongs to it; from any thread."""
        return sum(beside.stat().st_size for end in ("", "-wal") if (beside := Path(f"{self.path}{end}")).exists())

    async def leave(self, part: Part) -> None:
        """A store is closed; with the last one, the file is."""
        if part not in self._parts:
            return
        if len(self._parts) > 1:
            with contextlib.suppress(StoreDown):
                await self.flush()
                await self.change(lambda connection: part.leave(connection, self.lease.now()))
            self._parts.remove(part)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._leave(part)
        self._parts.clear()
        self._writer.shutdown(wait=False)
        self._reader.shutdown(wait=False)

    async def _leave(self, part: Part) -> None:
        with contextlib.suppress(StoreDown):
            await self.flush()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._round is not None:
            await asyncio.wait({self._round})
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reader, self._drop_reader)
        await loop.run_in_executor(self._writer, self._end, part)

    def _arm(self) -> None:
        """Have the next round when the stores want it."""
        intervals = [BATCH_S if self._chores else None, *(part.interval_s for part in self._parts)]
        self.want(min((interval for interval in intervals if interval is not None), default=_IDLE_S))

    def _begin(self) -> None:
        """Begin a round."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        errands = [errand for part in self._parts if (errand := part.take()) is not None]
        chores, self._chores = self._chores, []
        active = any(part.interval_s is not None for part in self._parts)
        self._round = asyncio.get_running_loop().run_in_executor(
            self._writer, lambda: self._go(errands, chores, active=active)
        )
        self._round.add_done_callback(lambda round_: self._finish(round_, errands, chores))

    def _finish(
        self,
        round_: asyncio.Future[list[Callable[[], None]]],
        errands: list[Errand],
        chores: list[Callable[[sqlite3.Connection], None]],
    ) -> None:
        self._round = None
        try:
            seen = round_.result()
        except Exception as error:  # noqa: BLE001 - whatever it is, what is streamed goes on
            self._chores[:0] = chores
            self._failed(error)
            for errand in errands:
                errand.failed()
        else:
            self._recovered()
            for errand in errands:
                errand.done()
            for tell in seen:
                tell()
        self._arm()

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.up:
            self.up = False
            self._why = _told(self.path, error)
            self._down_since = time.monotonic()
            self.hear.store_failed(self._why)

    def _recovered(self) -> None:
        if not self.up:
            self.up = True
            self._why = ""
            self.hear.store_recovered(time.monotonic() - self._down_since)

    # --- the reader's thread ------------------------------------------------------------------------------------

    def _read(self, ask: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        if self._read_inode != self._inode:
            self._drop_reader()
        if self._to_read is None:
            self._read_inode = self._inode
            self._to_read = open_to_read(self.path, self._locked_s)
            if self._to_read is None:
                return nothing
        try:
            self._to_read.execute("BEGIN")
            found = ask(self._to_read)
            self._to_read.execute("COMMIT")
        except BaseException:
            self._drop_reader()
            raise
        return found

    def _drop_reader(self) -> None:
        connection, self._to_read = self._to_read, None
        if connection is not None:
            connection.close()

    # --- the writer's thread ------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        if self._to_write is None:
            self._to_write = open_to_write(self.path, self._locked_s)
            self._inode = _inode(self.path)
            self._version = -1
            self._sweep_at = time.monotonic() + 1
        return self._to_write

    def _go(
        self, errands: list[Errand], chores: list[Callable[[sqlite3.Connection], None]], *, active: bool
    ) -> list[Callable[[], None]]:
        """A round."""
        if not (errands or chores or active or self._stuck or self._to_write):
            return []
        try:
            connection = self._opened()
            now = self.lease.now()
            renew = active and self.lease.due
            if renew and _inode(self.path) != self._inode:  # somebody took it away; another is to be made
                self._drop_writer()
                connection = self._opened()
            if self._stuck is not None:
                self._probe(connection)
            if errands or chores or renew:
                with _transaction(connection):
                    if renew:
                        self.lease.renew(connection, now)
                    for chore in chores:
                        chore(connection)
                    for errand in errands:
                        errand.write(connection, now)
            self._sweep(connection, now)
            seen = self._look(connection)
        except BaseException as error:
            self._give_up(error)
            raise
        self._stuck = None
        return seen

    def _change(self, do: Callable[[sqlite3.Connection], T]) -> T:
        if self._stuck is not None:  # since this was asked for: not each of many is to wait for a lock
            raise OSError(self._stuck)
        try:
            connection = self._opened()
            with _transaction(connection):
                return do(connection)
        except _FAULTS as error:
            self._give_up(error)
            raise

    def _look(self, connection: sqlite3.Connection) -> list[Callable[[], None]]:
        """See whether another process has written anything."""
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return []
        self._version = version
        return [part.look(connection) for part in self._parts]

    def _sweep(self, connection: sqlite3.Connection, now: float) -> None:
        if time.monotonic() < self._sweep_at:
            return
        with _transaction(connection):
            gone = self.lease.gone(connection, now)
            connection.executemany("DELETE FROM claims WHERE owner = ?", [(owner,) for owner in gone])
            more = [part.sweep(connection, now, gone) for part in self._parts]
            connection.executemany("DELETE FROM owners WHERE id = ?", [(owner,) for owner in gone])
        connection.execute(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})").fetchall()
        self._sweep_at = time.monotonic() + (0 if any(more) else _SWEEP_S)

    def sweep_soon(self) -> None:
        """Much was written; from any thread."""
        self._sweep_at = 0.0

    @staticmethod
    def _probe(connection: sqlite3.Connection) -> None:
        """Write something, as much as what failed may have been."""
        with _transaction(connection):
            connection.execute("INSERT OR REPLACE INTO events VALUES (0, 0, zeroblob(?))", (_PROBE_BYTES,))
        with _transaction(connection):
            connection.execute("DELETE FROM events WHERE key = 0")

    def _end(self, part: Part) -> None:
        connection = self._to_write
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error), _transaction(connection):
            part.leave(connection, self.lease.now())
            connection.execute("DELETE FROM owners WHERE id = ?", (self.lease.owner,))
        self._drop_writer()

    def _give_up(self, error: BaseException) -> None:
        """Begin anew with the next round: what is wrong may be this connection."""
        self._stuck = str(error)
        self.lease.lost()
        self._drop_writer()

    def _drop_writer(self) -> None:
        connection, self._to_write = self._to_write, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


class _transaction:  # noqa: N801 - as contextlib's own; a class is several times cheaper than a generator
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        else:
            with contextlib.suppress(sqlite3.Error):  # some errors have rolled it back
                self._connection.execute("ROLLBACK")


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a path is made once, this is asked often
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _told(path: Path, error: BaseException) -> str:
    return str(error) if isinstance(error, Unusable) else f"{path}: {error}"
