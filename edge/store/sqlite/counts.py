"""What is counted, in the tables of the store's file.

In: a connection, in a transaction. Out: what has been counted, by this process and by others. Must not: be called from
the loop.
"""

import sqlite3

from edge.policy.limits.counters import KEPT_DAYS, Account, Changed, Slot, Used, day_of, days_before
from edge.policy.limits.rules import Kind
from edge.policy.limits.windows import WINDOW_S, slot_of
from edge.store.sqlite.counters import Kept

RETENTION_DAYS = 400  # of usage in the file: a year and a month
_USE = """
INSERT INTO usage (day, principal, rule, requests, prompt, completion) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests, prompt = prompt + excluded.prompt,
    completion = completion + excluded.completion"""
_FILL = """
INSERT INTO windows (scope, kind, slot, amount) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET amount = amount + excluded.amount"""
_KINDS = frozenset(Kind)


def read_usage(connection: sqlite3.Connection, first: str) -> dict[Account, Used]:
    """What was used from this day on, by whom."""
    rows = connection.execute(
        "SELECT day, principal, rule, requests, prompt, completion FROM usage WHERE day >= ?", (first,)
    )
    return {Account(day, principal, rule): Used(*used) for day, principal, rule, *used in rows}


def write_counts(connection: sqlite3.Connection, changed: Changed, known: int, now: float) -> tuple[int, Kept | None]:
    """Add the differences. ``known`` is the version that the last call returned; -1 at first.

    Returns:
        The version of what is in the file now, and all of it if others have written there since ``known``.
    """
    (version,) = connection.execute("SELECT version FROM counted").fetchone()
    connection.executemany(
        _USE,
        [
            (account.day, account.principal, account.rule, used.requests, used.prompt, used.completion)
            for account, used in changed.usage.items()
        ],
    )
    connection.executemany(_FILL, [(*slot, amount) for slot, amount in changed.slots.items() if amount])
    if version == known:
        kept = None
    else:
        kept = _read(connection, now)
        connection.execute("DELETE FROM usage WHERE day < ?", (days_before(now, RETENTION_DAYS),))
    connection.execute("DELETE FROM windows WHERE amount <= 0 OR abs(? - slot) > ?", (slot_of(now), WINDOW_S))
    connection.execute("UPDATE counted SET version = ?", (version + 1,))
    return version + 1, kept


def _read(connection: sqlite3.Connection, now: float) -> Kept:
    since = min(days_before(now, KEPT_DAYS), f"{day_of(now)[:7]}-01")
    rows = connection.execute("SELECT scope, kind, slot, amount FROM windows").fetchall()
    # A later version may count more kinds in the same file.
    slots: dict[Slot, int] = {(scope, Kind(kind), slot): amount for scope, kind, slot, amount in rows if kind in _KINDS}
    return Kept(read_usage(connection, since), slots)
