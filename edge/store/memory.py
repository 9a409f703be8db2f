"""Conversations in this process's memory: bounded, and gone when it ends.

In: turns. Out: what ``base.SessionStore`` promises. Must not: keep what is too old any longer than until it is next
asked for anything.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.base import Conversation, Turn, within


class MemorySessions:
    """A ``base.SessionStore``."""

    def __init__(self, bounds: SessionSettings, clock: Callable[[], float] = time.time) -> None:
        self._bounds = bounds
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str], Conversation] = OrderedDict()  # the one unused for longest first

    def __repr__(self) -> str:
        return f"<MemorySessions {len(self._kept)}>"

    def follow(self, settings: Settings) -> None:
        """Other settings are in force; what is over them goes when it is next asked for, or the next turn is kept."""
        self._bounds = settings.sessions

    async def read(self, principal: str, session: str) -> Conversation | None:
        """See ``base.SessionStore``."""
        return self._found((principal, session))

    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        """See ``base.SessionStore``."""
        key = (principal, session)
        before = self._found(key) or Conversation((), question.at, question.at)
        turns = within((*before.turns, question, answer), self._bounds, self._clock())
        self._kept[key] = Conversation(turns, before.created, answer.at)
        self._kept.move_to_end(key)
        while len(self._kept) > self._bounds.max_sessions:
            self._kept.popitem(last=False)

    async def delete(self, principal: str, session: str) -> bool:
        """See ``base.SessionStore``."""
        found = self._found((principal, session)) is not None
        self._kept.pop((principal, session), None)
        return found

    async def claim(self, principal: str, session: str) -> bool:  # noqa: ARG002 - there is no other process
        """See ``base.SessionStore``."""
        return True

    async def yield_up(self, principal: str, session: str) -> None:
        """See ``base.SessionStore``."""

    async def close(self) -> None:
        """See ``base.SessionStore``."""
        self._kept.clear()

    def _found(self, key: tuple[str, str]) -> Conversation | None:
        now = self._clock()
        while self._kept and next(iter(self._kept.values())).updated < now - self._bounds.max_age_s:
            self._kept.popitem(last=False)
        found = self._kept.get(key)
        if found is None:
            return None
        turns = within(found.turns, self._bounds, now)
        return Conversation(turns, found.created, found.updated) if turns else None
