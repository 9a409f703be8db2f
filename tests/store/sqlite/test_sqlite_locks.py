"""Whoever has the file open keeps the locks that say so: else the next process to close it deletes the log in use."""

import ast
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from contract.kept_streams import a_meta, finished
from contract.key_store_contract import made
from contract.session_store_contract import said, told
from support.held_locks import deleted_files, held_locks
from support.sqlite import some_keys, some_sessions, some_streams

import edge.store

STORE = Path(edge.store.__file__).parent
LOCKED = {"", "-shm"}  # what a connection that is open holds locks on


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "edge.db"


async def test_no_operation_drops_a_lock_of_this_process(path: Path) -> None:
    """Of each store, beside streams that have the file open."""
    streams, sessions, keys = some_streams(path), some_sessions(path), some_keys(path)
    ended = await finished(streams, a_meta(), b"e")
    record = made()
    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "find": lambda: streams.find(ended),
        "read": lambda: streams.read(ended, 0, 100),
        "streams": lambda: streams.streams(None, 10),
        "came_back": lambda: streams.came_back(ended),
        "stop": lambda: streams.stop(ended),
        "sizes": streams.sizes,
        "forget": lambda: streams.forget(ended),
        "purge": lambda: streams.purge(0),
        "claim": lambda: sessions.claim("a", "s"),
        "append": lambda: sessions.append("a", "s", said("q"), told("r")),
        "session": lambda: sessions.read("a", "s"),
        "delete": lambda: sessions.delete("a", "s"),
        "yield_up": lambda: sessions.yield_up("a", "s"),
        "put": lambda: keys.put(record),
        "keys": keys.keys,
        "key": lambda: keys.find(record.id),
        "mark": keys.mark,
        "secret": lambda: keys.secret("tickets", b"secret"),
        "forget key": lambda: keys.forget(record.id),
        "close keys": keys.close,
        "close sessions": sessions.close,
    }
    for name, operation in operations.items():
        await operation()
        assert held_locks(os.getpid(), path) == LOCKED, name
    await streams.close()
    assert held_locks(os.getpid(), path) == set()
    assert deleted_files(os.getpid(), path) == []


def test_nothing_in_the_store_opens_a_file_by_itself() -> None:
    """SQLite alone opens the file; one descriptor more, and closing it drops the locks."""
    methods = {"fdopen", "read_bytes", "read_text", "write_bytes", "write_text", "touch", "copyfile"}
    modules = {"os", "io", "Path", "shutil"}
    calls = []
    for module in STORE.rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                of, _, name = called.rpartition(".")
                if called.startswith("Path(f'/proc/"):
                    continue
                if name in methods or called == "open" or (name in {"open", "copy"} and of in modules):
                    calls.append(f"{module.name}:{node.lineno}: {called}")
    assert calls == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
async def test_what_is_made_is_for_its_owner_alone(path: Path, umask: int) -> None:
    """The directory, the file and what SQLite puts beside it."""
    before = os.umask(umask)
    try:
        streams = some_streams(path)
        await finished(streams, a_meta(), b"e")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert modes == dict.fromkeys(("edge.db", "edge.db-shm", "edge.db-wal"), 0o600)
        await streams.close()
    finally:
        os.umask(before)
