"""Keys that are made while an Edge runs, in its store, as ``edge keys`` does it in another process.

In: what the keys may do. Out: keys, and an Edge that has learnt of them. Must not: sleep longer than it takes.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge.policy.auth.keys import KeyRecord, make_key
from edge.store.sqlite.keys import SqliteKeys
from support.hanging import hang_limit
from support.running import Running
from support.sqlite import some_keys


class MadeKeys:
    """A store of keys. ``settings`` are for the Edge that uses it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state" / "edge.db"
        self.settings = {"url": f"sqlite:{self.path}"}

    async def make(self, name: str = "alice", **rights: Any) -> str:
        key, record = make_key(KeyRecord("", name, "", 0.0, **rights), time.time())
        async with self.opened() as store:
            await store.put(record)
        return key

    async def revoke(self, key: str) -> None:
        async with self.opened() as store:
            record = await store.find(key.split("-")[1])
            assert record is not None
            await store.put(replace(record, revoked=time.time()))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[SqliteKeys]:
        store = some_keys(self.path)
        try:
            yield store
        finally:
            await store.close()


async def learnt(edge: Running, count: int, live: int | None = None) -> None:
    """Wait until a running Edge knows so many keys, of which so many let somebody in."""
    ring = edge.edge.callers._ring
    async with hang_limit():
        while ring.keys is None or len(ring.keys) != count or live not in (None, ring.keys.live(time.time())):
            await asyncio.sleep(0.01)
