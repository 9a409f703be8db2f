"""Every schema that the store's file ever had, as the versions that had it made it.

In: a path. Out: a file as such a version leaves it, with a session, an ended stream of three events and, where it had
them, a key and a count. Must not: be changed: files like these are on disks.
"""

import contextlib
import sqlite3
import time
from pathlib import Path

import orjson

APPLICATION = 0x45646765
STREAM, SESSION, KEY_ID = "st_" + "f" * 31 + "1", "kept", "0123456789ab"
EVENTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: 3\n\n"]
PRINCIPAL = "a"

FIRST = """
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
    reconnections INTEGER NOT NULL DEFAULT 0,
    stop INTEGER NOT NULL DEFAULT 0,
    ended REAL,
    ending TEXT
);
CREATE INDEX streams_of ON streams (principal, created);
CREATE INDEX streams_latest ON streams (created);
CREATE INDEX streams_ended ON streams (ended) WHERE ended IS NOT NULL;
CREATE INDEX streams_live ON streams (owner, stop) WHERE ended IS NULL;
CREATE TABLE events (key INTEGER PRIMARY KEY, count INTEGER NOT NULL, data BLOB NOT NULL);
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
# Events one after the other, whosever they are.
SECOND = """
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
# What had to go is remembered.
THIRD = """
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
# Made when they were first needed, in files of the last two.
KEYS = """
CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID;
"""
COUNTS = """
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
INSERT OR IGNORE INTO counted VALUES (1, 0);
"""

# By name: ``user_version`` and what was in it.
SCHEMAS = {
    "1, first": (1, FIRST),
    "1": (1, SECOND),
    "1 with keys": (1, SECOND + KEYS),
    "1 with counts": (1, SECOND + COUNTS),
    "1 with both": (1, SECOND + KEYS + COUNTS),
    "2": (2, THIRD),
    "2 with keys": (2, THIRD + KEYS),
    "2 with counts": (2, THIRD + COUNTS),
    "2 with both": (2, THIRD + KEYS + COUNTS),
}


def make_old(path: Path, name: str) -> None:
    """A file as that version leaves it."""
    version, schema = SCHEMAS[name]
    path.parent.mkdir(mode=0o700, exist_ok=True)
    now = time.time()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(schema)
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {version}")
        turns = orjson.dumps([("user", "q", now, False), ("assistant", "r", now, False)])
        session = (PRINCIPAL, SESSION, now, now, turns)
        db.execute("INSERT INTO sessions (principal, session, created, updated, turns) VALUES (?, ?, ?, ?, ?)", session)
        for number, stream in enumerate((STREAM, STREAM[:-1] + "2"), 1):
            ending = f'["complete", true, {now!r}, 200, null, "up"]'
            db.execute(
                "INSERT INTO streams (id, principal, surface, model, session, request_id, created, keep_bytes, owner,"
                " last, size, ended, ending) VALUES (?, ?, 'chat', 'm', NULL, 'req_1', ?, 1000, 'gone', 3, ?, ?, ?)",
                (stream, PRINCIPAL, now, sum(map(len, EVENTS)), now, ending),
            )
            if name == "1, first":
                rows = [((number << 32) + last, data) for last, data in enumerate(EVENTS, 1)]
                db.executemany("INSERT INTO events VALUES (?, 1, ?)", rows)
            else:
                for last, data in enumerate(EVENTS, 1):
                    before = db.execute("SELECT tail FROM streams WHERE id = ?", (stream,)).fetchone()[0]
                    row = db.execute(
                        "INSERT INTO events (before, last, count, data) VALUES (?, ?, 1, ?)", (before, last, data)
                    )
                    db.execute("UPDATE streams SET tail = ? WHERE id = ?", (row.lastrowid, stream))
        if has_keys(name):
            record = {"id": KEY_ID, "name": "alice", "digest": "00", "created": now}
            db.execute("INSERT INTO keys VALUES (?, ?)", (KEY_ID, orjson.dumps(record)))
        if has_counts(name):
            db.execute("INSERT INTO usage VALUES ('2026-11-30', 'alice', '', 2, 30, 40)")
            db.execute("UPDATE counted SET version = 7")
        db.commit()


def has_keys(name: str) -> bool:
    return "keys" in name or "both" in name


def has_counts(name: str) -> bool:
    return "counts" in name or "both" in name
