"""How the store's file is opened; the one place that does.

In: a path. Out: connections to a database of Edge's, made if there is none, and of this version's schema. Must not:
touch a file that is not Edge's, or open a descriptor of the file.

Closing any descriptor of the file drops every lock that SQLite holds on it in this process. The next process to close
the file then believes that it is the last, and deletes the log that is in use here. So ``open`` is for SQLite alone.
"""

import os
import sqlite3
import stat
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from edge.store.ports import Unusable
from edge.store.sqlite.schema import SCHEMA, facts, migrate

# UPDATE FROM and RETURNING.
_OLDEST_SQLITE = (3, 35, 0)
_WAL_BYTES = 8 * 2**20  # more of it goes back to the file system once it is no longer needed
_AGAIN_S = 0.02

opening: dict[Path, threading.Lock] = {}  # one thread of this process at a time makes a file, or brings it up to date


class Found(NamedTuple):
    """The file that a path names."""

    device: int
    inode: int
    size: int

    def is_same(self, other: "Found | None") -> bool:
        """Whether that is the same file, whatever its size."""
        return other is not None and (self.device, self.inode) == (other.device, other.inode)


def open_to_write(path: Path, locked_s: float) -> sqlite3.Connection:
    """A connection for the writer; the file, and the directory that it is in, are made if they are missing.

    Args:
        path: Where it is.
        locked_s: How long it waits for another process that writes.

    Raises:
        Unusable: it is not Edge's, or only a later version can read it.
        sqlite3.Error, OSError: it cannot be opened now.
    """
    with opening.setdefault(path, threading.Lock()):
        create(path)
        connection = connect(path, locked_s)
        try:
            _prepare(connection, path, time.monotonic() + locked_s)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}").fetchone()
        except BaseException:
            connection.close()
            raise
    return connection


def open_to_read(path: Path, locked_s: float) -> sqlite3.Connection | None:
    """A connection that only reads; None while there is no file, or nothing in it. An old file is brought up to date.

    Raises:
        Unusable: see ``open_to_write``.
        sqlite3.Error, OSError: likewise.
    """
    if not path.exists():
        return None
    connection = connect(path, locked_s)
    try:
        found = facts(connection, path)
        if found.is_new:
            connection.close()
            return None
        if found.version < SCHEMA:
            open_to_write(path, locked_s).close()
        connection.execute("PRAGMA query_only = 1")
    except BaseException:
        connection.close()
        raise
    return connection


def look_at(path: Path) -> Found | None:
    """Which file the path names now; None if there is none. Takes 2 us."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a path is made once, this is asked often
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Found(found.st_dev, found.st_ino, found.st_size)


def create(path: Path) -> None:
    """Make an empty file if there is none, for this user alone; for the directory's owner, if this is root.

    ``mknod`` opens nothing. Where a system lacks it for files, SQLite makes one.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.mknod(path, stat.S_IFREG | 0o600)  # SQLite's other files get the same mode and owner
    except FileExistsError:
        pass
    except (
        PermissionError,
        NotImplementedError,
        AttributeError,
    ):  # of ``mknod``, or of the directory: SQLite reports it
        with closing(sqlite3.connect(path)) as made:
            made.execute("PRAGMA schema_version")
        path.chmod(0o600)
    if os.geteuid() == 0:
        made_by, directory = path.stat(), path.parent.stat()
        if not made_by.st_size and made_by.st_uid != directory.st_uid:  # a service's, which could not open root's
            os.chown(path, directory.st_uid, directory.st_gid)


def connect(path: Path, locked_s: float) -> sqlite3.Connection:
    """A connection to a file that is there, whatever is in it. Raises ``Unusable``, ``sqlite3.Error``."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise Unusable(f"SQLite here is {sqlite3.sqlite_version}; the store needs 3.35 or newer, or use memory:")
    # In the end closed by another thread than it was opened by, if that one hangs.
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=locked_s, isolation_level=None, check_same_thread=False
    )


def _prepare(connection: sqlite3.Connection, path: Path, deadline: float) -> None:
    """See that it is Edge's, shared by a log, and of this version's schema."""
    while True:
        try:
            if facts(connection, path).is_new:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise Unusable(f"{path} is on a file system that several processes cannot share a database on (no WAL)")
            migrate(connection, path)
        except sqlite3.OperationalError as error:  # another process makes it just now; SQLite does not wait for all
            if not _is_locked(error) or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def _is_locked(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
