"""What is in the store's file, and how a file of any earlier version becomes one of this version.

In: a connection that may write. Out: a file with everything this version needs, reached in steps that only add, each
one transaction. Must not: change a file that is not Edge's, or one that only a later version can read.

Two versions of Edge share the file while one takes over from the other. So a step never takes away or changes what an
earlier version uses, and each version ignores tables and columns that it does not know. A step to which an earlier
version is blind raises ``schema_version.min_reader``. A version refuses only a file whose ``min_reader`` is above its
own number.

Schemas 1 and 2 noted their number in ``user_version``, and refused any other. So that number never changes in a file.
"""

import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from edge.store.ports import Unusable

APPLICATION = 0x45646765  # "Edge"; ``file`` and SQLite's own tools show it
SCHEMA = 3  # this version's; one more with each step that is added below
_MIN_READER = 1  # raise it only with a step that an older version cannot live with
_USER_VERSION = 2  # of new files: see the module

_VERSION = """
CREATE TABLE IF NOT EXISTS schema_version (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    min_reader INTEGER NOT NULL,
    file_id TEXT NOT NULL,
    keys_lost INTEGER NOT NULL DEFAULT 0
)"""

# Events are in the order in which they were written, whosever they are: a batch then writes a few pages, and not one
# for each stream, which costs four times as much (measured: 34 us a row, and 9). A stream has its last row, and each
# row the one before it; rows of what is no longer kept may be gone, and their ids be used again, so a walk ends at the
# first event that is kept.
# ``lost``: it was ended by another process, which took its owner for dead.
_STREAMS_AND_SESSIONS = """
CREATE TABLE IF NOT EXISTS owners (id TEXT PRIMARY KEY, renewed REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS streams (
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
CREATE INDEX IF NOT EXISTS streams_of ON streams (principal, created);
CREATE INDEX IF NOT EXISTS streams_latest ON streams (created);
CREATE INDEX IF NOT EXISTS streams_ended ON streams (ended) WHERE ended IS NOT NULL;
CREATE INDEX IF NOT EXISTS streams_live ON streams (owner, stop) WHERE ended IS NULL;
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY,
    before INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    data BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS sessions (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    principal TEXT NOT NULL,
    session TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    turns BLOB NOT NULL,
    UNIQUE (principal, session)
);
CREATE TABLE IF NOT EXISTS claims (
    principal TEXT NOT NULL,
    session TEXT NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (principal, session)
) WITHOUT ROWID"""

# The very first files kept the events of a stream from ``number << 32`` on, by the sequence of the last of each row.
_FROM_THE_FIRST = """
ALTER TABLE streams ADD COLUMN tail INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams ADD COLUMN lost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE events RENAME TO events_by_key;
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    before INTEGER NOT NULL,
    last INTEGER NOT NULL,
    count INTEGER NOT NULL,
    data BLOB NOT NULL
);
INSERT INTO events (id, before, last, count, data)
SELECT id, ifnull(lag(id) OVER (PARTITION BY key >> 32 ORDER BY key), 0), key & 0xffffffff, count, data
FROM (SELECT row_number() OVER (ORDER BY key) AS id, key, count, data FROM events_by_key);
UPDATE streams SET tail = (SELECT count(*) FROM events_by_key WHERE key < (number + 1) << 32)
WHERE EXISTS (SELECT 1 FROM events_by_key WHERE key >= number << 32 AND key < (number + 1) << 32);
DROP TABLE events_by_key"""

# Streams whose events had to go, in that order.
_GONE = """
CREATE TABLE IF NOT EXISTS gone (
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
CREATE INDEX IF NOT EXISTS gone_ended ON gone (ended)"""

_KEYS_AND_COUNTS = """
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    day TEXT NOT NULL, principal TEXT NOT NULL, rule TEXT NOT NULL,
    requests INTEGER NOT NULL, prompt INTEGER NOT NULL, completion INTEGER NOT NULL,
    PRIMARY KEY (day, principal, rule)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS windows (
    scope TEXT NOT NULL, kind TEXT NOT NULL, slot INTEGER NOT NULL, amount INTEGER NOT NULL,
    PRIMARY KEY (scope, kind, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counted (id INTEGER PRIMARY KEY CHECK (id = 1), version INTEGER NOT NULL);
INSERT OR IGNORE INTO counted (id, version) VALUES (1, 0)"""


class Facts(NamedTuple):
    """What a file says of itself.

    Attributes:
        application: 0 in a new file.
        tables: How many tables and indexes there are.
        version: Of the last step that was taken; 0 before the first, and in files of versions that did not note it.
        min_reader: See the module.
    """

    application: int
    tables: int
    version: int
    min_reader: int

    @property
    def is_new(self) -> bool:
        """Nothing was ever put in it."""
        return not (self.application or self.tables)


def facts(connection: sqlite3.Connection, path: Path) -> Facts:
    """What the file says of itself, all at one moment: another process may just be making it.

    Raises:
        Unusable: it is not Edge's, or only a later version can read it.
    """
    within = connection.in_transaction
    try:
        if not within:
            connection.execute("BEGIN")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        version, min_reader = _version(connection) if application == APPLICATION else (0, 0)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_NOTADB:
            raise
        raise Unusable(f"{path} is no database; move it away, or set store.url to another file") from None
    finally:
        if not within and connection.in_transaction:
            connection.execute("ROLLBACK")
    found = Facts(application, tables, version, min_reader)
    if application != APPLICATION and not found.is_new:
        raise Unusable(f"{path} is a database of something else; set store.url to another file")
    if min_reader > SCHEMA:
        raise Unusable(
            f"{path} needs an Edge that knows schema {min_reader}, and this one knows {SCHEMA}; run the version that "
            "wrote it, or move the file away (what is kept in it is then not found)"
        )
    return found


def file_id(connection: sqlite3.Connection) -> str:
    """Tells the file from one that is made in its place."""
    return str(connection.execute("SELECT file_id FROM schema_version").fetchone()[0])


def migrate(connection: sqlite3.Connection, path: Path) -> None:
    """Take the steps that the file lacks. Raises ``Unusable``, ``sqlite3.Error``."""
    for version, step in _STEPS:
        if facts(connection, path).version >= version:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = facts(connection, path)  # another process may have been faster
            if found.version < version:
                if found.is_new:
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                    connection.execute(f"PRAGMA user_version = {_USER_VERSION}")
                step(connection)
                _note(connection, version)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # some errors have rolled it back
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> tuple[int, int]:
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'schema_version'").fetchone() is None:
        return 0, 0
    version, min_reader = connection.execute("SELECT version, min_reader FROM schema_version").fetchone()
    return version, min_reader


def _note(connection: sqlite3.Connection, version: int) -> None:
    """A step has been taken."""
    connection.execute(_VERSION)
    connection.execute(
        "INSERT INTO schema_version (id, version, min_reader, file_id) VALUES (1, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET version = excluded.version, min_reader = max(min_reader, excluded.min_reader)",
        (version, _MIN_READER, secrets.token_hex(16)),
    )


def _streams_and_sessions(connection: sqlite3.Connection) -> None:
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(events)").fetchall()}
    if "key" in columns:
        _run(connection, _FROM_THE_FIRST)
    _run(connection, _STREAMS_AND_SESSIONS)


def _run(connection: sqlite3.Connection, statements: str) -> None:
    # Not by ``executescript``, which would end the transaction first.
    for statement in statements.split(";\n"):
        connection.execute(statement)


# Each may meet what it makes: files of the first two versions do not say which of these they have.
_STEPS: tuple[tuple[int, Callable[[sqlite3.Connection], None]], ...] = (
    (1, _streams_and_sessions),
    (2, lambda connection: _run(connection, _GONE)),
    (3, lambda connection: _run(connection, _KEYS_AND_COUNTS)),
)
