"""The SQLite store keeps the promises of a stream store, alone and with others over its file."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from contract.stream_store_contract import Opened, SharedStreamStoreContract, StreamStoreContract
from support.sqlite import renew, some_streams, vanish

from edge.store.base import StreamStore


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    stores: list[StreamStore] = []

    async def make(**given: Any) -> StreamStore:
        stores.append(some_streams(tmp_path / "state" / "edge.db", **given))
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


class TestSqliteStreams(StreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened


class TestSharedSqliteStreams(SharedStreamStoreContract):
    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        return opened

    async def vanish(self, store: Any) -> None:
        await vanish(store)

    async def renew(self, store: Any) -> None:
        await renew(store)
