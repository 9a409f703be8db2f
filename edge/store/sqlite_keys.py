"""Keys in the file that streams and sessions are in too.

In: records. Out: what ``base.KeyStore`` promises. Must not: make the file before there is something to keep, hold it
open, read it again and again while nobody writes to it, import SQLite (2 MB) where there is none, or take a file that
has gone for one in which nobody has put a key.

Keys are read rarely and written by hand, so that each access has a connection of its own, in a thread.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edge.policy.keys import KeyRecord
from edge.store.base import StoreDown, Unusable

if TYPE_CHECKING:
    from sqlite3 import Connection

_LOCKED_S = 2.0  # how long to wait for whoever else writes
# File times are those of the kernel's last tick: what was written just now may be followed by more at the same time.
_SETTLED_NS = 50_000_000
_TABLES = (
    "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, record BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS secrets (name TEXT PRIMARY KEY, secret BLOB NOT NULL) WITHOUT ROWID",
)
# How often keys were changed is a number among the secrets: smaller in a file that has lost keys, or is another.
_EVERY = "SELECT record FROM keys UNION ALL SELECT secret FROM secrets WHERE name = 'keys:changes'"
_CHANGED = "INSERT INTO secrets VALUES ('keys:changes', 1) ON CONFLICT (name) DO UPDATE SET secret = secret + 1"

T = TypeVar("T")


class SqliteKeys:
    """A ``base.KeyStore``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_there = False
        self._latest = 0  # of the numbers of changes that were seen: it only grows, unless keys were lost
        self.place = str(path)

    def __repr__(self) -> str:
        return f"<SqliteKeys {self._path}>"

    async def keys(self) -> list[KeyRecord]:
        """See ``base.KeyStore``."""
        rows = await self._read(_EVERY)
        changes = sum(row[0] for row in rows if isinstance(row[0], int))
        if changes < self._latest:
            raise StoreDown(f"{self._path} has lost the keys that were made; make new ones, and restart Edge")
        self._latest = changes
        records = [msgspec.json.decode(row[0], type=KeyRecord) for row in rows if not isinstance(row[0], int)]
        return sorted(records, key=lambda record: (record.created, record.id))

    async def find(self, key_id: str) -> KeyRecord | None:
        """See ``base.KeyStore``."""
        rows = await self._read("SELECT record FROM keys WHERE id = ?", key_id)
        return msgspec.json.decode(rows[0][0], type=KeyRecord) if rows else None

    async def put(self, record: KeyRecord) -> None:
        """See ``base.KeyStore``."""
        data = msgspec.json.encode(record)
        await self._change(lambda db: db.execute("INSERT OR REPLACE INTO keys VALUES (?, ?)", (record.id, data)))

    async def forget(self, key_id: str) -> bool:
        """See ``base.KeyStore``."""
        return await self._change(lambda db: db.execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount > 0)

    async def mark(self) -> object:
        """See ``base.KeyStore``."""
        written = _written(self._path)
        there = any(name == self._path.name for name, _, _ in written)
        if self._was_there and not there:
            raise StoreDown(f"{self._path} is gone, and the keys in it; if that was meant, restart Edge")
        self._was_there = there
        latest = max((at for _, at, _ in written), default=0)
        return written if time.time_ns() - latest > _SETTLED_NS else None

    async def secret(self, name: str, proposed: bytes) -> bytes:
        """See ``base.KeyStore``."""

        def keep(db: "Connection") -> bytes:
            db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, proposed))
            return bytes(db.execute("SELECT secret FROM secrets WHERE name = ?", (name,)).fetchone()[0])

        return await self._write(keep)

    async def close(self) -> None:
        """See ``base.KeyStore``."""

    async def _read(self, query: str, *values: str) -> list[tuple[Any]]:
        def read() -> list[tuple[Any]]:
            from edge.store.sqlite_file import open_to_read  # noqa: PLC0415 - see the module

            db = open_to_read(self._path, _LOCKED_S)
            if db is None:
                return []
            try:
                if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'keys'").fetchone():
                    return []
                return db.execute(query, values).fetchall()
            finally:
                db.close()

        if not _written(self._path):
            return []
        return await self._tried(read)

    async def _change(self, change: "Callable[[Connection], T]") -> T:
        """``_write``, and count that keys have changed."""

        def changed(db: "Connection") -> T:
            db.execute(_CHANGED)
            return change(db)

        return await self._write(changed)

    async def _write(self, change: "Callable[[Connection], T]") -> T:
        def write() -> T:
            from edge.store.sqlite_file import open_to_write  # noqa: PLC0415 - see the module

            db = open_to_write(self._path, _LOCKED_S)
            try:
                db.execute("BEGIN IMMEDIATE")
                for table in _TABLES:
                    db.execute(table)
                result = change(db)
                db.execute("COMMIT")
                return result
            finally:
                db.close()

        return await self._tried(write)

    async def _tried(self, work: Callable[[], T]) -> T:
        from sqlite3 import Error  # noqa: PLC0415 - see the module

        try:
            return await asyncio.to_thread(work)
        except (Error, OSError, Unusable, msgspec.DecodeError) as error:
            raise StoreDown(f"{self._path}: {error}") from None


def _written(path: Path) -> tuple[tuple[str, int, int], ...]:
    """When the file and its log were last written to, and how long they are; nothing if there are none."""
    found = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = file.stat()
        except OSError:
            continue
        if status.st_size:  # an empty log comes and goes with those who read
            found.append((file.name, status.st_mtime_ns, status.st_size))
    return tuple(found)
