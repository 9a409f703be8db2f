"""The memory store keeps the promises of a stream store."""

from collections.abc import Callable

import pytest
from contract.kept_streams import Heard, Opened, a_meta, finished, is_gone
from contract.session_store_contract import Clock
from contract.stream_store_contract import StreamStoreContract

from edge.settings import Store
from edge.store.memory.streams import MemoryStreams
from edge.store.ports import StreamStore


class TestMemoryStreams(StreamStoreContract):
    @pytest.fixture
    def opened(self) -> Opened:
        async def make(
            bounds: Store | None = None, clock: Callable[[], float] | None = None, hear: Heard | None = None
        ) -> StreamStore:
            return MemoryStreams(bounds or Store(), clock or Clock())

        return make

    async def test_the_finished_make_room_those_that_ended_first_go_first(self) -> None:
        store = MemoryStreams(Store(memory_bytes=21_000, principal_bytes=20_000), Clock())
        live = store.begin(a_meta())
        live.append(b"x" * 5000, 1)
        streams = [await finished(store, a_meta("abc"[number]), b"x" * 4000) for number in range(3)]
        assert [await is_gone(store, stream) for stream in streams] == [True, False, False]
        assert repr(store).startswith("<MemoryStreams 1 live, 2 ended")

    async def test_a_principal_over_its_share_makes_room_itself(self) -> None:
        store = MemoryStreams(Store(memory_bytes=2**20, principal_bytes=10_000), Clock())
        other = await finished(store, a_meta("b"), b"x" * 4000)
        mine = [await finished(store, a_meta("a"), b"x" * 4000) for _ in range(2)]
        assert [await is_gone(store, stream) for stream in (other, *mine)] == [False, True, False]
        state = await store.find(mine[0])
        assert state is not None, "that it was there is remembered"
        assert (state.first, state.last, state.size, await store.forget(mine[0])) == (2, 1, 0, False)
        assert await store.find(mine[0]) is None
