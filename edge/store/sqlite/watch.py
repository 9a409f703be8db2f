"""The writer's connection, and its file, which somebody may delete, replace, cut or damage while Edge runs.

In: a path. Out: a connection to the file that has that name now; a sentence for each time that it became another. Must
not: be used by two threads, except where it says so; let what is written go into a file that has been taken away.
"""

import contextlib
import sqlite3
from collections.abc import Callable
from pathlib import Path

from edge.store.ports import Unusable
from edge.store.sqlite.damage import (
    clear_beside,
    is_cut,
    is_damage,
    is_edges,
    is_sound,
    look_beside,
    salvage,
    set_aside,
    write_anew,
)
from edge.store.sqlite.file import Found, connect, look_at, open_to_write

# What an outage is made of, and is tried again. ``OSError`` is also "no thread can be started", see ``edge.threads``.
FAULTS = (sqlite3.Error, OSError, Unusable, MemoryError)


class Moved(Exception):
    """Somebody took the file away while it was written, so that what was written is gone with it: to be done again."""


class WatchedFile:
    """See the module.

    Args:
        changed: Called in the writer's thread when there is another connection, or none any more.

    Attributes:
        connection: None while it is not open.
        news: What became of the file, in a sentence each, until the loop takes them.
    """

    def __init__(self, path: Path, locked_s: float, changed: Callable[[], None]) -> None:
        self.connection: sqlite3.Connection | None = None
        self.news: list[str] = []
        self._path = path
        self._locked_s = locked_s
        self._changed = changed
        self._found: Found | None = None  # the file that is open, or was last
        self._size = 0  # of it, at the last look
        self._beside = look_beside(path)

    def is_suspect(self) -> bool:
        """Whether somebody may have done something to the file since the last look; from any thread. Takes 3 us."""
        before, now = self._found, look_at(self._path)
        if before is None:
            return False
        if now is None or not before.is_same(now) or now.size < self._size:
            return True
        self._size = now.size
        return False

    def opened(self) -> sqlite3.Connection:
        """The connection; see ``open_to_write``."""
        happened = self._happened()
        if happened == "deleted":
            self._write_anew()
        elif happened == "replaced":
            if self.connection is not None:
                with contextlib.suppress(sqlite3.Error):  # so that the old one, wherever it is, needs no log
                    self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            clear_beside(self._path, self._beside)
            self._forget()
            self._open()
            self._tell_replaced()
        elif happened is not None:
            self._replace(happened)
        return self.connection or self._open()

    def see_that_it_is_there(self) -> None:
        """After a commit. Raises ``Moved`` if what was committed is in no file that has the name, and never will be."""
        if not self.is_suspect():
            return
        happened = self._happened()
        if happened == "replaced" or (happened == "deleted" and not self._write_anew()):
            raise Moved

    def see_whether_it_is_sound(self, error: BaseException) -> None:
        """After an error: raises ``Moved`` if it is because of what somebody did to the file."""
        with contextlib.suppress(*FAULTS):  # as bad as before
            if is_damage(error) and self.connection is not None and not is_sound(self._path, self._locked_s):
                self._replace("damaged")
                raise Moved
            if self._happened() is not None:
                raise Moved

    def mend(self) -> None:
        """Somebody found what makes no sense in the file: look whether it is damaged, and begin another if so."""
        self.opened()
        if not is_sound(self._path, self._locked_s):
            self._replace("damaged")

    def drop(self) -> None:
        """Close."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._changed()

    # --- how ----------------------------------------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        there = look_at(self._path)
        try:
            return self._keep(open_to_write(self._path, self._locked_s))
        except sqlite3.Error as error:
            if not is_damage(error) or there is None or not is_edges(self._path, self._locked_s):
                raise
        self._found = there
        return self._replace("damaged")

    def _keep(self, connection: sqlite3.Connection) -> sqlite3.Connection:
        self.connection = connection
        self._found, self._beside = look_at(self._path), look_beside(self._path)
        self._size = 0 if self._found is None else self._found.size
        self._changed()
        return connection

    def _happened(self) -> str | None:
        """What somebody did to the file since it was opened; None if it is as it should be."""
        before, now = self._found, look_at(self._path)
        if before is None:
            return None
        if now is None:
            return "deleted"
        if not before.is_same(now):
            return "replaced"
        if now.size < self._size:
            if not now.size:
                return "emptied"
            if self.connection is not None and is_cut(self._path, self._locked_s, self.connection, now.size):
                return "cut short"
        self._size = now.size
        return None

    def _write_anew(self) -> bool:
        """The file was deleted; whether all that was in it is in the new one."""
        saved = False
        if self.connection is not None:
            with contextlib.suppress(sqlite3.Error, OSError):
                write_anew(self.connection, self._path, self._beside)
                saved = True
        self._forget()
        self._open()
        fields = "written anew with all that was in it" if saved else "begun anew, without what was in it"
        self.news.append(f"{self._path} was deleted; it has been {fields}")
        return saved

    def _replace(self, happened: str) -> sqlite3.Connection:
        """The file is damaged: begin another with what can be saved of it."""
        old, damaged = self.connection, self._found
        aside = None if damaged is None else set_aside(self._path, damaged)
        self.connection = self._found = None  # closed in the end: it has pages that the file may lack by now
        try:
            new = self._keep(open_to_write(self._path, self._locked_s))
            if aside is None:  # another process was faster
                self._tell_replaced()
                return new
            if old is not None:
                salvage(old, new)
            with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(aside, 0)) as rest:
                salvage(rest, new)
        finally:
            if old is not None:
                with contextlib.suppress(sqlite3.Error):
                    old.close()
        self.news.append(f"{self._path} was {happened}; it is kept as {aside.name}, and a new one has been made")
        return new

    def _tell_replaced(self) -> None:
        self.news.append(f"{self._path} was replaced; Edge goes on with the new one")

    def _forget(self) -> None:
        self.drop()
        self._found = None


class transaction:  # noqa: N801 - as contextlib's own; a class is several times cheaper than a generator
    """What is done within is done as one, or not at all."""

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
