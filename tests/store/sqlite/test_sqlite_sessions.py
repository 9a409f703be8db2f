"""The SQLite store keeps the promises of a session store, alone and with others over its file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from contract.session_store_contract import (
    Clock,
    Opened,
    SessionStoreContract,
    SharedSessionStoreContract,
    contents,
    said,
    told,
)
from support.sqlite import renew, some_sessions, some_streams, vanish

from edge.settings import Sessions
from edge.store.ports import SessionStore
from edge.store.sqlite.sessions import SqliteSessions


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    stores: list[SessionStore] = []

    def make(bounds: Sessions, clock: Clock) -> SessionStore:
        stores.append(some_sessions(tmp_path / "state" / "edge.db", bounds, clock))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


class TestSqliteSessions(SessionStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened


class TestSharedSqliteSessions(SharedSessionStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    async def vanish(self, store: Any) -> None:
        await vanish(store)

    async def renew(self, store: Any) -> None:
        await renew(store)


async def test_what_is_only_read_makes_no_file(tmp_path: Path, opened: Opened) -> None:
    store = opened(Sessions(), Clock())
    assert await store.read("a", "s") is None
    assert await store.delete("a", "s") is False
    await store.close()
    assert not (tmp_path / "state").exists()


async def test_sessions_and_streams_share_a_file_until_both_are_closed(tmp_path: Path) -> None:
    streams = some_streams(tmp_path / "edge.db")
    sessions = SqliteSessions(streams._file, Sessions())
    other = some_streams(tmp_path / "edge.db")
    assert await sessions.claim("a", "s") is True
    await streams.close()
    await sessions.append("a", "s", said("q"), told("r"))
    assert contents(await sessions.read("a", "s")) == ["q", "r"]
    assert (await other.sizes()).sessions == 1
    await sessions.close()
    await other.close()
