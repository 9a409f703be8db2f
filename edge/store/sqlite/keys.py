"""Keys in the file that streams and sessions are in too.

In: records. Out: what ``ports.KeyStore`` promises. Must not: make the file before there is something to keep, read it
again and again while nobody writes to it, import SQLite (2 MB) where there is none, or take a file that has lost its
keys for one in which nobody has put a key.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec
from typing_extensions import override

from edge.policy.auth.keys import KeyRecord, merged
from edge.store.ports import KeyStore, StoreDown

if TYPE_CHECKING:  # they bring SQLite
    from sqlite3 import Connection

    from edge.store.sqlite.batcher import SqliteFile

# File times are those of the kernel's last tick: what was written just now may be followed by more at the same time.
_SETTLED_NS = 50_000_000

T = TypeVar("T")


class _Contents(NamedTuple):
    """Which file it is, whether keys were lost when it was made, and the records."""

    file_id: str = ""
    keys_lost: bool = False
    records: tuple[bytes, ...] = ()


class SqliteKeys(KeyStore):
    """A ``ports.KeyStore``.

    Args:
        path: Where the file is, or will be.
        opened: The file, when it is needed.
    """

    def __init__(self, path: Path, opened: "Callable[[], SqliteFile]") -> None:
        self._path = path
        self._opened = opened
        self._file: SqliteFile | None = None
        self._judged: object = None  # the mark of the contents that were found to be right
        self._right_in: str | None = None  # the file that ``mark`` found to be right
        self._keys_in: str | None = None  # the last file that keys were seen in
        self.place = str(path)

    def __repr__(self) -> str:
        return f"<SqliteKeys {self._path}>"

    @override
    async def keys(self) -> list[KeyRecord]:
        found = await self._read(_contents, _Contents())
        if self._right_in not in {None, found.file_id}:  # since ``mark``: it is to be asked again
            raise StoreDown(f"{self._path} has just been replaced")
        records = [self._record(data) for data in found.records]
        return sorted(records, key=lambda record: (record.created, record.id))

    @override
    async def find(self, key_id: str) -> KeyRecord | None:

        def look(db: "Connection") -> tuple[bytes] | None:
            found: tuple[bytes] | None = db.execute("SELECT record FROM keys WHERE id = ?", (key_id,)).fetchone()
            return found

        row = await self._read(look, None)
        return None if row is None else self._record(row[0])

    @override
    async def put(self, record: KeyRecord) -> None:
        data = msgspec.json.encode(record)

        def keep(db: "Connection") -> None:
            before = db.execute("SELECT record FROM keys WHERE id = ?", (record.id,)).fetchone()
            kept = data if before is None else merged(bytes(before[0]), data)
            db.execute("INSERT OR REPLACE INTO keys (id, record) VALUES (?, ?)", (record.id, kept))
            db.execute("UPDATE schema_version SET keys_lost = 0 WHERE keys_lost")

        await self._change(keep)

    @override
    async def forget(self, key_id: str) -> bool:
        return await self._change(lambda db: db.execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount > 0)

    @override
    async def mark(self) -> object:
        if self._file is not None:
            await self._file.look()
        written = _written(self._path)
        if not written:
            if self._right_in is not None:
                raise StoreDown(f"{self._path} is gone, and the keys in it; if that was meant, restart Edge")
            return written
        latest = max(at for _, at, _ in written)
        mark = written if time.time_ns() - latest > _SETTLED_NS else None
        if mark is None or mark != self._judged:
            await self._judge()
            self._judged = mark
        return mark

    @override
    async def secret(self, name: str, proposed: bytes) -> bytes:

        def keep(db: "Connection") -> bytes:
            db.execute("INSERT OR IGNORE INTO secrets (name, secret) VALUES (?, ?)", (name, proposed))
            return bytes(db.execute("SELECT secret FROM secrets WHERE name = ?", (name,)).fetchone()[0])

        return await self._change(keep)

    @override
    async def close(self) -> None:
        if self._file is not None:
            await self._file.leave(self)

    async def _judge(self) -> None:
        """See whether the file has the keys that were made, or none were.

        Raises:
            StoreDown: it lost them: another file is in its place, without any. That is noted in it, for the next start.
        """
        found = await self._read(_contents, _Contents())
        lost = found.keys_lost or self._keys_in not in {None, found.file_id}
        if lost and not found.records:
            if not found.keys_lost and found.file_id:
                await self._change(lambda db: db.execute("UPDATE schema_version SET keys_lost = 1"))
            raise StoreDown(
                f"{self._path} has lost the keys that were made; make new ones with edge keys create, or stop Edge, "
                "delete the file and start Edge"
            )
        self._right_in = found.file_id
        if found.records:
            self._keys_in = found.file_id

    async def _read(self, ask: "Callable[[Connection], T]", nothing: T) -> T:
        if self._file is None and not _written(self._path):
            return nothing
        return await self._used().read(ask, nothing)

    async def _change(self, do: "Callable[[Connection], T]") -> T:
        return await self._used().change(do)

    def _used(self) -> "SqliteFile":
        if self._file is None:
            self._file = self._opened()
            self._file.use(self)
        return self._file

    def _record(self, data: bytes) -> KeyRecord:
        try:
            return msgspec.json.decode(data, type=KeyRecord)
        except msgspec.DecodeError as error:
            raise StoreDown(f"{self._path}: a key's record cannot be read: {error}") from None


def _contents(db: "Connection") -> _Contents:
    file_id, lost = db.execute("SELECT file_id, keys_lost FROM schema_version").fetchone()
    rows: list[tuple[Any]] = db.execute("SELECT record FROM keys").fetchall()
    return _Contents(file_id, bool(lost), tuple(bytes(record) for (record,) in rows))


def _written(path: Path) -> tuple[tuple[str, int, int], ...]:
    """When the file and its log were last written to, and how long they are; nothing if there are none.

    Raises:
        StoreDown: that is not known, so there may be.
    """
    found = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = file.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise StoreDown(f"{file}: {error.strerror}") from None
        if status.st_size:  # an empty log comes and goes with those who read
            found.append((file.name, status.st_mtime_ns, status.st_size))
    return tuple(found)
