"""Keys in a Redis server, shared by several nodes.

In: records. Out: what ``ports.KeyStore`` promises. Must not: take a server that has lost its data for one on which
nobody has made a key.
"""

import msgspec

from edge.policy.auth.keys import KeyRecord, merged
from edge.store.ports import StoreDown
from edge.store.redis.link import RedisLink
from edge.store.redis.scripts import PREFIX, Script

_KEYS, _MARK, _SECRET = f"{PREFIX}keys", f"{PREFIX}keys:mark", f"{PREFIX}secret:"

# -> how often they were changed, all records
_EVERY = Script(
    "return {redis.call('GET', 'edge:keys:mark') or '0', redis.call('HVALS', 'edge:keys')}", repeatable=True
)

# id, record -> nothing
_PUT = Script(
    """
redis.call('HSET', 'edge:keys', ARGV[1], ARGV[2])
redis.call('INCR', 'edge:keys:mark')
""",
    repeatable=True,
)

# id -> how many there were
_FORGET = Script("""
redis.call('INCR', 'edge:keys:mark')
return redis.call('HDEL', 'edge:keys', ARGV[1])
""")


class RedisKeys:
    """A ``ports.KeyStore``."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._latest = 0  # of the marks that have been seen: it only grows, unless the server has lost its data
        self.place = str(link.address)
        link.join(self)

    def __repr__(self) -> str:
        return f"<RedisKeys {self._link!r}>"

    async def keys(self) -> list[KeyRecord]:
        """See ``ports.KeyStore``."""
        mark, every = await self._link.ask(_EVERY, even_full=True)
        self._see(int(mark))
        records = [self._record(data) for data in every]
        return sorted(records, key=lambda record: (record.created, record.id))

    async def find(self, key_id: str) -> KeyRecord | None:
        """See ``ports.KeyStore``."""
        data = await self._link.command("HGET", _KEYS, key_id)
        return None if data is None else self._record(data)

    async def put(self, record: KeyRecord) -> None:
        """See ``ports.KeyStore``."""
        data = msgspec.json.encode(record)
        before = await self._link.command("HGET", _KEYS, record.id)
        await self._link.ask(_PUT, record.id, data if before is None else merged(bytes(before), data))

    async def forget(self, key_id: str) -> bool:
        """See ``ports.KeyStore``."""
        return bool(await self._link.ask(_FORGET, key_id, even_full=True))

    async def mark(self) -> object:
        """See ``ports.KeyStore``."""
        mark = int(await self._link.command("GET", _MARK) or 0)
        self._see(mark)
        return mark

    async def secret(self, name: str, proposed: bytes) -> bytes:
        """See ``ports.KeyStore``."""
        await self._link.command("SET", f"{_SECRET}{name}", proposed, "NX")
        kept = await self._link.command("GET", f"{_SECRET}{name}")
        if kept is None:
            raise StoreDown(f"{self.place} keeps nothing that is written there")
        return bytes(kept)

    async def close(self) -> None:
        """See ``ports.KeyStore``."""
        await self._link.leave(self)

    # --- redis_link.Part ----------------------------------------------------------------------------------------------

    async def renew(self) -> None:
        """See ``link.Part``: nothing of this expires."""

    def went_down(self, error: StoreDown | None) -> None:
        """See ``link.Part``."""

    def stop_asked(self, stream_id: str) -> None:
        """See ``link.Part``: not of a stream of this."""

    def _see(self, mark: int) -> None:
        if mark < self._latest:
            raise StoreDown(f"{self.place} has lost the keys that were made; make new ones, and restart Edge")
        self._latest = mark

    def _record(self, data: bytes) -> KeyRecord:
        try:
            return msgspec.json.decode(data, type=KeyRecord)
        except msgspec.DecodeError as error:
            raise StoreDown(f"{self.place}: a key's record cannot be read: {error}") from None
