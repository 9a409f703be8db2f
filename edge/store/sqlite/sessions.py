"""Conversations in the file, which all processes that share it see.

In: turns. Out: what ``ports.SessionStore`` promises. Must not: let two processes' pairs overwrite each other: each is
added in one transaction.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from typing_extensions import override

from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.ports import RENEW_S, Conversation, Durable, InDoubt, StoreDown, Turn, within
from edge.store.sqlite.batcher import SqliteFile
from edge.store.sqlite.worker import Part

_SWEPT = 500  # sessions that one transaction deletes, at most

_TURN = 4  # what this version knows of one; a later one may know more

Key = tuple[str, str]  # principal and session
Kept = Sequence[Any]  # a turn as it is in the file: role, content, at, partial


class SqliteSessions(Durable, Part):
    """A ``ports.SessionStore`` in ``file``."""

    def __init__(self, file: SqliteFile, bounds: SessionSettings) -> None:
        self._file = file
        self._bounds = bounds
        self._claimed: set[Key] = set()
        self._in_doubt: dict[Key, tuple[Turn, Turn]] = {}  # what may be there already, if it is appended again
        file.join(self)

    def __repr__(self) -> str:
        return f"<SqliteSessions {len(self._claimed)} claimed, in {self._file!r}>"

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force; what is over them goes when it is next asked for, or the next turn is kept."""
        self._bounds = settings.sessions

    @override
    async def read(self, principal: str, session: str) -> Conversation | None:
        return await self._file.read(lambda connection: self._found(connection, (principal, session)), None)

    @override
    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        key = (principal, session)
        tried = self._in_doubt.pop(key, None) == (question, answer)

        def add(connection: sqlite3.Connection) -> None:
            nonlocal tried
            if not (tried and self._ends_with(connection, key, question, answer)):
                self._append(connection, key, question, answer)
            tried = True  # and maybe brought over, if the file is taken away now, and this is asked for again

        try:
            await self._file.change(add)
        except StoreDown as error:
            if tried or isinstance(error, InDoubt):
                self._in_doubt[key] = (question, answer)
            raise

    @override
    async def delete(self, principal: str, session: str) -> bool:
        if await self.read(principal, session) is None:
            return False
        return await self._file.change(lambda connection: self._delete(connection, (principal, session)))

    @override
    async def claim(self, principal: str, session: str) -> bool:
        key = (principal, session)
        self._claimed.add(key)  # before it is there, so that the lease is renewed from then on
        claimed = False
        try:
            claimed = await self._file.change(lambda connection: self._claim(connection, key))
        except (asyncio.CancelledError, InDoubt):
            self._yield_up(key)  # it may be there by now
            raise
        finally:
            if not claimed:
                self._claimed.discard(key)
        self._file.want(RENEW_S)
        return claimed

    @override
    async def yield_up(self, principal: str, session: str) -> None:
        """If the store is down, it is done as soon as it is back."""
        self._claimed.discard((principal, session))
        self._yield_up((principal, session))
        await self._file.flush()

    @override
    async def close(self) -> None:
        self._claimed.clear()
        await self._file.leave(self)

    # --- a part of the file -------------------------------------------------------------------------------------

    @property
    @override
    def interval_s(self) -> float | None:
        return RENEW_S if self._claimed else None

    @override
    def next_task(self) -> None:
        """What is written here is waited for."""

    @staticmethod
    @override
    def look(_connection: sqlite3.Connection) -> Callable[[], None]:
        """Nobody waits for a session of another process."""
        return lambda: None

    @override
    def sweep(self, connection: sqlite3.Connection, now: float, _gone: dict[str, float]) -> bool:
        swept = connection.execute(
            "DELETE FROM sessions WHERE number IN (SELECT number FROM sessions WHERE updated < ? LIMIT ?)",
            (now - self._bounds.max_age_s, _SWEPT),
        )
        return swept.rowcount == _SWEPT

    @override
    def leave(self, connection: sqlite3.Connection, _now: float) -> None:
        connection.execute("DELETE FROM claims WHERE owner = ?", (self._file.lease.owner,))

    # --- in the threads -----------------------------------------------------------------------------------------

    def _found(self, connection: sqlite3.Connection, key: Key) -> Conversation | None:
        row = self._row(connection, key)
        if row is None:
            return None
        created, updated, kept = row
        turns = within(tuple(map(_turn, kept)), self._bounds, self._file.lease.now())
        return Conversation(turns, created, updated) if turns else None

    @staticmethod
    def _row(connection: sqlite3.Connection, key: Key) -> tuple[float, float, list[Kept]] | None:
        row = connection.execute(
            "SELECT created, updated, turns FROM sessions WHERE principal = ? AND session = ?", key
        ).fetchone()
        return None if row is None else (row[0], row[1], orjson.loads(row[2]))

    def _append(self, connection: sqlite3.Connection, key: Key, question: Turn, answer: Turn) -> None:
        row = self._row(connection, key)
        kept = [] if row is None else row[2]
        pair = [(turn.role, turn.content, turn.at, turn.partial) for turn in (question, answer)]
        every = [*kept, *pair]
        turns = within(tuple(map(_turn, every)), self._bounds, self._file.lease.now())
        still = within(tuple(map(_turn, kept)), self._bounds, self._file.lease.now())
        created = row[0] if row is not None and still else question.at
        # As they are in the file: a later version may say more of a turn. A new number each time: they are in the order
        # of use.
        text = orjson.dumps(every[len(every) - len(turns) :])
        connection.execute(
            "INSERT OR REPLACE INTO sessions (principal, session, created, updated, turns) VALUES (?, ?, ?, ?, ?)",
            (*key, created, answer.at, text),
        )
        connection.execute(
            "DELETE FROM sessions WHERE number <= (SELECT number FROM sessions ORDER BY number DESC LIMIT 1 OFFSET ?)",
            (self._bounds.max_sessions,),
        )

    def _ends_with(self, connection: sqlite3.Connection, key: Key, *pair: Turn) -> bool:
        row = self._row(connection, key)
        return row is not None and tuple(map(_turn, row[2][-2:])) == pair

    def _delete(self, connection: sqlite3.Connection, key: Key) -> bool:
        found = self._found(connection, key) is not None
        connection.execute("DELETE FROM sessions WHERE principal = ? AND session = ?", key)
        return found

    def _claim(self, connection: sqlite3.Connection, key: Key) -> bool:
        lease = self._file.lease
        now = lease.now()
        held = connection.execute(
            "SELECT owner, renewed FROM claims LEFT JOIN owners ON id = owner WHERE principal = ? AND session = ?", key
        ).fetchone()
        if held is not None and held[0] != lease.owner and not lease.lapsed(held[1], now):
            return False
        if lease.due:
            lease.renew(connection, now)
        connection.execute(
            "INSERT OR REPLACE INTO claims (principal, session, owner) VALUES (?, ?, ?)", (*key, lease.owner)
        )
        return True

    def _yield_up(self, key: Key) -> None:
        owner = self._file.lease.owner

        def delete(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM claims WHERE principal = ? AND session = ? AND owner = ?", (*key, owner))

        self._file.after_commit(delete)


def _turn(kept: Kept) -> Turn:
    return Turn(*kept[:_TURN])
