"""Conversations in a store that may be down for a while: what was said then waits in memory until it is back.

In: turns. Out: what ``ports.SessionStore`` promises. Must not: answer from memory alone what the store may know better:
a reader of a store that is down gets an error.
"""

import asyncio
import time
from collections.abc import Callable

from typing_extensions import override

from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.ports import Conversation, Durable, StoreDown, Turn, within

_RETRY_S = 1.0

Key = tuple[str, str]  # principal and session
Pair = tuple[Turn, Turn]


class PatientSessions(Durable):
    """A ``ports.SessionStore`` around another.

    Args:
        opened: Opens that, when it is first needed.
        most_bytes: What may wait; beyond it the pairs that have waited longest go.
        clock: Unix time.
    """

    def __init__(
        self,
        opened: Callable[[], Durable],
        bounds: SessionSettings,
        most_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open = opened
        self._opened: Durable | None = None
        self._bounds = bounds
        self._most_bytes = most_bytes
        self._clock = clock
        self._waiting: dict[Key, list[Pair]] = {}  # the session that has waited longest first
        self._bytes = 0
        self._catching_up = asyncio.Lock()  # so that nothing is appended twice
        self._later: asyncio.TimerHandle | None = None
        self._trying: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<PatientSessions {len(self._waiting)} waiting for {self._opened!r}>"

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._bounds, self._most_bytes = settings.sessions, settings.store.memory_bytes
        if self._opened is not None:
            self._opened.apply_settings(settings)

    @override
    async def read(self, principal: str, session: str) -> Conversation | None:
        key = (principal, session)
        await self._catch_up(key)
        found = await self._store.read(principal, session)
        pairs = self._waiting.get(key)
        if not pairs:
            return found
        before = found or Conversation((), pairs[0][0].at, pairs[0][0].at)
        turns = within((*before.turns, *(turn for pair in pairs for turn in pair)), self._bounds, self._clock())
        return Conversation(turns, before.created, pairs[-1][1].at) if turns else None

    @override
    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        """Never raises ``StoreDown``."""
        key = (principal, session)
        await self._catch_up(key)
        if key not in self._waiting:
            try:
                await self._store.append(principal, session, question, answer)
            except StoreDown:
                pass
            else:
                return
        self._waiting.setdefault(key, []).append((question, answer))
        self._bytes += _size((question, answer))
        while self._bytes > self._most_bytes and self._waiting:
            self._drop_oldest()
        self._try_later()

    @override
    async def delete(self, principal: str, session: str) -> bool:
        there = await self._store.delete(principal, session)
        return bool(self._forget((principal, session))) or there

    @override
    async def claim(self, principal: str, session: str) -> bool:
        return await self._store.claim(principal, session)

    @override
    async def yield_up(self, principal: str, session: str) -> None:
        await self._store.yield_up(principal, session)

    @override
    async def close(self) -> None:
        self._closed = True
        if self._later is not None:
            self._later.cancel()
        if self._trying is not None:
            await asyncio.wait([self._trying])
        await self._try_all()
        if self._opened is not None:
            await self._opened.close()

    @property
    def _store(self) -> Durable:
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _try_later(self) -> None:
        """Nobody may ever ask for what waits, so it is appended by itself as soon as that goes."""
        if self._waiting and self._later is None and self._trying is None and not self._closed:
            self._later = asyncio.get_running_loop().call_later(_RETRY_S, self._try_now)

    def _try_now(self) -> None:
        self._later = None
        self._trying = asyncio.get_running_loop().create_task(self._try_all(), name="waiting sessions")
        self._trying.add_done_callback(self._tried)

    def _tried(self, _task: asyncio.Task[None]) -> None:
        self._trying = None
        self._try_later()

    async def _try_all(self) -> None:
        for key in tuple(self._waiting):
            await self._catch_up(key)

    async def _catch_up(self, key: Key) -> None:
        """Append what waits of a session, as far as that goes."""
        if key not in self._waiting:
            return
        async with self._catching_up:
            pairs = self._waiting.get(key, [])
            while pairs:
                try:
                    await self._store.append(*key, *pairs[0])
                except StoreDown:
                    return
                if not pairs:  # forgotten meanwhile
                    return
                self._bytes -= _size(pairs.pop(0))
            self._waiting.pop(key, None)

    def _forget(self, key: Key) -> list[Pair]:
        pairs = self._waiting.pop(key, [])
        self._bytes -= sum(map(_size, pairs))
        return pairs

    def _drop_oldest(self) -> None:
        key, pairs = next(iter(self._waiting.items()))
        self._bytes -= _size(pairs.pop(0))
        if not pairs:
            del self._waiting[key]


def _size(pair: Pair) -> int:
    return sum(len(turn.content.encode()) for turn in pair)
