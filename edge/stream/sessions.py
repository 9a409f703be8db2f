"""Conversations and their requests: one request at a time on each, and what is kept of it when it has ended.

In: requests that want a session; generations that have ended, or that nobody reads. Out: the conversation so far; turns
for the store; a stop for what nobody reads while somebody waits. Must not: keep half a pair, or depend on a handler to
live until the end: whoever asked may be gone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from weakref import WeakValueDictionary

from edge.errors import Conflict
from edge.policy.lifecycle import Happened, Outcome
from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.base import Conversation, SessionStore, Turn
from edge.stream.generation import Generation

Key = tuple[str, str]  # principal and session


class Held:
    """A session that one request has to itself, until ``settle`` or ``release``.

    Attributes:
        turns: Of the conversation so far.
        since: Unix time when it was taken.
        generation: What is being said, once it is.
    """

    def __init__(self, sessions: "Sessions", key: Key, lock: asyncio.Lock, turns: tuple[Turn, ...]) -> None:
        self.key = key
        self.turns = turns
        self.since = sessions.clock()
        self.generation: Generation | None = None
        self._sessions = sessions
        self._lock: asyncio.Lock | None = lock

    def forsaken(self) -> None:
        """The last reader has left, and another may come back to it; unless somebody waits for the session."""
        if self._sessions.wanted(self.key):
            self.give_up()

    def give_up(self) -> bool:
        """Stop what nobody reads; whether there was such a thing. What came of it is kept, as it is of any stop."""
        if self.generation is None or not self.generation.forsaken:
            return False
        self.generation.stop(Happened.STOP)
        return True

    def settle(self, message: str, generation: Generation) -> None:
        """The generation has ended: keep what was said, if anything was, and let the next request have the session."""
        self._sessions.settle(self, message, generation)

    def release(self) -> None:
        """Let the next request have the session; idempotent."""
        lock, self._lock = self._lock, None  # it lives only as long as somebody holds on to it
        if lock is not None:
            self._sessions.free(self.key)
            lock.release()


class Sessions:
    """All conversations, as requests see them.

    Args:
        clock: Unix time.
    """

    def __init__(self, store: SessionStore, settings: SessionSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self.clock = clock
        self._store = store
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()  # as long as anybody wants it
        self._held: dict[Key, Held] = {}
        self._waiting: Counter[Key] = Counter()
        self._settling: set[asyncio.Task[None]] = set()

    def follow(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._settings = settings.sessions

    async def take(self, principal: str, session: str) -> Held:
        """Have a session to oneself. What is said on it that nobody reads is stopped for that.

        Raises:
            Conflict: another request has it, and ``sessions.busy`` says not to wait for that.
        """
        key = (principal, session)
        lock = self._locks.setdefault(key, asyncio.Lock())
        holder = self._held.get(key)
        given_up = holder is not None and holder.give_up()
        if lock.locked() and self._settings.busy == "conflict" and not given_up:
            raise Conflict(f"the session {session!r} is being answered; send this after it", code="session_busy")
        self._waiting[key] += 1
        try:
            await lock.acquire()
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        try:
            found = await self._store.read(principal, session)
        except BaseException:
            lock.release()
            raise
        held = self._held[key] = Held(self, key, lock, () if found is None else found.turns)
        return held

    def wanted(self, key: Key) -> bool:
        """Whether somebody waits for this session."""
        return key in self._waiting

    def free(self, key: Key) -> None:
        """Nobody has it just now."""
        del self._held[key]

    async def read(self, principal: str, session: str) -> Conversation | None:
        """A conversation as it is now; None if there is none."""
        return await self._store.read(principal, session)

    async def delete(self, principal: str, session: str) -> bool:
        """Forget a conversation; whether there was one.

        Raises:
            Conflict: see ``take``: what is being said would bring it back.
        """
        held = await self.take(principal, session)
        try:
            return await self._store.delete(principal, session)
        finally:
            held.release()

    def settle(self, held: Held, message: str, generation: Generation) -> None:
        """See ``Held.settle``."""
        complete = generation.outcome is Outcome.COMPLETE
        said = {} if generation.codec is None else generation.codec.answer()
        text = said.get("content")
        if not isinstance(text, str) or not text:
            held.release()  # a question without an answer is no turn
            return
        question = Turn("user", message, held.since)
        answer = Turn("assistant", text, self.clock(), partial=not complete or bool(said.get("cut")))
        task = asyncio.get_running_loop().create_task(self._keep(held, question, answer))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def close(self) -> None:
        """Wait until everything that ended is kept, then close the store."""
        if self._settling:
            await asyncio.wait(self._settling)
        await self._store.close()

    async def _keep(self, held: Held, question: Turn, answer: Turn) -> None:
        try:
            await self._store.append(*held.key, question, answer)
        finally:
            held.release()
