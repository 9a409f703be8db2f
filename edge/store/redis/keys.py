"""Keys in a Redis server, shared by several nodes.

In: records. Out: what ``ports.KeyStore`` promises. Must not: take a server that has lost its data for one on which
nobody has made a key.
"""

import msgspec
from typing_extensions import override

from edge.policy.auth.keys import KeyRecord, merged
from edge.store.ports import KeyStore, StoreDown
from edge.store.redis.link import Part, RedisLink
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


class RedisKeys(KeyStore, Part):
    """A ``ports.KeyStore``."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._latest = 0  # of the marks that have been seen: it only grows, unless the server has lost its data
        self.place = str(link.address)
        link.join(self)

    def __repr__(self) -> str:
        return f"<RedisKeys {self._link!r}>"

    @override
    async def keys(self) -> list[KeyRecord]:
        mark, every = await self._link.ask(_EVERY, even_full=True)
        self._see(int(mark))
        records = [self._record(data) for data in every]
        return sorted(records, key=lambda record: (record.created, record.id))

    @override
    async def find(self, key_id: str) -> KeyRecord | None:
        data = await self._link.command("HGET", _KEYS, key_id)
        return None if data is None else self._record(data)

    @override
    async def put(self, record: KeyRecord) -> None:
        data = msgspec.json.encode(record)
        before = await self._link.command("HGET", _KEYS, record.id)
        await self._link.ask(_PUT, record.id, data if before is None else merged(bytes(before), data))

    @override
    async def forget(self, key_id: str) -> bool:
        return bool(await self._link.ask(_FORGET, key_id, even_full=True))

    @override
    async def mark(self) -> object:
        mark = int(await self._link.command("GET", _MARK) or 0)
        self._see(mark)
        return mark

    @override
    async def secret(self, name: str, proposed: bytes) -> bytes:
        await self._link.command("SET", f"{_SECRET}{name}", proposed, "NX")
        kept = await self._link.command("GET", f"{_SECRET}{name}")
        if kept is None:
            raise StoreDown(f"{self.place} keeps nothing that is written there")
        return bytes(kept)

    @override
    async def close(self) -> None:
        await self._link.leave(self)

    # --- redis_link.Part ----------------------------------------------------------------------------------------------

    @override
    async def renew(self) -> None:
        """Nothing of this expires."""

    @override
    def went_down(self, error: StoreDown | None) -> None:
        pass

    @override
    def stop_asked(self, stream_id: str) -> None:
        """Not of a stream of this."""

    def _see(self, mark: int) -> None:
        if mark < self._latest:
            raise StoreDown(f"{self.place} has lost the keys that were made; make new ones, and restart Edge")
        self._latest = mark

    def _record(self, data: bytes) -> KeyRecord:
        try:
            return msgspec.json.decode(data, type=KeyRecord)
        except msgspec.DecodeError as error:
            raise StoreDown(f"{self.place}: a key's record cannot be read: {error}") from None
