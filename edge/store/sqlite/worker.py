"""The two threads that speak with the file, each by a connection of its own.

In: what is to be asked, or written in one transaction. Out: answers; what other processes did. Must not: be called from
the loop, except where it says so; or go on with a connection that failed: what is wrong may be that.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edge.store.sqlite.file import Found, look_at, open_to_read
from edge.store.sqlite.lease import Lease
from edge.store.sqlite.watch import FAULTS, Moved, WatchedFile, transaction

T = TypeVar("T")

_SWEEP_S = 30.0
_PROBE_BYTES = 65536  # written to see whether there is room again
_PROBE = "INSERT OR REPLACE INTO events (id, before, last, count, data) VALUES (0, 0, 0, 0, zeroblob(?))"
_VACUUM_PAGES = 500  # given back to the file system at once
_TRIES = 5  # to write what must not go into a file that somebody takes away


class WriteTask:
    """Something to be written in the next round."""

    __slots__ = ()

    def write(self, connection: sqlite3.Connection, now: float) -> None:
        """In the writer's thread, in a transaction."""
        raise NotImplementedError

    def done(self) -> None:
        """On the loop: it is written."""
        raise NotImplementedError

    def failed(self) -> None:
        """On the loop: it is not."""
        raise NotImplementedError


class Part:
    """A store that is in the file."""

    __slots__ = ()

    @property
    def interval_s(self) -> float | None:
        """How soon it wants the next round, whatever is to be written; None: it has nothing of its own in the file."""
        raise NotImplementedError

    def next_task(self) -> WriteTask | None:
        """On the loop: what is to be written now."""
        raise NotImplementedError

    def look(self, connection: sqlite3.Connection) -> Callable[[], None]:
        """In the writer's thread: another process has written. What it returns is called on the loop."""
        raise NotImplementedError

    def sweep(self, connection: sqlite3.Connection, now: float, gone: dict[str, float]) -> bool:
        """In the writer's thread, in a transaction: let go of some of what is over the bounds; whether more is.

        ``gone`` are the owners that are, and since when.
        """
        raise NotImplementedError

    def leave(self, connection: sqlite3.Connection, now: float) -> None:
        """In the writer's thread, in a transaction, at the end: what this process had is nobody's."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Round:
    """What came of a round: what is to be called on the loop, and what went wrong after all was written."""

    seen: Sequence[Callable[[], None]] = ()
    fault: Exception | None = None


class Writer:
    """The thread that writes, and looks what other processes wrote.

    Attributes:
        file: What it writes to.
        sweep_at: When it sweeps next, by the monotonic clock; any thread may set it.
    """

    def __init__(self, path: Path, locked_s: float, lease: Lease, parts: list[Part]) -> None:
        self.file = WatchedFile(path, locked_s, self._begin_anew)
        self.sweep_at = 0.0
        self._lease = lease
        self._parts = parts
        self._stuck: str | None = None
        self._version = -1

    def go(
        self, tasks: list[WriteTask], followups: list[Callable[[sqlite3.Connection], None]], *, active: bool
    ) -> Round:
        """A round. What is raised is raised before anything is written; ``Moved``: try again at once."""
        if not (tasks or followups or active or self._stuck is not None or self.file.connection):
            return Round()
        try:
            connection = self.file.opened()
            now = self._lease.now()
            renew = active and self._lease.due
            if self._stuck is not None:
                self._make_room(connection, now)
            if tasks or followups or renew:
                with transaction(connection):
                    if renew:
                        self._lease.renew(connection, now)
                    for after_commit in followups:
                        after_commit(connection)
                    for task in tasks:
                        task.write(connection, now)
                self.file.see_that_it_is_there()
        except Moved:
            raise
        except BaseException as error:
            self._give_up(error)
            raise
        self._stuck = None
        try:
            self._sweep(connection, now)
            return Round(self._look(connection))
        except FAULTS as error:
            with contextlib.suppress(Moved):
                self._give_up(error)
            return Round(fault=error)

    def change(self, do: Callable[[sqlite3.Connection], T]) -> T:
        """Something in a transaction of its own; done again if the file was taken away meanwhile."""
        if self._stuck is not None:  # since this was asked for: not each of many is to wait for a lock
            raise OSError(self._stuck)
        for _ in range(_TRIES):
            try:
                connection = self.file.opened()
                with transaction(connection):
                    result = do(connection)
                self.file.see_that_it_is_there()
            except Moved:
                continue
            except FAULTS as error:
                try:
                    self._give_up(error)
                except Moved:
                    continue
                raise
            return result
        raise OSError("the file is taken away again and again")

    def _begin_anew(self) -> None:
        """There is another connection, maybe to another file."""
        self._version = -1
        self._lease.lost()
        self.sweep_at = time.monotonic() + 1

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
        with transaction(connection):
            gone = self._lease.gone(connection, now)
            connection.executemany("DELETE FROM claims WHERE owner = ?", [(owner,) for owner in gone])
            more = [part.sweep(connection, now, gone) for part in self._parts]
            connection.executemany("DELETE FROM owners WHERE id = ?", [(owner,) for owner in gone])
        self._vacuum(connection)
        self.sweep_at = time.monotonic() + (0 if any(more) else _SWEEP_S)

    def open(self) -> None:
        """See that the file is open, and the one that the path names."""
        self._tried(self.file.opened)

    def mend(self) -> None:
        """See that the file makes sense."""
        self._tried(self.file.mend)

    def vacuum(self) -> bool:
        """Give some of what is free in the file back to the file system; whether there is more."""
        return self._tried(lambda: self._vacuum(self.file.opened()))

    def _tried(self, do: Callable[[], T]) -> T:
        try:
            return do()
        except FAULTS as error:
            with contextlib.suppress(Moved):
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
        with transaction(connection):
            connection.execute(_PROBE, (_PROBE_BYTES,))
        with transaction(connection):
            connection.execute("DELETE FROM events WHERE id = 0")

    def end(self, part: Part | None) -> None:
        """Leave nothing behind that is this process's, and close."""
        connection = self.file.connection
        if connection is None:
            return
        with contextlib.suppress(*FAULTS), transaction(connection):
            if part is not None:
                part.leave(connection, self._lease.now())
            connection.execute("DELETE FROM owners WHERE id = ?", (self._lease.owner,))
        self.file.drop()

    def _give_up(self, error: BaseException) -> None:
        """Begin anew with the next round: what is wrong may be this connection. Raises ``Moved`` if it was the file."""
        self.file.see_whether_it_is_sound(error)
        self._stuck = str(error)
        self.file.drop()


class Reader:
    """The thread that only reads."""

    def __init__(self, path: Path, locked_s: float) -> None:
        self._path = path
        self._locked_s = locked_s
        self._found: Found | None = None
        self._connection: sqlite3.Connection | None = None

    def read(self, ask: Callable[[sqlite3.Connection], T], nothing: T, *, up: bool) -> T:
        """What ``ask`` finds, in one transaction; ``nothing`` without a file, if it is not missing by an outage."""
        self.drop_if_moved()
        if self._connection is None:
            self._found = look_at(self._path)
            self._connection = open_to_read(self._path, self._locked_s)
            if self._connection is None:
                if not up:
                    raise FileNotFoundError(self._path)
                return nothing
        try:
            with transaction(self._connection, "BEGIN"):
                return ask(self._connection)
        except FAULTS:
            self.drop()
            raise

    def drop_if_moved(self) -> None:
        """Close, if there is another file; if there is none, the old one is as good as ever until there is."""
        if self._found is not None:
            now = look_at(self._path)
            if now is not None and not self._found.is_same(now):
                self.drop()

    def drop(self) -> None:
        """Close."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
