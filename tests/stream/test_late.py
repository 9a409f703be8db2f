"""The wait for streams that another process may have begun a moment ago: one for all who wait, and bounded."""

import asyncio
from collections.abc import Sequence

import pytest

from edge.errors import StoreUnavailable
from edge.settings import Settings, Store
from edge.store.memory.streams import MemoryStreams
from edge.store.opening import Stores
from edge.store.ports import StreamState
from edge.stream.late import LATE_S, LateStreams
from edge.stream.persistence import StreamArchive

MOST_LOOKS = round(LATE_S / 0.05) + 2


class Shelf:
    """Where streams turn up; counts how often it was looked at, and for how many ids at once."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str], str] = {}
        self.looks: list[int] = []
        self.fault: Exception | None = None

    async def look(self, principal: str, stream_ids: Sequence[str]) -> dict[str, str]:
        self.looks.append(len(stream_ids))
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        return {one: self.there[principal, one] for one in stream_ids if (principal, one) in self.there}


async def test_a_hundred_who_wait_share_each_look() -> None:
    shelf = Shelf()
    late = LateStreams(shelf.look)
    ids = [[f"{n}-{m}" for m in range(64)] for n in range(100)]
    assert await asyncio.gather(*(late.find("ann", some) for some in ids)) == [{}] * 100
    assert sum(shelf.looks) <= MOST_LOOKS * 6400
    assert len(shelf.looks) <= MOST_LOOKS * 13, "512 ids at a time"
    assert max(shelf.looks) <= 512


async def test_what_turns_up_is_had_at_once_and_only_by_its_owner() -> None:
    shelf = Shelf()
    late = LateStreams(shelf.look)
    ann, bob = (asyncio.create_task(late.find(name, ["a"])) for name in ("ann", "bob"))
    await asyncio.sleep(0)
    shelf.there["ann", "a"] = "found"
    await asyncio.wait([ann, bob], return_when=asyncio.FIRST_COMPLETED)
    assert (ann.done(), bob.done()) == (True, False)
    assert await ann == {"a": "found"}
    assert await bob == {}


async def test_who_waits_for_several_gets_those_that_turned_up() -> None:
    shelf = Shelf()
    late = LateStreams(shelf.look)
    waiting = asyncio.create_task(late.find("ann", ["a", "b"]))
    await asyncio.sleep(0)
    shelf.there["ann", "b"] = "found"
    assert await waiting == {"b": "found"}


async def test_an_outage_is_told_to_all_who_wait_and_the_next_look_anew() -> None:
    shelf = Shelf()
    late = LateStreams(shelf.look)
    shelf.fault = StoreUnavailable("down")
    told = await asyncio.gather(*(late.find("ann", [str(n)]) for n in range(3)), return_exceptions=True)
    assert told == [shelf.fault] * 3
    shelf.fault = None
    assert await late.find("ann", ["a"]) == {}


async def test_nothing_is_left_of_who_leaves_and_of_the_end() -> None:
    shelf = Shelf()
    late = LateStreams(shelf.look)
    leaves, stays = (asyncio.create_task(late.find("ann", ["a"])) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    await asyncio.wait([leaves])
    assert repr(late) == "<LateStreams 1 waiting>"
    await late.close()
    with pytest.raises(asyncio.CancelledError):
        await stays
    assert repr(late) == "<LateStreams 0 waiting>"


class Counting(MemoryStreams):
    """Counts what it is asked."""

    def __init__(self) -> None:
        super().__init__(Store())
        self.asked: list[int] = []

    async def find_all(self, principal: str, stream_ids: Sequence[str]) -> dict[str, StreamState]:
        self.asked.append(len(stream_ids))
        return await super().find_all(principal, stream_ids)


async def test_all_ids_of_a_request_are_one_question_to_the_store() -> None:
    memory = Counting()
    stores = Stores(Settings(store=Store(url="memory:")), Hearing(), {})
    archive = StreamArchive(memory, stores)
    assert await archive.find_all("ann", [f"st_{n:032x}" for n in range(64)]) == {}
    assert memory.asked == [64]
    await archive.close()


class Hearing:
    """A ``base.StoreListener`` to which nothing happens."""

    def stop_asked(self, stream_id: str) -> None:
        raise AssertionError(stream_id)

    def store_failed(self, why: str) -> None:
        raise AssertionError(why)

    def store_recovered(self, after_s: float) -> None:
        raise AssertionError(after_s)
