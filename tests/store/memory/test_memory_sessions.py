"""The memory store keeps the promises of a session store."""

from collections.abc import Callable

import pytest
from contract.session_store_contract import Clock, Opened, SessionStoreContract, said, told

from edge.settings import Sessions, Settings, Store
from edge.store.memory.sessions import MemorySessions
from edge.store.ports import SessionStore


class TestMemorySessions(SessionStoreContract):
    @pytest.fixture
    def opened(self) -> Opened:
        def make(bounds: Sessions, clock: Callable[[], float]) -> SessionStore:
            return MemorySessions(bounds, clock)

        return make

    async def test_what_is_too_old_leaves_the_memory_as_soon_as_anything_is_asked(self) -> None:
        clock = Clock()
        store = MemorySessions(Sessions(max_age_s=60), clock)
        for session in ("s", "t"):
            await store.append("a", session, said("q"), told("r"))
        clock.now += 61
        assert await store.read("b", "another") is None
        assert repr(store) == "<MemorySessions 0, 0 B>"

    async def test_the_sessions_unused_for_longest_go_when_all_text_is_over_the_bound(self) -> None:
        store = MemorySessions(Sessions(), Clock(), most_bytes=5000)
        for session in ("s", "t", "s", "u", "v"):
            await store.append("a", session, said("q" * 500), told("é" * 250))
        there = {session: await store.read("a", session) is not None for session in "stuv"}
        assert there == {"s": True, "t": True, "u": True, "v": True}
        await store.append("a", "s", said("q"), told("r"))
        there = {session: await store.read("a", session) is not None for session in "stuv"}
        assert there == {"s": True, "t": False, "u": True, "v": True}
        assert repr(store) == "<MemorySessions 3, 4002 B>"
        await store.delete("a", "s")
        assert repr(store) == "<MemorySessions 2, 2000 B>"

    async def test_other_settings_bound_what_is_kept_from_then_on(self) -> None:
        store = MemorySessions(Sessions(), Clock())
        for session in ("s", "t", "u"):
            await store.append("a", session, said("q" * 500), told("r" * 500))
        store.apply_settings(Settings(store=Store(memory_bytes=2000)))
        await store.append("a", "t", said("q"), told("r"))
        assert [await store.read("a", session) is not None for session in "stu"] == [False, True, False]
