"""What is asked of the file about streams, and taken out of it.

In: a connection, in a transaction. Out: streams as they are now, those of processes that are gone as ended. Must not:
run on the loop.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from edge.store.ports import LEASE_S, REMEMBERED, Dropped, StreamMeta, StreamState, Stretch, lost
from edge.store.sqlite.lease import Lease
from edge.store.sqlite.log import ending_of, ending_text

# What one transaction deletes, at most: others wait for it.
_CHUNK_STREAMS = 500
_CHUNK_BYTES = 64 * 2**20

MOST_GONE = 100_000  # streams that are remembered without their events: about 40 MB
_CHUNK_GONE = 2000  # of those, which one transaction forgets

_SIZES = "SELECT number, tail, first, size FROM streams"
_COLUMNS = """
SELECT streams.id, principal, surface, model, session, request_id, created, keep_bytes,
    number, owner, tail, first, last, size, reconnections, ended, ending,
    (SELECT renewed FROM owners WHERE owners.id = owner)
"""
_STREAM = f"{_COLUMNS} FROM streams"
# Joined so that each is looked up by its id, whatever SQLite thinks of the index by principal.
_STREAMS = f"{_COLUMNS} FROM json_each(?) AS wanted CROSS JOIN streams ON streams.id = wanted.value WHERE principal = ?"


@dataclass(frozen=True, slots=True)
class Found:
    """A stream in the file; ``tail`` is its last row of events."""

    number: int
    tail: int
    state: StreamState


class Tables:
    """The tables, as the process with this lease sees them."""

    def __init__(self, lease: Lease) -> None:
        self._lease = lease

    def find(self, connection: sqlite3.Connection, stream_id: str, keep_s: float) -> Found | None:
        """A stream, unless it has expired."""
        found, now = self._find(connection, stream_id)
        return None if found is None or _ended_before(found, now - keep_s) else found

    def recall(self, connection: sqlite3.Connection, stream_id: str, keep_s: float) -> StreamState | None:
        """A stream, or that it was there: see ``StreamState.gone``."""
        found, now = self._find(connection, stream_id)
        if found is None:
            row = connection.execute(_RECALL, (stream_id, now - REMEMBERED * keep_s)).fetchone()
            return None if row is None else self._remembered(row)
        return _recalled(found, now, keep_s)

    def recall_all(
        self, connection: sqlite3.Connection, principal: str, stream_ids: Sequence[str], keep_s: float
    ) -> dict[str, StreamState]:
        """``recall`` of those of these streams that are this principal's, by two statements however many they are."""
        now, ids = self._lease.now(), orjson.dumps(stream_ids).decode()
        rows = connection.execute(_RECALL_ALL, (ids, principal, now - REMEMBERED * keep_s)).fetchall()
        states = [self._remembered(row) for row in rows]
        states += [
            state
            for row in connection.execute(_STREAMS, (ids, principal)).fetchall()
            if (state := _recalled(self._found(row, now), now, keep_s)) is not None
        ]
        return {state.meta.id: state for state in states}

    def streams(self, connection: sqlite3.Connection, principal: str | None, most: int, keep_s: float) -> list[Found]:
        """The latest ``most`` of a principal, or of all; the latest first."""
        now = self._lease.now()
        whose, values = ("", ()) if principal is None else ("principal = ? AND", (principal,))
        rows = connection.execute(
            f"{_STREAM} WHERE {whose} ifnull(ended, ?) >= ? ORDER BY created DESC, number DESC LIMIT ?",
            (*values, now, now - keep_s, most),
        ).fetchall()
        every = [self._found(row, now) for row in rows]
        return [found for found in every if not _ended_before(found, now - keep_s)]

    def read(
        self, connection: sqlite3.Connection, stream_id: str, after: int, most: int, keep_s: float
    ) -> list[Stretch]:
        """See ``ports.StreamStore``; as one stretch.

        Raises:
            Dropped: it is not there.
        """
        found = self.find(connection, stream_id, keep_s)
        if found is None or after + 1 < found.state.first:
            raise _dropped(stream_id, after)
        if after >= found.state.last:
            return []
        # Joined by SQLite: see ``Batch.write`` on what a row costs. As hexadecimal digits, since it joins only text.
        after = max(after, found.state.first - 1)
        digits, count, last = connection.execute(_JOINED, (found.tail, after, most)).fetchone()
        if not digits:
            raise _dropped(stream_id, after)
        return [Stretch(bytes.fromhex(digits), last, count)]

    def lasts(self, connection: sqlite3.Connection, stream_ids: set[str]) -> dict[str, float]:
        """The last sequence of each that is there; infinite if it has ended."""
        rows = connection.execute(
            "SELECT streams.id, CASE WHEN ended IS NULL THEN last ELSE 9e999 END FROM streams, json_each(?)"
            " WHERE streams.id = value",
            (orjson.dumps(sorted(stream_ids)).decode(),),
        )
        return dict(rows.fetchall())

    def forget(self, connection: sqlite3.Connection, stream_id: str, keep_s: float) -> bool:
        """Delete a stream that has ended, and that it was there; whether it had not expired."""
        connection.execute("DELETE FROM gone WHERE id = ?", (stream_id,))
        found, now = self._find(connection, stream_id)
        if found is None or found.state.ending is None:
            return False
        _delete(connection, [(found.number, found.tail, found.state.first)])
        return not _ended_before(found, now - keep_s)

    def forget_gone(self, connection: sqlite3.Connection, keep_s: float) -> bool:
        """Forget some of those whose events had to go long ago; whether there may be more."""
        forgotten = connection.execute(_FORGET_GONE, (self._lease.now() - REMEMBERED * keep_s, _CHUNK_GONE))
        return forgotten.rowcount == _CHUNK_GONE

    def discard(self, connection: sqlite3.Connection, stream_id: str, rows_besides: Iterable[int]) -> None:
        """Delete a stream of this process, live or not, and rows that are not its any more."""
        connection.executemany("DELETE FROM events WHERE id = ?", [(row,) for row in rows_besides])
        rows = connection.execute(
            "SELECT number, tail, first FROM streams WHERE id = ? AND owner = ?", (stream_id, self._lease.owner)
        )
        _delete(connection, rows.fetchall())

    def came_back(self, connection: sqlite3.Connection, stream_ids: Sequence[str], keep_s: float) -> dict[str, int]:
        """See ``ports.StreamStore.came_back_all``."""
        rows = connection.execute(
            "UPDATE streams SET reconnections = reconnections + 1"
            " WHERE id IN (SELECT value FROM json_each(?)) AND ifnull(ended, ?) >= ? RETURNING id, reconnections",
            (orjson.dumps(stream_ids).decode(), self._lease.now(), self._lease.now() - keep_s),
        )
        return dict(rows.fetchall())

    def ask_to_stop(self, connection: sqlite3.Connection, stream_id: str) -> None:
        """Leave a word for the owner."""
        connection.execute("UPDATE streams SET stop = 1 WHERE id = ? AND ended IS NULL", (stream_id,))

    def asked_to_stop(self, connection: sqlite3.Connection) -> list[str]:
        """Which streams of this process are to be stopped."""
        rows = connection.execute(
            "SELECT id FROM streams WHERE owner = ? AND stop = 1 AND ended IS NULL", (self._lease.owner,)
        )
        return [stream_id for (stream_id,) in rows.fetchall()]

    def end_lost(self, connection: sqlite3.Connection, gone: dict[str, float]) -> None:
        """End the live streams of these owners, each as of then."""
        for owner, at in gone.items():
            connection.execute(
                "UPDATE streams SET ended = ?, ending = ?, lost = 1 WHERE owner = ? AND ended IS NULL",
                (at, ending_text(lost(at), None), owner),
            )

    def delete_ended(self, connection: sqlite3.Connection, before: float) -> tuple[int, bool]:
        """Delete some of what ended before; how many, and whether there may be more."""
        rows = connection.execute(
            f"{_SIZES} WHERE ended < ? ORDER BY ended LIMIT ?",
            (before, _CHUNK_STREAMS),
        )
        return _delete_some(connection, rows, _CHUNK_BYTES)

    def shrink(self, connection: sqlite3.Connection, most_bytes: int) -> bool:
        """Delete some of what ended first, if all is more than that; whether it still is."""
        (total,) = connection.execute("SELECT ifnull(sum(size), 0) FROM streams").fetchone()
        if total <= most_bytes:
            return False
        rows = connection.execute(
            f"{_SIZES} WHERE ended IS NOT NULL ORDER BY ended LIMIT ?",
            (_CHUNK_STREAMS,),
        )
        _, more = _delete_some(connection, rows, min(total - most_bytes, _CHUNK_BYTES))
        return more and total - most_bytes > _CHUNK_BYTES

    def count(self, connection: sqlite3.Connection, keep_s: float) -> tuple[int, int, int, int]:
        """Streams, live ones, bytes of both, and sessions."""
        now = self._lease.now()
        streams, size = connection.execute(
            "SELECT count(*), ifnull(sum(size), 0) FROM streams WHERE ifnull(ended, ?) >= ?", (now, now - keep_s)
        ).fetchone()
        owners = connection.execute(
            "SELECT renewed, count(*), owner FROM streams LEFT JOIN owners ON owners.id = owner WHERE ended IS NULL"
            " GROUP BY owner"
        ).fetchall()
        live = sum(n for renewed, n, owner in owners if not self._is_gone(owner, renewed, now))
        (sessions,) = connection.execute("SELECT count(*) FROM sessions").fetchone()
        return streams, live, size, sessions

    def _is_gone(self, owner: str, renewed: float | None, now: float) -> bool:
        return owner != self._lease.owner and self._lease.lapsed(renewed, now)

    def _find(self, connection: sqlite3.Connection, stream_id: str) -> tuple[Found | None, float]:
        """A stream, however old; and what time it is."""
        now = self._lease.now()
        row = connection.execute(f"{_STREAM} WHERE id = ?", (stream_id,)).fetchone()
        return (None if row is None else self._found(row, now)), now

    def _found(self, row: tuple[Any, ...], now: float) -> Found:
        number, owner, tail, first, last, size, reconnections, ended, text, renewed = row[8:]
        ending, upstream = (None, None) if ended is None else ending_of(text)
        if ending is None and self._is_gone(owner, renewed, now):
            ending = lost(now if renewed is None else renewed + LEASE_S)
        here = owner == self._lease.owner
        meta = StreamMeta(*row[:8])
        return Found(number, tail, StreamState(meta, first, last, size, here, ending, upstream, reconnections))

    def _remembered(self, row: tuple[Any, ...]) -> StreamState:
        owner, last, reconnections, text = row[8:]
        ending, upstream = ending_of(text)
        here = owner == self._lease.owner
        return StreamState(StreamMeta(*row[:8]), last + 1, last, 0, here, ending, upstream, reconnections)


def _ended_before(found: Found, at: float) -> bool:
    return found.state.ending is not None and found.state.ending.at < at


def _recalled(found: Found, now: float, keep_s: float) -> StreamState | None:
    """What is still known of a stream: nothing, if it was there long ago; that it was; or all."""
    if _ended_before(found, now - REMEMBERED * keep_s):
        return None
    if _ended_before(found, now - keep_s):  # it is deleted soon
        return replace(found.state, first=found.state.last + 1, size=0)
    return found.state


def _delete_some(
    connection: sqlite3.Connection, rows: Iterable[tuple[int, int, int, int]], enough: int
) -> tuple[int, bool]:
    """Delete streams of ``rows`` (as for ``_delete``, and the size) until that was enough; how many, and if it was.

    That they were there is remembered.
    """
    streams: list[tuple[int, int, int]] = []
    size = 0
    for *stream, bytes_ in rows:
        streams.append((stream[0], stream[1], stream[2]))
        size += bytes_
        if size >= enough:
            break
    connection.executemany(_REMEMBER, [(number,) for number, _, _ in streams])
    connection.execute("DELETE FROM gone WHERE number <= (SELECT max(number) FROM gone) - ?", (MOST_GONE,))
    _delete(connection, streams)
    return len(streams), size >= enough or len(streams) == _CHUNK_STREAMS


def _delete(connection: sqlite3.Connection, streams: list[tuple[int, int, int]]) -> None:
    """Delete streams: number, tail and first event."""
    connection.executemany(_DELETE_EVENTS, [(tail, first - 1) for _, tail, first in streams])
    connection.executemany("DELETE FROM streams WHERE number = ?", [(number,) for number, _, _ in streams])


def _dropped(stream_id: str, after: int) -> Dropped:
    return Dropped(f"what follows event {after} of {stream_id} is not kept any more")


_WHAT = "id, principal, surface, model, session, request_id, created, keep_bytes, owner, last, reconnections"
_REMEMBER = f"""
INSERT OR REPLACE INTO gone ({_WHAT}, ended, ending)
SELECT {_WHAT}, ended, ending FROM streams WHERE number = ?
"""  # noqa: S608 - of constants
_RECALL = f"SELECT {_WHAT}, ending FROM gone WHERE id = ? AND ended >= ?"  # noqa: S608 - likewise
_RECALL_ALL = f"""
SELECT {_WHAT}, ending FROM gone WHERE id IN (SELECT value FROM json_each(?)) AND principal = ? AND ended >= ?
"""  # noqa: S608 - likewise
_FORGET_GONE = "DELETE FROM gone WHERE number IN (SELECT number FROM gone WHERE ended < ? ORDER BY ended LIMIT ?)"

# The rows from ?1 back to that which holds what follows event ?2.
_CHAIN = """
WITH RECURSIVE chain (id, before, last, count, size) AS (
    SELECT id, before, last, count, length(data) FROM events WHERE id = ?1
    UNION ALL
    SELECT events.id, events.before, events.last, events.count, length(events.data)
    FROM chain JOIN events ON events.id = chain.before WHERE chain.last - chain.count > ?2
)
"""
# The first of them: those that begin within ?3 bytes.
_JOINED = f"""
{_CHAIN}
SELECT group_concat(hex(data), ''), sum(count), max(last) FROM (
    SELECT events.data, events.count, events.last
    FROM (SELECT id, sum(size) OVER (ORDER BY id) - size AS skipped FROM chain) AS w JOIN events ON events.id = w.id
    WHERE w.skipped < ?3 ORDER BY w.id
)
"""  # noqa: S608 - of constants
_DELETE_EVENTS = f"{_CHAIN} DELETE FROM events WHERE id IN (SELECT id FROM chain)"  # noqa: S608 - likewise
