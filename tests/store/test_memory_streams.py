"""The memory store keeps the promises of a stream store."""

from collections.abc import Callable

import pytest
from contract.session_store_contract import Clock
from contract.stream_store_contract import Heard, Opened, StreamStoreContract, a_meta, finished

from edge.settings import Store
from edge.store.base import StreamStore
from edge.store.memory_streams import MemoryStreams


class TestMemoryStreams(StreamStoreContract):
    @pytest.fixture
    def opened(self) -> Opened:
        async def make(
            bounds: Store | None = None, clock: Callable[[], float] | None = None, hear: Heard | None = None
        ) -> StreamStore:
            return MemoryStreams(bounds or Store(), clock or Clock())

        return make

    async def test_the_finished_make_room_those_that_ended_first_go_first(self) -> None:
        store = MemoryStreams(Store(memory_bytes=20_000, principal_bytes=20_000), Clock())
        live = store.begin(a_meta())
        live.append(b"x" * 5000, 1)
        streams = [await finished(store, a_meta("abc"[number]), b"x" * 4000) for number in range(3)]
        found = [await store.find(stream) is not None for stream in streams]
        assert found == [False, True, True]
        assert repr(store).startswith("<MemoryStreams 1 live, 2 ended")

    async def test_a_principal_over_its_share_makes_room_itself(self) -> None:
        store = MemoryStreams(Store(memory_bytes=2**20, principal_bytes=10_000), Clock())
        other = await finished(store, a_meta("b"), b"x" * 4000)
        mine = [await finished(store, a_meta("a"), b"x" * 4000) for _ in range(2)]
        assert [await store.find(stream) is not None for stream in (other, *mine)] == [True, False, True]
