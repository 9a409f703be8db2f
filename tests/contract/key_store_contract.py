"""What every key store promises (``edge.store.ports``), as one suite that each kind of store runs.

A kind's test module subclasses ``KeyStoreContract`` and gives it the ``store`` fixture, and ``SharedKeyStoreContract``
the ``stores`` fixture: two over the same place, as if in processes of their own.
"""

import asyncio
from dataclasses import replace

import pytest
from support.hanging import hang_limit

from edge.policy.auth.keys import KeyRecord, make_key
from edge.policy.limits.allowance import Allowance
from edge.store.ports import KeyStore

NOW = 1_800_000_000.0
FULL = KeyRecord(
    "", "alice@example.com", "", NOW, expires=NOW + 9.5, models=("llama*", "q[wW]en"), lanes=("batch", "interactive"),
    limits=Allowance(requests_per_min=60, weight=0.5), admin=True,
)  # fmt: skip


def made(name: str = "alice", at: float = NOW) -> KeyRecord:
    return make_key(KeyRecord("", name, "", 0.0), at)[1]


class KeyStoreContract:
    """See the module."""

    @pytest.fixture
    def store(self) -> KeyStore:
        """An empty store."""
        raise NotImplementedError

    async def test_there_is_nothing_at_first(self, store: KeyStore) -> None:
        assert await store.keys() == []
        assert await store.find("0123456789ab") is None
        assert await store.forget("0123456789ab") is False
        assert store.place

    @pytest.mark.parametrize("like", [FULL, replace(FULL, limits="gold", expires=None), KeyRecord("", "b", "", 0.0)])
    async def test_a_record_comes_back_as_it_was(self, store: KeyStore, like: KeyRecord) -> None:
        key, record = make_key(like, NOW)
        await store.put(record)
        assert await store.keys() == [record]
        assert await store.find(record.id) == record
        assert key not in repr(record)

    async def test_records_come_in_the_order_in_which_they_were_made(self, store: KeyStore) -> None:
        records = [made(at=NOW + n) for n in range(5)]
        for record in (records[3], records[0], records[4], records[1], records[2]):
            await store.put(record)
        assert await store.keys() == records

    async def test_putting_a_record_again_replaces_it(self, store: KeyStore) -> None:
        record, other = made(), made("bob", NOW + 1)
        await store.put(record)
        await store.put(other)
        await store.put(replace(record, revoked=NOW + 5))
        assert await store.keys() == [replace(record, revoked=NOW + 5), other]

    async def test_what_is_forgotten_is_gone(self, store: KeyStore) -> None:
        record, other = made(), made("bob", NOW + 1)
        await store.put(record)
        await store.put(other)
        assert await store.forget(record.id) is True
        assert await store.forget(record.id) is False
        assert await store.keys() == [other]

    async def test_every_change_changes_the_mark_and_reading_settles(self, store: KeyStore) -> None:
        marks: list[object] = [await settled(store)]
        record = made()
        for change in (store.put(record), store.put(replace(record, revoked=NOW)), store.forget(record.id)):
            await change
            mark = await settled(store)
            assert mark not in marks
            await store.keys()
            assert await settled(store) == mark
            marks.append(mark)

    async def test_a_secret_is_made_once(self, store: KeyStore) -> None:
        assert await store.secret("tickets", b"\x00first") == b"\x00first"
        assert await store.secret("tickets", b"second") == b"\x00first"
        assert await store.secret("other", b"third") == b"third"


class SharedKeyStoreContract:
    """For stores that several processes share."""

    @pytest.fixture
    def stores(self) -> tuple[KeyStore, KeyStore]:
        """Two over one place."""
        raise NotImplementedError

    async def test_what_one_does_the_other_notices(self, stores: tuple[KeyStore, KeyStore]) -> None:
        one, other = stores
        before, record = await settled(other), made()
        await one.put(record)
        assert await other.mark() != before
        assert await other.keys() == [record]
        before = await settled(other)
        await one.put(replace(record, revoked=NOW))
        assert await other.mark() != before
        found = await other.find(record.id)
        assert found is not None
        assert found.revoked == NOW

    async def test_all_who_propose_a_secret_at_once_get_the_same(self, stores: tuple[KeyStore, KeyStore]) -> None:
        proposals = [stores[n % 2].secret("tickets", bytes([n]) * 32) for n in range(8)]
        assert len(set(await asyncio.gather(*proposals))) == 1


async def settled(store: KeyStore) -> object:
    """The mark, once it can be told."""
    async with hang_limit():
        while (mark := await store.mark()) is None:
            await asyncio.sleep(0.01)
    return mark
