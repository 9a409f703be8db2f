"""Who waits for streams to go on, woken by Redis itself: one connection for all of them.

In: who waits for which stream. Out: they return when it went on. Must not: ask per follower and event; a stream is
looked at once, and from then on its messages say so.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from typing_extensions import override

from edge.store.ports import StoreDown, StreamStore
from edge.store.redis.link import RedisLink
from edge.store.redis.scripts import LOOK

_IDLE_S = 5.0  # for so long messages are still heard when nobody waits: usually somebody does again


class _Followed:
    """One stream."""

    __slots__ = ("idle", "known", "looked", "waiting")

    def __init__(self) -> None:
        self.known = 0
        self.looked = False
        self.waiting: dict[asyncio.Future[None], int] = {}  # beyond which event it is to go on
        self.idle = 0.0  # since when


class Followers(StreamStore):
    """All streams that are followed from this process. ``written`` returns when what is done here is in Redis."""

    def __init__(self, link: RedisLink, written: Callable[[], Awaitable[None]]) -> None:
        self._link = link
        self._written = written
        self._of: dict[str, _Followed] = {}
        self._left: set[str] = set()  # heard of though nobody listens

    def __len__(self) -> int:
        return len(self._of)

    @override
    async def changed(self, stream_id: str, last: int, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._changed(stream_id, last)

    async def _changed(self, stream_id: str, last: int) -> None:
        self._link.check()
        followed = self._of.get(stream_id)
        if followed is None:
            followed = self._of[stream_id] = _Followed()
            self._link.start(self._begin(stream_id, followed))
        if followed.known > last:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        followed.waiting[waiting] = last
        try:
            await waiting
        finally:
            del followed.waiting[waiting]
            if not followed.waiting:
                followed.idle = asyncio.get_running_loop().time()

    async def _begin(self, stream_id: str, followed: _Followed) -> None:
        """StoreListener of it first, then look: what comes in between is heard."""
        try:
            await self._link.subscribe(f"went:{stream_id}", lambda data: self._heard(stream_id, data))
            await self._written()  # it may have begun here a moment ago
            known = await self._link.ask(LOOK, self._link.now, stream_id)
        except StoreDown as error:
            self._over(stream_id, error)
            return
        followed.looked = True
        self._heard(stream_id, b"end" if known < 0 else b"%d" % known)

    def _heard(self, stream_id: str, data: bytes) -> None:
        followed = self._of.get(stream_id)
        if followed is None:
            return
        if data == b"end":
            self._over(stream_id, None)
            return
        followed.known = max(followed.known, int(data))
        for waiting, last in followed.waiting.items():
            if last < followed.known and not waiting.done():
                waiting.set_result(None)

    def _over(self, stream_id: str, error: StoreDown | None) -> None:
        """It will not go on, or nothing more is heard of it; whoever asks again looks again."""
        followed = self._of.pop(stream_id, None)
        self._left.add(stream_id)
        for waiting in followed.waiting if followed else ():
            if waiting.done():
                continue
            if error is None:
                waiting.set_result(None)
            else:
                waiting.set_exception(error)

    async def renew(self) -> None:
        """StoreListener no more of what nobody has waited for lately. Raises ``StoreDown``."""
        before = asyncio.get_running_loop().time() - _IDLE_S
        for stream_id, followed in tuple(self._of.items()):
            if followed.looked and not followed.waiting and followed.idle < before:
                del self._of[stream_id]
                self._left.add(stream_id)
        left = [f"went:{stream_id}" for stream_id in self._left if stream_id not in self._of]
        self._left.clear()
        await self._link.unsubscribe(left)

    def went_down(self, error: StoreDown | None) -> None:
        """Nothing is heard any more. Without an error whoever waits looks again."""
        for stream_id in tuple(self._of):
            self._over(stream_id, error)
        self._left.clear()
