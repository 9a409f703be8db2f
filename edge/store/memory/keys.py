"""Keys in this process's memory: there are none but those that this process makes, and they end with it.

In: records. Out: what ``ports.KeyStore`` promises. Must not: be shared.
"""

from edge.policy.auth.keys import KeyRecord


class MemoryKeys:
    """A ``ports.KeyStore``."""

    place = "memory"

    def __init__(self) -> None:
        self._records: dict[str, KeyRecord] = {}
        self._secrets: dict[str, bytes] = {}
        self._changes = 0

    def __repr__(self) -> str:
        return f"<MemoryKeys {len(self._records)}>"

    async def keys(self) -> list[KeyRecord]:
        """See ``ports.KeyStore``."""
        return sorted(self._records.values(), key=lambda record: (record.created, record.id))

    async def find(self, key_id: str) -> KeyRecord | None:
        """See ``ports.KeyStore``."""
        return self._records.get(key_id)

    async def put(self, record: KeyRecord) -> None:
        """See ``ports.KeyStore``."""
        self._changes += 1
        self._records[record.id] = record

    async def forget(self, key_id: str) -> bool:
        """See ``ports.KeyStore``."""
        self._changes += 1
        return self._records.pop(key_id, None) is not None

    async def mark(self) -> object:
        """See ``ports.KeyStore``."""
        return self._changes

    async def secret(self, name: str, proposed: bytes) -> bytes:
        """See ``ports.KeyStore``."""
        return self._secrets.setdefault(name, proposed)

    async def close(self) -> None:
        """See ``ports.KeyStore``."""
        self._records.clear()
