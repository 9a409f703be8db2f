"""The one link of a process to its Redis server: what is asked, the lease, what is heard, and every outage.

In: scripts with arguments, from the stores. Out: answers, or ``StoreDown`` within about a second; to ``hear``, once per
outage each, that it began and that it is over. A connection that was closed is replaced at once, and is no outage if
that works. Must not: ask twice what would then be done twice, open a connection per asker, or say the password.
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from edge.store.ports import LEASE_S, RENEW_S, StoreDown, StoreListener, Unusable
from edge.store.redis.address import Address
from edge.store.redis.scripts import PREFIX, RENEW, SCHEMA, Script
from edge.store.redis.wire import Ears, Wire

ANSWER_S = 1.0  # who has not answered by then is down
RETRY_S = 1.0  # between looks whether it is back
_AT_ONCE = 64  # questions that are under way; more would be answered no sooner, and their answers take memory
_LEFT_S = 6 * LEASE_S  # how long the key of a lease stays, which says since when a process is gone
_SHOWN_CHARS = 200

Argument = str | bytes | int | float


class _Closed(StoreDown):
    """The connection was closed before the answer came. It is being replaced; the server may have done what it read."""


class Part:
    """What hangs on a link: a store."""

    __slots__ = ()

    async def renew(self) -> None:
        """Keep up what expires unless it is kept up. Raises ``StoreDown``."""
        raise NotImplementedError

    def went_down(self, error: StoreDown | None) -> None:
        """Nothing is heard any more until the next subscription. ``error``: the outage; None if there is none."""
        raise NotImplementedError

    def stop_asked(self, stream_id: str) -> None:
        """Somebody wants that; perhaps more than once."""
        raise NotImplementedError


class RedisLink:
    """A link, shared by the stores of a process; it ends when the last of them has left.

    Args:
        url: ``store.url``.
        hear: Hears of outages, and of streams that are to be stopped.
        clock: Unix time for leases; None is the server's own, which all nodes share.
        renew_s: Seconds between renewals.

    Raises:
        ValueError: ``url`` is wrong; says how.
    """

    def __init__(
        self, url: str, hear: StoreListener, *, clock: Callable[[], float] | None = None, renew_s: float = RENEW_S
    ) -> None:
        self.address = Address(url)
        self.owner = secrets.token_hex(8)
        self.hear = hear
        self.failures = 0
        self.up = asyncio.Event()
        self.up.set()
        self._connections = self.address.connections()
        self._clock = clock
        self._renew_s = renew_s
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._renewing = asyncio.Lock()
        self._parts: list[Part] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ends: set[asyncio.Task[None]] = set()  # of connections; never cancelled
        self._asking: Wire | None = None
        self._writing: Wire | None = None
        self._ears: Ears | None = None
        self._went_down = asyncio.Event()
        self._replacing: asyncio.Task[Any] | None = None  # connections that were closed
        self._since = self._judge_after = 0.0
        self._why: str | None = None
        self._foreign: str | None = None
        self._full = False
        self._leased = False
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "up" if self._why is None else f"down: {self._why}"
        return f"<RedisLink {self.address} {state}>"

    @property
    def now(self) -> str:
        """What scripts judge leases by: empty is the server's time.

        After an outage nobody is gone for a while (0): who has not renewed its lease had no server to do that at.
        """
        return self._now if time.monotonic() >= self._judge_after else "0"

    @property
    def _now(self) -> str:
        return "" if self._clock is None else repr(self._clock())

    @property
    def used(self) -> bool:
        """Whether anything was asked yet."""
        return self._leased

    def join(self, part: Part) -> None:
        """Hang on to it."""
        self._parts.append(part)

    async def leave(self, part: Part) -> None:
        """Let go of it; with the last part the link ends."""
        if part in self._parts:
            self._parts.remove(part)
        if not self._parts and not self._closed:
            self._closed = True
            tasks = tuple(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._hang_up(StoreDown("the store is closed"))
            await asyncio.gather(*self._ends)

    def start(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run something beside the rest, cancelled at the end of the link at the latest."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def check(self) -> None:
        """Raise ``StoreDown`` if it is known to be down; costs nothing."""
        if self._why is not None or self._closed:
            raise StoreDown(self._why or "the store is closed")

    async def ask(self, script: Script, *args: Argument, even_full: bool = False) -> Any:
        """Run a script.

        Args:
            script: What is run.
            args: Its arguments.
            even_full: It frees memory, so it is tried when there is none left.

        Raises:
            StoreDown: no answer in time, or a refusal.
        """

        async def once() -> Any:
            return await self._asked(lambda wire: self._scripted(wire, script, args), even_full=even_full)

        try:
            return await once()
        except _Closed:
            if not script.repeatable:
                raise
            return await once()

    async def command(self, *words: Argument) -> Any:
        """Run a command of Redis' own; raises like ``ask``."""
        return await self._asked(lambda wire: wire.say(*words), even_full=True)

    async def write(self, script: Script, *args: Argument) -> Any:
        """``ask`` beside all who ask, so that much to write does not make them wait."""
        await self._ready()
        await self._begun()
        return await self._tried(self._scripted(self._writing, script, args))

    async def tend(self, script: Script, *args: Argument) -> Any:
        """``ask`` in a ``renew``: also while it is not known yet whether the server is back."""
        return await self._tried(self._scripted(self._asking, script, args))

    async def subscribe(self, channel: str, hear: Callable[[bytes], None]) -> None:
        """Call ``hear`` with each message until ``unsubscribe`` or ``Part.went_down``. Raises ``StoreDown``."""
        try:
            await self._subscribe(channel, hear)
        except _Closed:
            await self._subscribe(channel, hear)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """StoreListener no more of these. Raises ``StoreDown``."""
        if channels and self._ears is not None:
            await self._tried(self._ears.unsubscribe([(PREFIX + channel).encode() for channel in channels]))

    async def open(self) -> None:
        """See at once whether it can be used. If it is only down, ``hear`` learns of it, and of its return.

        Raises:
            Unusable: it holds what another version wrote.
        """
        with contextlib.suppress(StoreDown):
            await self._begun()
        if self._foreign is not None:
            raise Unusable(self._foreign)

    async def renew(self) -> None:
        """Say that this process lives, and keep up what it keeps up. Raises ``StoreDown``."""
        async with self._renewing:
            await self._renew()

    # --- how ---

    @property
    def _replaced_elsewhere(self) -> bool:
        """Another task replaces closed connections, and has not failed so far."""
        return self._replacing not in (None, asyncio.current_task()) and self._why is None

    async def _ready(self) -> None:
        """Wait until closed connections are replaced. Raises ``StoreDown`` if it is down."""
        if self._replacing is not None and self._replaced_elsewhere:
            await asyncio.wait([self._replacing], timeout=ANSWER_S)
        self.check()

    async def _subscribe(self, channel: str, hear: Callable[[bytes], None]) -> None:
        await self._ready()
        await self._begun()
        if self._ears is None:
            raise StoreDown(f"{self.address}: not connected")
        await self._tried(self._ears.subscribe((PREFIX + channel).encode(), hear))

    async def _begun(self) -> None:
        """Have a lease, which comes before all else."""
        if self._leased:
            return
        async with self._renewing:
            if self._leased:
                return
            self.check()
            try:
                await self._renew()
            finally:
                if self._asking is not None or self._why is not None:  # else who asked has left meanwhile
                    self._leased = True
                    self.start(self._keep())

    async def _keep(self) -> None:
        """Renew the lease, or look whether the server is back."""
        while True:
            try:
                async with asyncio.timeout(self._renew_s if self._why is None else RETRY_S):
                    await self._went_down.wait()
                    self._went_down.clear()
            except TimeoutError:
                with contextlib.suppress(StoreDown):
                    await self.renew()

    async def _renew(self) -> None:
        if self._asking is None:
            await self._tried(self._connect())
        left = int(_LEFT_S * 1000)
        there = (await self.tend(RENEW, self._now, self.owner, left, SCHEMA)).decode(errors="replace")
        if there != SCHEMA:
            self._foreign = (
                f"{self.address} holds what only a later version of Edge can read (schema {there}; this one knows "
                f"{SCHEMA}): run that version everywhere, or name another database"
            )
            raise self._failed(self._foreign)
        for part in tuple(self._parts):
            await part.renew()
        if self._why is not None:
            self._why, self._full = None, False
            self._judge_after = time.monotonic() + LEASE_S
            self.up.set()
            self.hear.store_recovered(time.monotonic() - self._since)

    async def _connect(self) -> None:
        opened: list[Wire | Ears] = []

        def lost(error: Exception) -> None:
            self._lost(opened, error)

        asking, writing = Wire(self._connections(), lost), Wire(self._connections(), lost)
        ears = Ears(self._connections(), lost)
        opened += [asking, writing, ears]
        channel = f"{PREFIX}ask:{self.owner}".encode()
        try:
            for one in opened:
                await one.open()
            await ears.subscribe(channel, self._stop_asked)
            if self._closed:
                raise StoreDown("the store is closed")  # noqa: TRY301 - so that what was opened is closed
        except BaseException:
            for one in opened:
                await one.close()
            raise
        self._asking, self._writing, self._ears = asking, writing, ears

    def _stop_asked(self, stream_id: bytes) -> None:
        for part in self._parts:
            part.stop_asked(stream_id.decode())

    def _lost(self, of: Sequence[Wire | Ears], error: Exception) -> None:
        if self._ears not in of:  # they are not in use yet, or not any more
            return
        why = f"{self.address}: {self._text(error)}"
        if self._why is not None or self._replacing is not None or self._closed:
            self._failed(why)
            return
        # Closed by an idle limit, a proxy, an administrator: the server is there, as a rule.
        self._hang_up(_Closed(why))
        self._replacing = self.start(self._replace())
        for part in self._parts:
            part.went_down(None)

    async def _replace(self) -> None:
        try:
            with contextlib.suppress(StoreDown):  # it is down, and that has been reported
                await self.renew()
        finally:
            self._replacing = None

    async def _asked(self, say: Callable[[Wire], Awaitable[Any]], *, even_full: bool) -> Any:
        if not self._leased:
            await self._begun()
        async with self._room:
            if not (even_full and self._full):
                await self._ready()
            return await self._tried(say(self._wire(self._asking)))

    def _wire(self, wire: Wire | None) -> Wire:
        if wire is None:
            raise StoreDown(self._why or f"{self.address}: not connected")
        return wire

    async def _scripted(self, wire: Wire | None, script: Script, args: Sequence[Argument]) -> Any:
        from redis.exceptions import NoScriptError  # noqa: PLC0415 - the extra; loaded by now

        wire = self._wire(wire)
        try:
            return await wire.say("EVALSHA", script.sha, 0, *args)
        except NoScriptError:
            return await wire.say("EVAL", script.text, 0, *args)

    async def _tried(self, work: Awaitable[Any]) -> Any:
        from redis.exceptions import OutOfMemoryError, RedisError  # noqa: PLC0415 - the extra; loaded by now

        try:
            async with asyncio.timeout(ANSWER_S):
                return await work
        except (RedisError, OSError) as error:  # TimeoutError is one of the latter
            text = self._text(error)
            if self._replaced_elsewhere and not isinstance(error, TimeoutError):
                raise _Closed(f"{self.address}: {text}") from None
            if text.startswith("WRONGTYPE"):  # a key of ours that somebody else wrote: no outage
                raise StoreDown(f"{self.address}: {text}") from None
            full = isinstance(error, OutOfMemoryError) or "OOM " in text  # as Redis 6 says it of a script
            text = f"it has no memory left: {text}" if full else text
            raise self._failed(f"{self.address}: {text}", full=full) from None

    def _text(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {ANSWER_S:g} s"
        return self.address.hide(str(error)).partition("\n")[0][:_SHOWN_CHARS] or type(error).__name__

    def _failed(self, why: str, *, full: bool = False) -> StoreDown:
        error = StoreDown(why)
        if self._closed:
            return error
        first = self._why is None
        self._why, self._full = why, full
        self.up.clear()
        if not full:  # else the connections are good
            self._hang_up(error)
        for part in self._parts:
            part.went_down(error)
        if first:
            self.failures += 1
            self._since = time.monotonic()
            self._went_down.set()
            self.hear.store_failed(why)
        return error

    def _hang_up(self, error: StoreDown) -> None:
        for one in (self._asking, self._writing, self._ears):
            if one is not None:
                one.give_up(error)
                end = asyncio.get_running_loop().create_task(one.close())
                self._ends.add(end)
                end.add_done_callback(self._ends.discard)
        self._asking = self._writing = self._ears = None
