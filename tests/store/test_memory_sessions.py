"""The memory store keeps the promises of a session store."""

from collections.abc import Callable

import pytest
from contract.session_store_contract import Clock, Opened, SessionStoreContract, said, told

from edge.settings import Sessions
from edge.store.base import SessionStore
from edge.store.memory import MemorySessions


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
        assert repr(store) == "<MemorySessions 0>"
