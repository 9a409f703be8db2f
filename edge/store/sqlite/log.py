"""One stream that is generated here, on its way into the file.

In: events, and the end. Out: rows, batch by batch. Must not: hold what is written (but for the bounds of what is kept),
or wait.
"""

import asyncio
import json
import sqlite3
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
from typing_extensions import override

from edge.store.ports import Ending, StreamLog, StreamMeta, StreamState, Stretch
from edge.store.sqlite.worker import WriteTask

_ROW_BYTES = 65536  # that a batch's events of a stream are joined into
_MARKS = 16  # of what is kept of a stream, this part goes at once


class Mark:
    """A part of what is kept, which goes at once: its last sequence, its size, and its rows in the file."""

    __slots__ = ("last", "rows", "size")

    def __init__(self) -> None:
        self.last = 0
        self.size = 0
        self.rows = array("Q")


class Row:
    """Events that become one row."""

    __slots__ = ("count", "last", "mark", "parts", "size")

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.parts: list[bytes] = []
        self.last = 0
        self.count = 0
        self.size = 0


@dataclass(slots=True)
class Piece:
    """What is to be written of a stream in one batch; all as of then.

    Attributes:
        number: In the file; set once it has one.
        tail: Its last row in the file; after the batch, as it is then.
        gone: Rows that are no longer kept.
        ids: Of the rows; set by the batch.
    """

    log: "Log"
    number: int | None
    rows: list[Row]
    first: int
    last: int
    size: int
    tail: int
    ending: str | None
    at: float | None
    reconnections: int
    gone: "array[int]"
    ids: range = range(0)


class Owner:
    """Who has the logs."""

    __slots__ = ()

    def grown(self, log: "Log", size: int) -> None:
        """So many bytes more are to be written; or less, if negative."""
        raise NotImplementedError

    def dirty(self, log: "Log") -> None:
        """There is something to be written."""
        raise NotImplementedError

    def forsake(self, log: "Log") -> None:
        """It ended, but is not kept."""
        raise NotImplementedError


class Log(StreamLog):
    """A ``ports.StreamLog``."""

    def __init__(self, owner: Owner, meta: StreamMeta) -> None:
        self.meta = meta
        self.number: int | None = None  # in the file, once it is there
        self.first = 1
        self.last = 0
        self.size = 0
        self.ending: Ending | None = None
        self.upstream: str | None = None
        self.reconnections = 0  # past the store
        self.settled: Callable[[bool], None] | None = None
        self.lost = False  # it can not be kept
        self.dirty = True
        self.stop_told = False
        self.waiting: set[asyncio.Future[None]] = set()
        self._owner = owner
        self._row_bytes = min(_ROW_BYTES, meta.keep_bytes // _MARKS)
        self._marks: deque[Mark] = deque()
        self._tail = 0
        self._row: Row | None = None  # the last of those to be written, while it may grow
        self._rows: list[Row] = []
        self._writing: list[Row] = []
        self._gone = array("Q")

    @override
    def append(self, data: bytes, count: int) -> None:
        self.last += count
        size = len(data)
        self.size += size
        if self.lost:
            self.first, self.size = self.last + 1, 0
            self.wake()
            return
        mark = self._marks[-1] if self._marks else None
        if mark is None or mark.size + size > self._row_bytes:
            mark = Mark()
            self._marks.append(mark)
            self._row = None
        mark.last = self.last
        mark.size += size
        row = self._row
        if row is None:
            row = self._row = Row(mark)
            self._rows.append(row)
        row.parts.append(data)
        row.last = self.last
        row.count += count
        row.size += size
        if self.size > self.meta.keep_bytes:
            self._trim()
        if not self.dirty:
            self._now_dirty()
        if self.waiting:
            self.wake()
        self._owner.grown(self, size)

    @override
    def end(self, ending: Ending, upstream: str | None, reconnections: int, settled: Callable[[bool], None]) -> None:
        self.ending = ending
        self.upstream = upstream
        self.reconnections = reconnections
        self.settled = settled
        self.wake()
        if self.lost:
            self._owner.forsake(self)
        elif not self.dirty:
            self._now_dirty()

    def settle(self, *, kept: bool) -> None:
        """Tell how it ended, once."""
        settled, self.settled = self.settled, None
        if settled is not None:
            settled(kept)

    def wake(self) -> None:
        """There is more, or the end."""
        for waiting in self.waiting:
            if not waiting.done():
                waiting.set_result(None)

    def state(self, written: StreamState | None) -> StreamState:
        """As it is now, and maybe not in the file yet; ``written``: as it is there."""
        reconnections = 0 if written is None else written.reconnections
        if written is None or written.ending != self.ending:
            reconnections += self.reconnections
        return StreamState(
            self.meta, self.first, self.last, self.size, True, self.ending, self.upstream, reconnections
        )  # fmt: skip

    def tail(self, after: int, most: int) -> list[Stretch] | None:
        """What follows ``after``, if that is not all in the file yet; None if some of it is there only."""
        rows = self._writing + self._rows
        if not rows:
            return [] if after >= self.last else None
        if after < rows[0].last - rows[0].count:
            return None
        at = bisect_right(rows, after, key=lambda row: row.last)
        taken: list[Stretch] = []
        size = 0
        while at < len(rows) and size < most:
            row = rows[at]
            taken.append(Stretch(b"".join(row.parts), row.last, row.count))
            size += row.size
            at += 1
        return taken

    def lose(self) -> "array[int]":
        """Give up keeping it; rows that are still in the file, but are not its any more."""
        self.lost = True
        self.first, self.size = self.last + 1, 0
        self._marks.clear()
        self._drop(len(self._writing), len(self._rows))
        gone, self._gone = self._gone, array("Q")
        return gone

    def next_piece(self) -> Piece:
        """What is to be written now; ``wrote`` or ``failed`` follows."""
        self.dirty = False
        self._writing, self._rows, self._row = self._rows, [], None
        gone, self._gone = self._gone, array("Q")
        ending = self.ending
        return Piece(
            self,
            self.number,
            self._writing,
            self.first,
            self.last,
            self.size,
            self._tail,
            None if ending is None else ending_text(ending, self.upstream),
            None if ending is None else ending.at,
            self.reconnections,
            gone,
        )

    def wrote(self, piece: Piece) -> None:
        """A piece is in the file."""
        self.number = piece.number
        self._tail = piece.tail
        for row, row_id in zip(piece.rows, piece.ids, strict=True):
            (row.mark.rows if row.last >= self.first else self._gone).append(row_id)
        self._drop(len(self._writing), 0)

    def failed(self, piece: Piece) -> None:
        """A piece is not in the file; so it is for the next."""
        self._rows = self._writing + self._rows
        self._writing = []
        self._gone = piece.gone + self._gone
        if not self.dirty:
            self._now_dirty()

    def _now_dirty(self) -> None:
        self.dirty = True
        self._owner.dirty(self)

    def _trim(self) -> None:
        """Let go of the oldest events over the bound."""
        marks = self._marks
        while self.size > self.meta.keep_bytes and len(marks) > 1:
            mark = marks.popleft()
            self.first = mark.last + 1
            self.size -= mark.size
            self._gone += mark.rows
        # Rows end where marks do. Those that are being written go with the batch after.
        self._drop(0, bisect_right(self._rows, self.first - 1, key=lambda row: row.last))

    def _drop(self, writing: int, rows: int) -> None:
        size = sum(row.size for row in self._writing[:writing]) + sum(row.size for row in self._rows[:rows])
        # New lists: the writer's thread may be reading the old ones.
        self._writing, self._rows = self._writing[writing:], self._rows[rows:]
        if not self._rows:
            self._row = None
        if size:
            self._owner.grown(self, -size)


class Batch(WriteTask):
    """The pieces of all streams in one round: a ``worker.WriteTask``."""

    def __init__(self, owner: str, pieces: Sequence[Piece], fields: Callable[["Batch"], None]) -> None:
        self.pieces = pieces
        self.kept: set[int] = set()  # numbers of streams that are still in the file
        self.written = False
        self._owner = owner
        self._told = fields

    @override
    def done(self) -> None:
        self.written = True
        self._told(self)

    @override
    def failed(self) -> None:
        self._told(self)

    @override
    def write(self, connection: sqlite3.Connection, _now: float) -> None:
        # A statement for all rows, as each gives up the interpreter's lock: beside a busy loop it takes 5 ms until a
        # thread has it back.
        for piece in self.pieces:
            if piece.number is None:
                piece.number = self._insert(connection, piece.log.meta)
        self._put(connection)
        states = [(p.number, p.log.meta.id, p.first, p.last, p.size, p.tail) for p in self.pieces]
        updated = connection.execute(_UPDATE, (_json(states),))
        self.kept = {piece.number for piece in self.pieces if piece.number is not None}
        if updated.rowcount < len(self.pieces):  # somebody deleted one, or the file
            self.kept &= {number for (number,) in connection.execute(_THERE, (_json(states),)).fetchall()}
        endings = [
            (p.at, p.ending, p.reconnections, p.number, p.log.meta.id) for p in self.pieces if p.ending is not None
        ]
        connection.executemany(_END, endings)
        gone = [row for piece in self.pieces for row in piece.gone]
        if gone:
            connection.execute("DELETE FROM events WHERE id IN (SELECT value FROM json_each(?))", (_json(gone),))

    def _put(self, connection: sqlite3.Connection) -> None:
        """Write the rows."""
        (following,) = connection.execute("SELECT ifnull(max(id), 0) + 1 FROM events").fetchone()
        data: list[bytes] = []
        rows: list[tuple[int, int, int, int, int, int]] = []
        at = 1
        for piece in self.pieces:
            piece.ids = range(following, following + len(piece.rows))
            for row_id, row in zip(piece.ids, piece.rows, strict=True):
                data += row.parts
                rows.append((row_id, piece.tail, row.last, row.count, at, row.size))
                at += row.size
                piece.tail = row_id
            following = piece.ids.stop
        if rows:
            connection.execute(_INSERT_EVENTS, (b"".join(data), _json(rows)))

    def _insert(self, connection: sqlite3.Connection, meta: StreamMeta) -> int | None:
        values = (meta.id, meta.principal, meta.surface, meta.model, meta.session, meta.request_id, meta.created)
        try:
            rows = connection.execute(_INSERT_STREAM, (*values, meta.keep_bytes, self._owner)).fetchall()
        except UnicodeEncodeError:  # what is no text cannot be kept; the others are not to suffer
            return None
        return rows[0][0] if rows else None


def ending_text(ending: Ending, upstream: str | None) -> str:
    """As it is in the file."""
    # The standard library's, which can write any string.
    return json.dumps((ending.outcome, ending.clean, ending.at, ending.status, ending.error, upstream))


def ending_of(text: str) -> tuple[Ending, str | None]:
    """Its opposite; with the upstream."""
    outcome, clean, at, status, error, upstream, *_ = json.loads(text)  # a later version may say more
    return Ending(outcome, clean, at, status, None if error is None else (error[0], error[1], error[2])), upstream


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


_INSERT_STREAM = """
INSERT INTO streams (id, principal, surface, model, session, request_id, created, keep_bytes, owner)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET owner = excluded.owner WHERE owner = excluded.owner RETURNING number
"""
_UPDATE = """
UPDATE streams SET first = json_extract(value, '$[2]'), last = json_extract(value, '$[3]'),
    size = json_extract(value, '$[4]'), tail = json_extract(value, '$[5]')
FROM json_each(?) WHERE streams.number = json_extract(value, '$[0]') AND streams.id = json_extract(value, '$[1]')
"""
_THERE = """
SELECT number FROM streams, json_each(?)
WHERE streams.number = json_extract(value, '$[0]') AND streams.id = json_extract(value, '$[1]')
"""
_END = """
UPDATE streams SET ended = ?, ending = ?, lost = 0, reconnections = reconnections + ? WHERE number = ? AND id = ?
"""
_INSERT_EVENTS = """
INSERT INTO events (id, before, last, count, data) SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'),
    json_extract(value, '$[2]'), json_extract(value, '$[3]'),
    substr(?1, json_extract(value, '$[4]'), json_extract(value, '$[5]')) FROM json_each(?2)
"""
