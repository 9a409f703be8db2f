"""Conversations in this process's memory: bounded, and gone when it ends.

In: turns. Out: what ``ports.SessionStore`` promises. Must not: keep what is too old any longer than until it is next
asked for anything.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from typing_extensions import override

from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.settings import Store as StoreSettings
from edge.store.ports import Conversation, Durable, Turn, within

Key = tuple[str, str]  # principal and session


class MemorySessions(Durable):
    """A ``ports.SessionStore``.

    Args:
        most_bytes: ``store.memory_bytes``: text of all sessions together.
        clock: Unix time.
    """

    def __init__(
        self,
        bounds: SessionSettings,
        clock: Callable[[], float] = time.time,
        *,
        most_bytes: int = StoreSettings().memory_bytes,
    ) -> None:
        self._bounds = bounds
        self._clock = clock
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Key, Conversation] = OrderedDict()  # the one unused for longest first

    def __repr__(self) -> str:
        return f"<MemorySessions {len(self._kept)}, {self._bytes} B>"

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force; what is over them goes when it is next asked for, or the next turn is kept."""
        self._bounds = settings.sessions
        self._most_bytes = settings.store.memory_bytes

    @override
    async def read(self, principal: str, session: str) -> Conversation | None:
        return self._found((principal, session))

    @override
    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        key = (principal, session)
        before = self._found(key) or Conversation((), question.at, question.at)
        turns = within((*before.turns, question, answer), self._bounds, self._clock())
        self._drop(key)
        self._kept[key] = Conversation(turns, before.created, answer.at)
        self._bytes += _size(self._kept[key])
        while len(self._kept) > self._bounds.max_sessions or self._bytes > self._most_bytes:
            self._drop(next(iter(self._kept)))

    @override
    async def delete(self, principal: str, session: str) -> bool:
        found = self._found((principal, session)) is not None
        self._drop((principal, session))
        return found

    @override
    async def claim(self, principal: str, session: str) -> bool:
        """No other process shares this."""
        return True

    @override
    async def yield_up(self, principal: str, session: str) -> None:
        pass

    @override
    async def close(self) -> None:
        self._kept.clear()
        self._bytes = 0

    def _found(self, key: Key) -> Conversation | None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).updated < now - self._bounds.max_age_s:
            self._drop(next(iter(self._kept)))
        found = self._kept.get(key)
        if found is None:
            return None
        turns = within(found.turns, self._bounds, now)
        return Conversation(turns, found.created, found.updated) if turns else None

    def _drop(self, key: Key) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._bytes -= _size(gone)


def _size(conversation: Conversation) -> int:
    """Bytes of its text."""
    return sum(len(turn.content.encode()) for turn in conversation.turns)
