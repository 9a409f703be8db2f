"""Which store has a stream: memory while it runs and until the other has all of it; questions go to both."""

from collections.abc import Sequence
from typing import Any

import pytest
from support.makers import Maker

from edge.errors import StoreUnavailable
from edge.policy.lifecycle import Outcome
from edge.settings import Settings, Store, Stream
from edge.store.memory.streams import MemoryStreams
from edge.store.ports import StoreDown, StreamMeta, StreamState
from edge.stream.channel import Channel
from edge.stream.persistence import StreamArchive

ID, ALICE = f"st_{'a' * 32}", "alice"
META = StreamMeta(ID, ALICE, "chat", "m", None, "req_1", 1_000.0, 1 << 20)


class SlowStore(MemoryStreams):
    """A durable store that has written a stream when the test says so, and that may be down."""

    down = False

    def __init__(self) -> None:
        super().__init__(Store(), lambda: 1_000.0)
        self.waiting: list[Any] = []

    def begin(self, meta: StreamMeta, before: int = 0) -> Any:
        log, settle = super().begin(meta, before), self.waiting.append

        class Late:
            append = log.append

            def end(self, ending: Any, upstream: Any, reconnections: int, settled: Any) -> None:
                settle(lambda stored: (log.end(ending, upstream, reconnections, lambda _: None), settled(stored)))

        return Late()

    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        if self.down:
            raise StoreDown("down")
        return await super().find_all(principal, stream_ids)

    async def streams(self, principal: str, most: int) -> list[StreamState]:
        if self.down:
            raise StoreDown("down")
        return await super().streams(principal, most)


class Stores:
    """``store.opening.Stores``, as far as the archive asks it."""

    shared = False

    def __init__(self, durable: SlowStore | None) -> None:
        self.durable = durable

    def streams(self) -> SlowStore | None:
        return self.durable

    async def close(self) -> None: ...


class Case:
    def __init__(self, durable: SlowStore | None) -> None:
        self.durable = durable
        self.memory = MemoryStreams(Settings().store, lambda: 1_000.0)
        self.archive = StreamArchive(self.memory, Stores(durable), lambda: 1_000.0)  # type: ignore[arg-type]
        self.archived = self.archive.begin(META)
        self.channel: Channel = Maker(ID, Stream(), self.archived.retention)

    def finish(self) -> None:
        self.channel.publish(b"data: 1\n\n", 1)
        self.channel.publish(b"data: 2\n\n", 1)
        self.channel.outcome, self.channel.clean = Outcome.COMPLETE, True
        self.archived.end(self.channel, "up", 3)

    async def place(self) -> Any:
        found = await self.archive.find(ALICE, ID)
        return None if found is None else found.store


async def test_without_another_store_memory_has_it() -> None:
    case = Case(None)
    case.finish()
    assert await case.place() is case.memory
    found = await case.archive.find(ALICE, ID)
    assert found is not None
    assert (found.state.last, found.state.upstream, found.state.reconnections) == (2, "up", 3)
    assert found.state.ending is not None
    assert (found.state.ending.outcome, found.state.ending.clean) == ("complete", True)


async def test_memory_has_it_until_the_other_store_has_all_of_it() -> None:
    durable = SlowStore()
    case = Case(durable)
    case.finish()
    assert await case.place() is case.memory
    (settle,) = durable.waiting
    settle(True)
    assert await case.place() is durable


async def test_what_the_other_store_could_not_take_stays_in_memory() -> None:
    durable = SlowStore()
    case = Case(durable)
    case.finish()
    durable.waiting[0](False)
    assert await case.place() is case.memory


async def test_somebody_elses_is_not_there() -> None:
    case = Case(None)
    case.finish()
    assert await case.archive.find("bob", ID) is None
    assert await case.archive.streams("bob", 10) == []
    assert [state.meta.id for state in await case.archive.streams(ALICE, 10)] == [ID]


async def test_one_that_may_be_in_a_store_that_is_down_is_no_unknown_one() -> None:
    durable = SlowStore()
    case = Case(durable)
    durable.down = True
    with pytest.raises(StoreUnavailable):
        await case.archive.find(ALICE, f"st_{'b' * 32}")
    with pytest.raises(StoreUnavailable):
        await case.archive.streams(ALICE, 10)


async def test_one_that_memory_has_is_found_whatever_the_other_store_does() -> None:
    durable = SlowStore()
    case = Case(durable)
    case.finish()
    durable.down = True
    assert await case.place() is case.memory
