"""Sessions: conversations that Edge remembers. One request at a time has one; its turns are stored at its end.

In: requests that want a session; generations that have ended, or that nobody reads. Out: the conversation so far; turns
for the store; the stop of a generation that nobody reads while another request waits. Must not: store a question
without its answer, or depend on the handler's task, which may be gone before the end.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from weakref import WeakValueDictionary

from edge.errors import Conflict
from edge.policy.lifecycle import LifecycleEvent, Outcome
from edge.settings import Sessions as SessionSettings
from edge.settings import Settings
from edge.store.ports import Conversation, SessionStore, StoreDown, Turn
from edge.stream.generation import Generation
from edge.stream.persistence import unavailable

# If the store takes longer to keep an answer, the readers see the end without it.
_KEEP_S = 2.0
_READ_S = 5.0  # how long a read of a session waits for an answer that is being stored
_LOOK_S = 0.1  # between two looks whether another process has given a session back

Key = tuple[str, str]  # principal and session


class Held:
    """A session that one request has to itself, until ``settle`` or ``release``.

    Attributes:
        turns: The conversation so far.
        since: Unix time when the request got it.
        generation: The answer, once there is one.
    """

    def __init__(self, sessions: "Sessions", key: Key, lock: asyncio.Lock, turns: tuple[Turn, ...]) -> None:
        self.key = key
        self.turns = turns
        self.since = sessions.clock()
        self.generation: Generation | None = None
        self._sessions = sessions
        self._lock: asyncio.Lock | None = lock

    @property
    def generating(self) -> bool:
        """Whether its answer has not ended; else it only has to be stored."""
        return self.generation is None or self.generation.outcome is None

    def detached(self) -> None:
        """The last reader has left: stop generating if another request waits for the session, else go on."""
        if self._sessions.wanted(self.key):
            self.give_up()

    def give_up(self) -> bool:
        """Stop the generation if nobody reads it; whether it did. The part that was generated is stored."""
        if self.generation is None or not self.generation.detached:
            return False
        self.generation.stop(LifecycleEvent.STOP)
        return True

    def settle(self, message: str, generation: Generation, outcome: Outcome, announce: Callable[[], None]) -> None:
        """Generating has ended: store the answer, if there is one, and let the next request have the session.

        ``announce`` shows the readers the end. It is called once the store has the answer, so that a client that has
        seen the end can read the session from any process; at the latest after ``_KEEP_S``.
        """
        self._sessions.settle(self, message, generation, outcome, announce)

    def release(self) -> None:
        """Let the next request have the session; idempotent."""
        lock, self._lock = self._lock, None  # a lock lives only as long as somebody refers to it
        if lock is not None:
            self._sessions.let_go(self.key, lock)


def _busy(session: str) -> Conflict:
    return Conflict(f"another request has the session {session!r}; send this one after it", code="session_busy")


class Sessions:
    """All sessions of this process.

    Args:
        clock: Unix time.
    """

    def __init__(self, store: SessionStore, settings: SessionSettings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self.clock = clock
        self._store = store
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()  # while a request wants the session
        self._held: dict[Key, Held] = {}
        self._waiting: Counter[Key] = Counter()
        self._running: set[asyncio.Task[None]] = set()
        self._keeping: dict[Key, asyncio.Task[None]] = {}  # storing the latest answer of a session

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._settings = settings.sessions

    async def hold(self, principal: str, session: str) -> Held:
        """Get a session for one request alone, after the one that has it now. An answer that nobody reads is stopped.

        Raises:
            Conflict: another request has it, and ``sessions.busy`` says not to wait.
            StoreUnavailable: the conversation cannot be read now.
        """
        key = (principal, session)
        lock = self._locks.setdefault(key, asyncio.Lock())
        holder = self._held.get(key)
        given_up = holder is not None and holder.give_up()
        if holder is not None and holder.generating and self._settings.busy == "conflict" and not given_up:
            raise _busy(session)
        self._waiting[key] += 1
        try:
            await lock.acquire()
        finally:
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
        try:
            await self._claim(key)
        except BaseException:
            lock.release()
            raise
        held = self._held[key] = Held(self, key, lock, ())
        try:
            found = await self.read(principal, session)
        except BaseException:
            held.release()
            raise
        held.turns = () if found is None else found.turns
        return held

    async def _claim(self, key: Key) -> None:
        """Wait until no other process that shares the store has the session."""
        try:
            while not await self._store.claim(*key):
                if self._settings.busy == "conflict":
                    raise _busy(key[1])
                await asyncio.sleep(_LOOK_S)
        except StoreDown:
            raise unavailable() from None

    def wanted(self, key: Key) -> bool:
        """Whether a request waits for this session."""
        return key in self._waiting

    def let_go(self, key: Key, lock: asyncio.Lock) -> None:
        """See ``Held.release``."""
        del self._held[key]
        self._run(self._yield_up(key, lock))

    async def _yield_up(self, key: Key, lock: asyncio.Lock) -> None:
        try:
            with contextlib.suppress(StoreDown):  # then the claim lapses, or the store does it later
                await self._store.yield_up(*key)
        finally:
            lock.release()

    async def read(self, principal: str, session: str) -> Conversation | None:
        """The conversation of a session as it is now; None if there is none.

        Raises:
            StoreUnavailable: it cannot be read now.
        """
        keeping = self._keeping.get((principal, session))
        if keeping is not None:  # readers have seen its end, but it is not stored yet
            await asyncio.wait({keeping}, timeout=_READ_S)
        try:
            return await self._store.read(principal, session)
        except StoreDown:
            raise unavailable() from None

    async def delete(self, principal: str, session: str) -> bool:
        """Delete a conversation; whether there was one.

        Raises:
            Conflict: see ``hold``; an answer that is being generated would bring it back.
            StoreUnavailable: see ``read``.
        """
        held = await self.hold(principal, session)
        try:
            return await self._store.delete(principal, session)
        except StoreDown:
            raise unavailable() from None
        finally:
            held.release()

    def settle(
        self, held: Held, message: str, generation: Generation, outcome: Outcome, announce: Callable[[], None]
    ) -> None:
        """See ``Held.settle``."""
        text, cut = None, False
        try:
            said = {} if generation.codec is None else generation.codec.answer()
            text, cut = said.get("content"), bool(said.get("cut"))
        finally:
            if not isinstance(text, str) or not text:
                announce()
                held.release()  # a question without an answer is no turn
        if isinstance(text, str) and text:
            question = Turn("user", message, held.since)
            answer = Turn("assistant", text, self.clock(), partial=outcome is not Outcome.COMPLETE or cut)
            self._keeping[held.key] = self._run(self._keep(held, question, answer, announce))

    async def close(self) -> None:
        """Wait until all answers that have ended are stored."""
        while self._running:  # storing one begins to give its session back
            await asyncio.wait(self._running)

    def _run(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _keep(self, held: Held, question: Turn, answer: Turn, announce: Callable[[], None]) -> None:
        late = asyncio.get_running_loop().call_later(_KEEP_S, announce)
        try:
            await self._store.append(*held.key, question, answer)
        finally:
            late.cancel()
            del self._keeping[held.key]
            try:
                announce()
            finally:
                held.release()
