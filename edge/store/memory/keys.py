"""Keys in this process's memory: there are none but those that this process makes, and they end with it.

In: records. Out: what ``ports.KeyStore`` promises. Must not: be shared.
"""

from typing_extensions import override

from edge.policy.auth.keys import KeyRecord
from edge.store.ports import KeyStore


class MemoryKeys(KeyStore):
    """A ``ports.KeyStore``."""

    place = "memory"

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._secrets: dict[str, bytes] = {}
        self._changes = 0

    def __repr__(self) -> str:
        return f"<MemoryKeys {len(self._records)}>"

    @override
    async def keys(self) -> list[KeyRecord]:
        return sorted(self._records.values(), key=lambda record: (record.created, record.id))

    @override
    async def find(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    @override
    async def put(self, record: KeyRecord) -> None:
        self._changes += 1
        self._records[record.id] = record

    @override
    async def forget(self, key_id: str) -> bool:
        self._changes += 1
        return self._records.pop(key_id, None) is not None

    @override
    async def mark(self) -> object:
        return self._changes

    @override
    async def secret(self, name: str, proposed: bytes) -> bytes:
        return self._secrets.setdefault(name, proposed)

    @override
    async def close(self) -> None:
        self._records.clear()
