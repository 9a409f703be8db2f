"""Conversations in a Redis server, shared by several nodes.

In: turns; claims. Out: what ``ports.SessionStore`` promises. Must not: overwrite what another node has added meanwhile.
"""

import secrets
import time
from collections.abc import Callable

import orjson
from typing_extensions import override

from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.ports import LEASE_S, Conversation, Durable, StoreDown, Turn, within
from edge.store.redis.fields import known
from edge.store.redis.link import Part, RedisLink
from edge.store.redis.scripts import whose
from edge.store.redis.session_scripts import CLAIM, HOLD, KEEP, RECALL, UNLEARN, YIELD_UP

_CLAIM_MS = int(6 * LEASE_S * 1000)  # a claim counts while its owner's lease does; this is for its key to go
_AT_A_TIME = 500


class RedisSessions(Durable, Part):
    """A ``ports.SessionStore``. ``clock`` is Unix time, for the age of turns."""

    def __init__(self, link: RedisLink, bounds: SessionSettings, clock: Callable[[], float] = time.time) -> None:
        self._link = link
        self._bounds = bounds
        self._clock = clock
        self._claims: set[str] = set()
        self._owed: set[str] = set()  # claims to be given up when Redis is back
        self._closed = False
        link.join(self)

    def __repr__(self) -> str:
        return f"<RedisSessions {self._link!r} {len(self._claims)} claimed>"

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force; what is over them goes with the next turn that is kept."""
        self._bounds = settings.sessions

    @override
    async def read(self, principal: str, session: str) -> Conversation | None:
        _, document = await self._link.ask(RECALL, whose(principal, session))
        return self._current(document)

    @override
    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        """If another node was faster, its turns come first."""
        name = whose(principal, session)
        kept = 0
        while not kept:
            version, document = await self._link.ask(RECALL, name)
            before = self._current(document) or Conversation((), question.at, question.at)
            turns = within((*before.turns, question, answer), self._bounds, self._clock())
            facts = {} if document is None else orjson.loads(document)
            said = [*facts.get("turns", ()), question, answer]  # a later version may say more of a turn
            facts |= {"turns": said[len(said) - len(turns) :], "created": before.created, "updated": answer.at}
            after = orjson.dumps(facts)
            left = max(1, int(self._bounds.max_age_s * 1000))
            most = self._bounds.max_sessions
            kept = await self._link.ask(KEEP, name, version or "", secrets.token_hex(8), after, left, most)

    @override
    async def delete(self, principal: str, session: str) -> bool:
        """Also when Redis is full."""
        document = await self._link.ask(UNLEARN, whose(principal, session), even_full=True)
        return self._current(document) is not None

    @override
    async def claim(self, principal: str, session: str) -> bool:
        name = whose(principal, session)
        if not await self._link.ask(CLAIM, self._link.now, self._link.owner, _CLAIM_MS, name):
            return False
        self._claims.add(name)
        self._owed.discard(name)
        return True

    @override
    async def yield_up(self, principal: str, session: str) -> None:
        """If Redis is down, it is done when that is back."""
        name = whose(principal, session)
        self._claims.discard(name)
        try:
            await self._link.ask(YIELD_UP, self._link.owner, name, even_full=True)
        except StoreDown:
            self._owed.add(name)

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            if self._claims:
                await self._link.ask(YIELD_UP, self._link.owner, *self._claims, even_full=True)
        except StoreDown:
            pass  # the lease lapses by itself
        finally:
            self._claims.clear()
            await self._link.leave(self)

    @override
    async def renew(self) -> None:
        if self._owed:
            await self._link.tend(YIELD_UP, self._link.owner, *self._owed)
            self._owed.clear()
        names = list(self._claims)
        for at in range(0, len(names), _AT_A_TIME):
            await self._link.tend(HOLD, self._link.owner, _CLAIM_MS, *names[at : at + _AT_A_TIME])

    @override
    def went_down(self, error: StoreDown | None) -> None:
        """Whoever asked gets the error, nobody else waits."""

    @override
    def stop_asked(self, stream_id: str) -> None:
        """Not of ours."""

    def _current(self, document: bytes | None) -> Conversation | None:
        """What of it is not too old."""
        if document is None:
            return None
        facts = orjson.loads(document)
        turns = within(tuple(known(Turn, turn) for turn in facts["turns"]), self._bounds, self._clock())
        return Conversation(turns, facts["created"], facts["updated"]) if turns else None
