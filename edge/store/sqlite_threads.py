"""The two threads that speak with the file, each by a connection of its own.

In: what is to be asked, or written in one transaction. Out: answers; what other processes did. Must not: be called from
the loop, except where it says so; or go on with a connection that failed: what is wrong may be that.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from edge.store.base import Unusable
from edge.store.sqlite_file import open_to_read, open_to_write
from edge.store.sqlite_lease import Lease

T = TypeVar("T")
FAULTS = (sqlite3.Error, OSError, Unusable)
_SWEEP_S = 30.0
_PROBE_BYTES = 65536  # written to see whether there is room again
_VACUUM_PAGES = 500  # given back to the file system at once


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


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round: what is to be called on the loop, and what went wrong after all was written."""

    seen: Sequence[Callable[[], None]] = ()
    fault: Exception | None = None


class Writer:
    """The thread that writes, and looks what other processes wrote.

    Attributes:
        inode: Of the file that is open.
        sweep_at: When it sweeps next, by the monotonic clock; any thread may set it.
    """

    def __init__(self, path: Path, locked_s: float, lease: Lease, parts: list[Part]) -> None:
        self.inode: tuple[int, int] | None = None
        self.sweep_at = 0.0
        self._path = path
        self._locked_s = locked_s
        self._lease = lease
        self._parts = parts
        self._connection: sqlite3.Connection | None = None
        self._stuck: str | None = None
        self._version = -1

    def opened(self) -> sqlite3.Connection:
        """The connection; see ``open_to_write``."""
        if self._connection is None:
            self._connection = open_to_write(self._path, self._locked_s)
            self.inode = _inode(self._path)
            self._version = -1
            self.sweep_at = time.monotonic() + 1
        return self._connection

    def go(self, errands: list[Errand], chores: list[Callable[[sqlite3.Connection], None]], *, active: bool) -> Round:
        """A round. What is raised is raised before anything is written."""
        if not (errands or chores or active or self._stuck or self._connection):
            return Round()
        try:
            connection = self.opened()
            now = self._lease.now()
            renew = active and self._lease.due
            if renew and _inode(self._path) != self.inode:  # somebody took it away; another is to be made
                self.drop()
                connection = self.opened()
            if self._stuck is not None:
                self._make_room(connection, now)
            if errands or chores or renew:
                with _transaction(connection):
                    if renew:
                        self._lease.renew(connection, now)
                    for chore in chores:
                        chore(connection)
                    for errand in errands:
                        errand.write(connection, now)
        except BaseException as error:
            self._give_up(error)
            raise
        self._stuck = None
        try:
            self._sweep(connection, now)
            return Round(self._look(connection))
        except FAULTS as error:
            self._give_up(error)
            return Round(fault=error)

    def change(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Something in a transaction of its own."""
        if self._stuck is not None:  # since this was asked for: not each of many is to wait for a lock
            raise OSError(self._stuck)
        try:
            connection = self.opened()
            with _transaction(connection):
                return do(connection)
        except FAULTS as error:
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
        if time.monotonic() < self.sweep_at:
            return
        with _transaction(connection):
            gone = self._lease.gone(connection, now)
            connection.executemany("DELETE FROM claims WHERE owner = ?", [(owner,) for owner in gone])
            more = [part.sweep(connection, now, gone) for part in self._parts]
            connection.executemany("DELETE FROM owners WHERE id = ?", [(owner,) for owner in gone])
        self._vacuum(connection)
        self.sweep_at = time.monotonic() + (0 if any(more) else _SWEEP_S)

    def vacuum(self) -> bool:
        """Give some of what is free in the file back to the file system; whether there is more."""
        try:
            return self._vacuum(self.opened())
        except FAULTS as error:
            self._give_up(error)
            raise

    @staticmethod
    def _vacuum(connection: sqlite3.Connection) -> bool:
        # Not by ``execute``, which would do one page.
        connection.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES})")
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        return bool(free)

    def _make_room(self, connection: sqlite3.Connection, now: float) -> None:
        """After a failure: see whether as much can be written as what failed may have been."""
        self.sweep_at = 0.0
        with contextlib.suppress(sqlite3.Error):
            self._sweep(connection, now)
        with _transaction(connection):
            connection.execute("INSERT OR REPLACE INTO events VALUES (0, 0, 0, 0, zeroblob(?))", (_PROBE_BYTES,))
        with _transaction(connection):
            connection.execute("DELETE FROM events WHERE id = 0")

    def end(self, part: Part) -> None:
        """Leave nothing behind that is this process's, and close."""
        connection = self._connection
        if connection is None:
            return
        with contextlib.suppress(sqlite3.Error), _transaction(connection):
            part.leave(connection, self._lease.now())
            connection.execute("DELETE FROM owners WHERE id = ?", (self._lease.owner,))
        self.drop()

    def _give_up(self, error: BaseException) -> None:
        """Begin anew with the next round: what is wrong may be this connection."""
        self._stuck = str(error)
        self._lease.lost()
        self.drop()

    def drop(self) -> None:
        """Close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


class Reader:
    """The thread that only reads."""

    def __init__(self, path: Path, locked_s: float, writer: Writer) -> None:
        self._path = path
        self._locked_s = locked_s
        self._writer = writer
        self._inode: tuple[int, int] | None = None
        self._connection: sqlite3.Connection | None = None

    def read(self, ask: Callable[[sqlite3.Connection], T], nothing: T, *, up: bool) -> T:
        """What ``ask`` finds, in one transaction; ``nothing`` without a file, if it is not missing by an outage."""
        if self._inode != self._writer.inode:
            self.drop()
        if self._connection is None:
            self._inode = self._writer.inode
            self._connection = open_to_read(self._path, self._locked_s)
            if self._connection is None:
                if not up:
                    raise FileNotFoundError(self._path)
                return nothing
        try:
            with _transaction(self._connection, "BEGIN"):
                return ask(self._connection)
        except FAULTS:
            self.drop()
            raise

    def drop(self) -> None:
        """Close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _transaction:  # noqa: N801 - as contextlib's own; a class is several times cheaper than a generator
    def __init__(self, connection: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> None:
        self._connection = connection
        self._begin = begin

    def __enter__(self) -> None:
        self._connection.execute(self._begin)

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
