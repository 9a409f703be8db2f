"""The counts in the store's file: tables of their own, on a connection of their own.

In: what has been counted. Out: what others have. Any thread, one at a time. Must not: be called from the loop.
"""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edge.policy.counters import KEPT_DAYS, Account, Changed, Used, day_of, days_before
from edge.policy.limits import Kind
from edge.policy.windows import WINDOW_S, slot_of
from edge.store.base import StoreDown, Unusable
from edge.store.sqlite_counters import Kept

RETENTION_DAYS = 400  # of usage in the file: a year and a month
_TABLES = """
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
INSERT OR IGNORE INTO counted VALUES (1, 0)"""
_USE = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt = prompt + excluded.prompt, completion = completion + excluded.completion"""
_FILL = """
INSERT INTO windows VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"""


def read_usage(connection: sqlite3.Connection, first: str) -> dict[Account, Used]:
    """What was used from this day on, by whom; nothing where nobody has counted in this file yet."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'usage'").fetchone() is None:
        return {}
    rows = connection.execute(
        "SELECT day, principal, rule, requests, prompt, completion FROM usage WHERE day >= ?", (first,)
    )
    return {Account(day, principal, rule): Used(*used) for day, principal, rule, *used in rows}


class CountFile:
    """The file.

    Args:
        connect: Opens it for writing, in any thread; raises ``sqlite3.Error``, ``OSError`` or ``Unusable``.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._version = -1  # of the file, as it was left here

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._connection
            if connection is None:
                connection = self._connection = self._connected()
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException as error:
                self._connection = None  # what is wrong may be this connection
                connection.close()  # which rolls back
                if isinstance(error, sqlite3.Error):
                    raise StoreDown(str(error)) from None
                raise

    def _connected(self) -> sqlite3.Connection:
        try:
            connection = self._connect()
        except (sqlite3.Error, OSError, Unusable) as error:
            raise StoreDown(str(error)) from None
        try:
            for statement in _TABLES.split(";\n"):
                connection.execute(statement)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.Error):
                raise StoreDown(str(error)) from None
            raise
        return connection

    def write(self, changed: Changed, now: float) -> Kept | None:
        """Add the differences; what is in the file then, if others have written there. Raises ``StoreDown``."""
        with self._transaction() as connection:
            (version,) = connection.execute("SELECT version FROM counted").fetchone()
            connection.executemany(
                _USE,
                [
                    (account.day, account.principal, account.rule, used.requests, used.prompt, used.completion)
                    for account, used in changed.usage.items()
                ],
            )
            connection.executemany(_FILL, [(*slot, amount) for slot, amount in changed.slots.items() if amount])
            if version == self._version:
                kept = None
            else:
                kept = self._read(connection, now)
                connection.execute("DELETE FROM usage WHERE day < ?", (days_before(now, RETENTION_DAYS),))
            connection.execute("DELETE FROM windows WHERE amount <= 0 OR abs(? - slot) > ?", (slot_of(now), WINDOW_S))
            connection.execute("UPDATE counted SET version = ?", (version + 1,))
        self._version = version + 1
        return kept

    def _read(self, connection: sqlite3.Connection, now: float) -> Kept:
        since = min(days_before(now, KEPT_DAYS), f"{day_of(now)[:7]}-01")
        slots = connection.execute("SELECT scope, kind, slot, amount FROM windows")
        return Kept(
            read_usage(connection, since),
            {(scope, Kind(kind), slot): amount for scope, kind, slot, amount in slots},
        )

    def usage(self, first: str) -> dict[Account, Used]:
        """See ``read_usage``; raises ``StoreDown``."""
        with self._transaction() as connection:
            return read_usage(connection, first)

    def close(self) -> None:
        """Let go of it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
