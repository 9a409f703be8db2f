"""A store's file that was damaged, cut or deleted: whether it was, and how what is in it is saved.

In: paths and connections, in the writer's thread. Out: verdicts; a damaged file under another name; what can be saved
of it. Must not: open a descriptor of a file (see ``file``), or take away one that another process has just made.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from edge.store.sqlite.file import Found, connect, create, look_at, opening
from edge.store.sqlite.schema import APPLICATION

_SMALL_BYTES = 16 * 2**20  # a file that is read whole in 20 ms
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_BESIDE = ("-wal", "-shm")
_KEPT = {
    "keys": ("id", "record"),
    "secrets": ("name", "secret"),
    "usage": ("day", "principal", "rule", "requests", "prompt", "completion"),
    "sessions": ("principal", "session", "created", "updated", "turns"),
}


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that what it finds in the file makes no sense."""
    code = getattr(error, "sqlite_errorcode", None)
    return isinstance(error, sqlite3.Error) and code is not None and code & 0xFF in _DAMAGED


def is_sound(path: Path, locked_s: float) -> bool:
    """Whether the whole file makes sense; reads all of it. A connection that is open has its own copy of some pages."""
    try:
        with closing(connect(path, locked_s)) as connection:
            return bool(connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.Error as error:
        if is_damage(error):
            return False
        raise


def is_cut(path: Path, locked_s: float, connection: sqlite3.Connection, size: int) -> bool:
    """Whether a file that has become shorter was cut, and not only given back what was free in it."""
    try:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
        log = look_at(Path(f"{path}-wal"))
        whole = pages * page_bytes
        lacks = size < whole - (0 if log is None else log.size)  # the log may have the last pages
        return (lacks or whole <= _SMALL_BYTES) and not is_sound(path, locked_s)
    except sqlite3.Error:  # locked, perhaps; if it is cut, whoever reads it finds out
        return False


def write_anew(connection: sqlite3.Connection, path: Path, beside: Sequence[Found | None]) -> None:
    """Put a file with all that the connection sees where its own has been deleted; if there is none by then.

    Raises:
        sqlite3.Error, OSError: it cannot be written.
    """
    fresh = path.with_name(f"{path.name}.new-{os.getpid()}")
    try:
        create(fresh)
        with closing(sqlite3.connect(fresh)) as copy:
            connection.backup(copy)
        clear_beside(path, beside)
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def clear_beside(path: Path, beside: Sequence[Found | None]) -> None:
    """Take away the log and its index that belonged to a file which has gone; SQLite would apply them to the next one.

    Args:
        path: Where the file was.
        beside: What ``look_beside`` found while it was there. Those of another file stay.
    """
    for end, before in zip(_BESIDE, beside, strict=True):
        there = Path(f"{path}{end}")
        if before is not None and before.is_same(look_at(there)):
            there.unlink(missing_ok=True)


def look_beside(path: Path) -> tuple[Found | None, ...]:
    """The log and its index, which stay the same while the file is open."""
    return tuple(look_at(Path(f"{path}{end}")) for end in _BESIDE)


def set_aside(path: Path, damaged: Found) -> Path | None:
    """Give a damaged file another name, with what belongs to it; None if another process did it.

    Must be done before the connections to it are closed: SQLite deletes the log of a file by its name, unless the file
    has another by then.
    """
    with opening.setdefault(path, threading.Lock()):
        if not damaged.is_same(look_at(path)):
            return None
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}")
        for end in ("", *_BESIDE):
            with suppress(FileNotFoundError):
                Path(f"{path}{end}").rename(f"{aside}{end}")
        if damaged.is_same(look_at(aside)):
            return aside
        with suppress(OSError):  # another process had put a new one there, just then
            os.link(aside, path)
        return None


def salvage(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    """Bring over what can still be read of a damaged file, and is to outlive it: keys, secrets, usage and sessions."""
    with suppress(sqlite3.Error):
        old.execute("PRAGMA writable_schema = 1")  # else one that is too short is not read at all
    for table, columns in _KEPT.items():
        _copy(old, new, table, columns)


def is_edges(path: Path, locked_s: float) -> bool:
    """Whether a damaged file still says that it is Edge's."""
    try:
        with closing(connect(path, locked_s)) as connection:
            connection.execute("PRAGMA writable_schema = 1")
            return bool(connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION)
    except sqlite3.Error:
        return False


def _copy(old: sqlite3.Connection, new: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> None:
    names, places = ", ".join(columns), ", ".join("?" * len(columns))
    insert = f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({places})"  # noqa: S608 - of constants
    new.execute("BEGIN IMMEDIATE")
    with suppress(sqlite3.Error):
        rows = old.execute(f"SELECT {names} FROM {table}")  # noqa: S608 - likewise
        while (row := rows.fetchone()) is not None:  # until what makes no sense
            new.execute(insert, row)
    new.execute("COMMIT")
