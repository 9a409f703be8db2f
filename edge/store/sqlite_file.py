"""The file that streams and sessions are kept in: where it is, what is in it, and how it is opened.

In: a path. Out: connections to a database of Edge's, made if there is none. Must not: touch a file that is not Edge's,
or one of a schema that this version lacks.
"""

import os
import sqlite3
import stat
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from edge.store.base import Unusable

APPLICATION = 0x45646765  # "Edge"; ``file`` and SQLite's own tools show it
SCHEMA = 2
# UPDATE FROM and RETURNING.
_OLDEST_SQLITE = (3, 35, 0)
_WAL_BYTES = 8 * 2**20  # more of it goes back to the file system once it is no longer needed
_AGAIN_S = 0.02

# Events are in the order in which they were written, whosever they are: a batch then writes a few pages, and not one
# for each stream, which costs four times as much (measured: 34 us a row, and 9). A stream has its last row, and each
# row the one before it; rows of what is no longer kept may be gone, and their ids be used again, so a walk ends at the
# first event that is kept.
# ``lost``: it was ended by another process, which took its owner for dead. ``gone`` are streams whose events had to go,
# in that order.
_SCHEMA = """
CREATE TABLE owners (id TEXT PRIMARY KEY, renewed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE streams (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    surface TEXT NOT NULL,
    model TEXT,
    session TEXT,
    request_id TEXT NOT NULL,
    created REAL NOT NULL,
    keep_bytes INTEGER NOT NULL,
    owner TEXT NOT NULL,
    first INTEGER NOT NULL DEFAULT 1,
    last INTEGER NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    tail INTEGER NOT NULL DEFAULT 0,
    reconnections INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0,
    ended REAL,
    ending TEXT
);
CREATE INDEX streams_of ON streams (principal, created);
CREATE INDEX streams_latest ON streams (created);
CREATE INDEX streams_ended ON streams (ended) WHERE ended IS NOT NULL;
CREATE INDEX streams_live ON streams (owner, stop) WHERE ended IS NULL;
CREATE TABLE gone (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    principal TEXT NOT NULL,
    surface TEXT NOT NULL,
    model TEXT,
    session TEXT,
    request_id TEXT NOT NULL,
    created REAL NOT NULL,
    keep_bytes INTEGER NOT NULL,
    owner TEXT NOT NULL,
    last INTEGER NOT NULL,
    reconnections INTEGER NOT NULL,
    ended REAL NOT NULL,
    ending TEXT NOT NULL
);
CREATE INDEX gone_ended ON gone (ended);
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    before INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    principal TEXT NOT NULL,
    session TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    turns BLOB NOT NULL,
    UNIQUE (principal, session)
);
CREATE TABLE claims (
    principal TEXT NOT NULL,
    session TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (principal, session)
) WITHOUT ROWID;
"""


def open_to_write(path: Path, locked_s: float) -> sqlite3.Connection:
    """A connection for the writer; the file, and the directory that it is in, are made if they are missing.

    Args:
        path: Where it is.
        locked_s: How long it waits for another process that writes.

    Raises:
        Unusable: it is not Edge's, or not of this schema.
        sqlite3.Error, OSError: it cannot be opened now.
    """
    _create(path)
    connection = _connect(path, locked_s)
    try:
        deadline = time.monotonic() + locked_s
        while not _made(connection, path):
            try:
                _make(connection, path)
            except sqlite3.OperationalError as error:  # another process makes it just now; SQLite does not wait for all
                if not _is_locked(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_AGAIN_S)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def open_to_read(path: Path, locked_s: float) -> sqlite3.Connection | None:
    """A connection that only reads; None while there is no file, or nothing in it.

    Raises:
        Unusable: see ``open_to_write``.
        sqlite3.Error: likewise.
    """
    if not path.exists():
        return None
    connection = _connect(path, locked_s)
    try:
        if _made(connection, path):
            connection.execute("PRAGMA query_only = 1")
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _create(path: Path) -> None:
    """Make an empty file for this user alone, or for the owner of the directory if this is root.

    Never by ``open``: closing a descriptor of the file drops every lock that SQLite holds on it in this process. The
    next process to close the file then believes that it is the last, and deletes the log that is in use here.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.mknod(path, stat.S_IFREG | 0o600)  # SQLite's other files get the same mode and owner
    if os.geteuid() == 0:
        made, directory = path.stat(), path.parent.stat()
        if not made.st_size and made.st_uid != directory.st_uid:  # a service's, which could not open root's
            os.chown(path, directory.st_uid, directory.st_gid)


def _connect(path: Path, locked_s: float) -> sqlite3.Connection:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise Unusable(f"SQLite here is {sqlite3.sqlite_version}; the store needs 3.35 or newer, or use memory:")
    # In the end closed by another thread than it was opened by, if that one hangs.
    return sqlite3.connect(
        f"file:{quote(str(path))}?mode=rw", uri=True, timeout=locked_s, isolation_level=None, check_same_thread=False
    )


def _made(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether it is Edge's and of this schema; False for an empty one."""
    try:
        application, schema, tables = _facts(connection)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise Unusable(f"{path} is no database; move it away, or set store.url to another file") from None
    if not (application or schema or tables):
        return False
    if application != APPLICATION:
        raise Unusable(f"{path} is a database of something else; set store.url to another file")
    if schema != SCHEMA:
        raise Unusable(
            f"{path} has schema {schema}, and this version of Edge knows {SCHEMA} only; run the version that wrote it, "
            "or move the file away (what is kept in it is then not found)"
        )
    return True


def _facts(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Whose it is, its schema, and how many tables and indexes there are; all of one moment: it may just be made."""
    within = connection.in_transaction
    if not within:
        connection.execute("BEGIN")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    finally:
        if not within and connection.in_transaction:
            connection.execute("ROLLBACK")
    return application, schema, tables


def _make(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise Unusable(f"{path} is on a file system that several processes cannot share a database on (no WAL)")
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _made(connection, path):
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _is_locked(error: sqlite3.Error) -> bool:
    return error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
