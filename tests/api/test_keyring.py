"""What the ring knows of a store that changes, fails or hangs: whether its keys are sure to be all there are."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from edge.api import keyring
from edge.api.keyring import KeyRing
from edge.policy.auth.keys import KeyRecord, make_key
from edge.store.memory.keys import MemoryKeys
from edge.store.ports import StoreDown
from edge.telemetry import log


class Scripted(MemoryKeys):
    """A store of keys that fails or hangs on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.fault: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = 0

    async def mark(self) -> object:
        self.asked += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return await super().mark()


class Clock:
    """Seconds that pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Scripted:
    return Scripted()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(keyring, "_APART_S", 0.0)
    return iter([None])


@pytest.fixture
async def ring(store: Scripted, clock: Clock) -> AsyncIterator[KeyRing]:
    ring = KeyRing(lambda: store, log.get_logger(), clock)
    yield ring
    await ring.close()


async def test_it_is_certain_for_two_seconds_after_a_look(ring: KeyRing, clock: Clock) -> None:
    assert (ring.keys, ring.certain) == (None, False)
    await ring.look()
    assert ring.certain
    clock.now += 1.9
    assert ring.certain
    clock.now += 0.2
    assert not ring.certain
    assert await ring.refresh()
    assert ring.certain


@pytest.mark.parametrize("fault", [StoreDown("gone"), RuntimeError("can't start new thread"), MemoryError()], ids=repr)
async def test_whatever_keeps_it_from_reading_it_is_not_certain_until_it_has_read(
    ring: KeyRing, store: Scripted, fault: Exception
) -> None:
    await ring.look()
    store.fault = fault
    await ring.look()
    assert not ring.certain
    assert ring.keys is not None, "what it knew it still knows"
    assert ring.why == (str(fault) or "MemoryError")
    assert not await ring.refresh()
    store.fault = None
    assert await ring.refresh(), "the first request after the outage is let in"
    assert ring.certain


async def test_during_an_outage_requests_do_not_wait_for_a_look_that_is_under_way(
    ring: KeyRing, store: Scripted
) -> None:
    store.fault = StoreDown("gone")
    await ring.look()
    store.gate.clear()
    first = asyncio.create_task(ring.refresh())
    while store.asked < 2:
        await asyncio.sleep(0)
    assert not await ring.refresh()
    store.gate.set()
    assert not await first
    assert store.asked == 2


async def test_who_asks_during_a_look_waits_for_the_next_which_all_of_them_share(
    ring: KeyRing, store: Scripted
) -> None:
    store.gate.clear()
    first = asyncio.create_task(ring.look())
    while not store.asked:
        await asyncio.sleep(0)
    _, record = make_key(KeyRecord("", "alice", "", 0.0), time.time())
    late = [asyncio.create_task(ring.refresh()) for _ in range(50)]
    await asyncio.sleep(0)
    await store.put(record)
    store.gate.set()
    assert await asyncio.gather(*late) == [True] * 50
    await first
    assert ring.keys is not None
    assert len(ring.keys) == 1
    assert store.asked == 2


async def test_a_store_that_hangs_cannot_be_read_and_is_asked_once(
    ring: KeyRing, store: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "_WAIT_S", 0.01)
    await ring.look()
    store.gate.clear()
    assert not await ring.refresh()
    assert not ring.certain
    assert ring.why == "no answer within 0.01 s"
    assert not await ring.refresh()
    assert store.asked == 2
    store.gate.set()
    await ring.look()
    assert ring.certain


@pytest.mark.parametrize(
    ("place", "why", "shown"),
    [
        ("redis://10.0.0.7:6379/0", "redis://10.0.0.7:6379/0: Error 111 connecting to 10.0.0.7:6379.",
         "the store: Error 111 connecting to the store."),
        ("/var/lib/edge/edge.db", "/var/lib/edge/edge.db: unable to open database file",
         "the store: unable to open database file"),
    ],
)  # fmt: skip
async def test_anybody_may_know_why_but_not_where(
    ring: KeyRing, store: Scripted, place: str, why: str, shown: str
) -> None:
    store.place = place
    store.fault = StoreDown(why)
    await ring.look()
    assert ring.public_why == shown
