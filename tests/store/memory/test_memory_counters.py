"""The memory store keeps the promises of a counter store."""

import pytest
from contract.counter_store_contract import CounterStoreContract, Opened
from contract.session_store_contract import Clock

from edge.store.memory.counters import MemoryCounters
from edge.store.ports import CounterStore


class TestMemoryCounters(CounterStoreContract):
    @pytest.fixture
    def opened(self) -> Opened:
        async def make(clock: Clock) -> CounterStore:
            return MemoryCounters(clock)

        return make


def test_a_look_at_it_tells_what_it_holds() -> None:
    assert repr(MemoryCounters()) == "<MemoryCounters <Counters 0 held, 0 windows, 0 accounts>>"
