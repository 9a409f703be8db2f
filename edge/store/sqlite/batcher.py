"""When the file is written and looked at, as the loop sees it: by rounds, one in 50 ms while there is anything.

In: what the stores that are in the file want written, read or looked for. Out: that, once it is done; one report per
outage. Must not: let the loop wait for the disk, or anybody wait for a disk that hangs; or give up: while the file
cannot be written it tries again.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from edge.store.ports import InDoubt, StoreDown, StoreListener, Unusable
from edge.store.sqlite.damage import is_damage
from edge.store.sqlite.file import look_at
from edge.store.sqlite.lease import Lease
from edge.store.sqlite.watch import FAULTS, Moved
from edge.store.sqlite.worker import Part, Reader, Round, Writer, WriteTask
from edge.threads import Threads

T = TypeVar("T")

BATCH_S = 0.05
_IDLE_S = 60.0  # between rounds while there is nothing: only what has expired goes
_RETRY_S = 2.0
_LOCKED_S = 5.0
_HUNG_S = 10.0  # twice what another process may hold the lock: the longest that anybody, or the end, waits for the disk


class SqliteFile:
    """The file, as its stores (``Part``) share it within a process. Nothing is opened before it is used.

    Args:
        path: See ``opening.path_of``.
        clock: Unix time.
        monotonic: See ``Lease``.
        retry_s: Between tries while the file cannot be written.
        locked_s: How long another process may hold it before the store counts as down.
        hung_s: How long the disk may take to answer before the store counts as down.
    """

    def __init__(
        self,
        path: Path,
        hear: StoreListener,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        retry_s: float = _RETRY_S,
        locked_s: float = _LOCKED_S,
        hung_s: float = _HUNG_S,
    ) -> None:
        self.path = path
        self.hear = hear
        self.lease = Lease(clock, monotonic)
        self.up = True
        self.failures = 0
        self.hung_s = hung_s
        self._retry_s = retry_s
        self._why = ""
        self._down_since = 0.0
        self._parts: list[Part] = []
        self._users: list[object] = []
        self._chores: list[Callable[[sqlite3.Connection], None]] = []
        self._closed = False
        self._moved = False  # the last round is to be had again: somebody took the file away
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Future[Round] | None = None
        self._writer = Writer(path, locked_s, self.lease, self._parts)
        self._reader = Reader(path, locked_s)
        self._writing = Threads(1, "edge-store-write")
        self._reading = Threads(1, "edge-store-read")
        self._hung_read: Future[Any] | None = None

    def __repr__(self) -> str:
        return f"<SqliteFile {self.path}{'' if self.up else ' down: ' + self._why}>"

    def join(self, part: Part) -> None:
        """One more store is in the file, which takes part in the rounds."""
        self._parts.append(part)
        self._users.append(part)

    def use(self, user: object) -> None:
        """One more store is in the file, which only reads and changes it. ``leave`` must follow."""
        self._users.append(user)

    async def start(self) -> None:
        """See that the file can be used, if there is one.

        Raises:
            Unusable: it cannot, whatever happens. (If it only cannot be opened now, the store is down.)
        """
        try:
            if not await self._read(self.path.exists):
                return
            await self._answer(self._on_writer(self._writer.open))
        except Unusable:
            raise
        except FAULTS as error:
            self._failed(error)
        self._report()
        self._arm()

    def want(self, within_s: float) -> None:
        """Have a round soon."""
        if self._round is not None or self._closed:
            return  # after the one that runs, it is seen what is wanted
        loop = asyncio.get_running_loop()
        at = loop.time() + (within_s if self.up else self._retry_s)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = loop.call_at(at, self._begin)

    def after_commit(self, do: Callable[[sqlite3.Connection], None]) -> None:
        """Have something done with the next round that succeeds, in its transaction."""
        self._chores.append(do)
        self.want(BATCH_S)

    async def flush(self) -> None:
        """Have everything written that is there by now.

        Raises:
            StoreDown: it could not be, or not in time.
        """
        if not self.up:
            raise StoreDown(self._why)
        await self._end_of_round()
        if not self.up or self._closed:
            raise StoreDown(self._why)
        self._moved = True
        while self._moved and self.up:
            if self._round is None:
                self._begin()
            await self._end_of_round()
        if not self.up:
            raise StoreDown(self._why)

    async def read(self, ask: Callable[[sqlite3.Connection], T], nothing: T) -> T:
        """What the file says; ``nothing`` while there is no file.

        Raises:
            StoreDown: it cannot be asked.
        """
        if self._closed:
            raise StoreDown("the store is closed")
        if self._hung_read is not None and not self._hung_read.done():  # not each of many is to wait for it
            raise StoreDown(_told(self.path, self._no_answer()))
        ask_it = partial(self._reader.read, ask, nothing, up=self.up)
        try:
            try:
                return await self._read(ask_it)
            except sqlite3.Error as error:
                if not is_damage(error):
                    raise
            await self._write(self._writer.mend)
            return await self._read(ask_it)
        except FAULTS as error:
            self.failures += 1
            raise StoreDown(_told(self.path, error)) from error

    async def look(self) -> None:
        """See whether somebody has deleted, replaced or cut the file, and open it anew if so. Cheap if not.

        Raises:
            StoreDown: it cannot be opened.
        """
        file = self._writer.file
        try:
            as_it_was = not file.is_suspect() and (file.connection is not None or look_at(self.path) is None)
        except OSError as error:
            raise StoreDown(_told(self.path, error)) from None
        if not as_it_was:
            await self._write(self._writer.open)

    async def change(self, do: Callable[[sqlite3.Connection], T], *, however_long: bool = False) -> T:
        """Have something done at once, in a transaction of its own.

        Args:
            do: Does it, in the writer's thread.
            however_long: Wait for the outcome even if the disk hangs; for what no request waits for.

        Raises:
            StoreDown: it is not done; or, as ``InDoubt``, may be.
        """
        late = False

        def in_time(connection: sqlite3.Connection) -> T:
            result = do(connection)
            if late:  # whoever asked has seen it fail: it is rolled back
                raise self._no_answer()
            return result

        try:
            return await self._write(partial(self._writer.change, in_time), however_long=however_long)
        except InDoubt:
            late = True
            raise

    async def shrink(self) -> None:
        """Give what is free in the file back to the file system.

        Raises:
            StoreDown: not all of it.
        """
        while await self._write(self._writer.vacuum):
            pass

    async def _write(self, do: Callable[[], T], *, however_long: bool = False) -> T:
        if not self.up or self._closed:
            raise StoreDown(self._why or "the store is closed")
        work = self._on_writer(do)
        try:
            return await (work if however_long else self._answer(work))
        except FAULTS as error:
            self._failed(error)
            self.want(self._retry_s)
            raise (InDoubt if isinstance(error, TimeoutError) else StoreDown)(self._why) from error
        finally:
            self._report()

    def _on_writer(self, do: Callable[[], T]) -> asyncio.Future[T]:
        """Have the writer's thread do something. If that takes too long the store is down, whoever waits for it."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._writing, do)
        hung = loop.call_later(self.hung_s, self._hung)
        work.add_done_callback(lambda _: hung.cancel())
        return work

    async def _read(self, do: Callable[[], T]) -> T:
        """Have the reader's thread do something. Raises ``TimeoutError`` if it takes too long."""
        work = self._reading.submit(do)
        try:
            return await self._answer(asyncio.wrap_future(work))
        except TimeoutError:
            if work.running():
                self._hung_read = work
            raise

    def _hung(self) -> None:
        self._failed(self._no_answer())
        self.want(self._retry_s)

    def _no_answer(self) -> TimeoutError:
        return TimeoutError(f"no answer from the disk within {self.hung_s:g} s")

    async def _answer(self, work: asyncio.Future[T]) -> T:
        """What a thread's work comes to. What has not begun by the end of the wait will not be done.

        Raises:
            TimeoutError: nothing, within ``hung_s``.
        """
        try:
            async with asyncio.timeout(self.hung_s):
                return await work
        except TimeoutError:
            if work.cancelled():
                raise self._no_answer() from None
            raise

    async def _end_of_round(self) -> None:
        """Wait for the round that runs, if one does.

        Raises:
            StoreDown: it takes too long.
        """
        if self._round is not None:
            _, hung = await asyncio.wait({self._round}, timeout=self.hung_s)
            if hung:
                raise StoreDown(_told(self.path, self._no_answer()))

    def sweep_soon(self) -> None:
        """What is over the bounds is to go with the next round."""
        self._writer.sweep_at = 0.0

    def size(self) -> int:
        """Bytes of the file, and of what belongs to it; from any thread."""
        return sum(beside.stat().st_size for end in ("", "-wal") if (beside := Path(f"{self.path}{end}")).exists())

    async def leave(self, user: object) -> None:
        """A store is closed; with the last one, the file is."""
        if user not in self._users:
            return
        self._users.remove(user)
        part = next((part for part in self._parts if part is user), None)
        if self._users:
            if part is not None:
                with contextlib.suppress(StoreDown):
                    await self.flush()
                    await self.change(lambda connection: part.leave(connection, self.lease.now()))
                self._parts.remove(part)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.hung_s):
                await self._leave(part)
        self._closed = True  # also if that was not done in time
        if self._timer is not None:
            self._timer.cancel()
        self._parts.clear()
        self._writing.shutdown(wait=False)
        self._reading.shutdown(wait=False)

    async def _leave(self, part: Part | None) -> None:
        with contextlib.suppress(StoreDown):
            await self.flush()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if self._round is not None:
            await asyncio.wait({self._round})
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._reader.drop)
        await loop.run_in_executor(self._writing, self._writer.end, part)

    def _arm(self) -> None:
        """Have the next round when the stores want it."""
        intervals = [BATCH_S if self._chores else None, *(part.interval_s for part in self._parts)]
        self.want(min((interval for interval in intervals if interval is not None), default=_IDLE_S))

    def _begin(self) -> None:
        """Begin a round."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        tasks = [task for part in self._parts if (task := part.next_task()) is not None]
        followups, self._chores = self._chores, []
        active = any(part.interval_s is not None for part in self._parts)
        self._round = self._on_writer(partial(self._writer.go, tasks, followups, active=active))
        self._round.add_done_callback(lambda round_: self._finish(round_, tasks, followups))

    def _finish(
        self,
        round_: asyncio.Future[Round],
        tasks: list[WriteTask],
        followups: list[Callable[[sqlite3.Connection], None]],
    ) -> None:
        self._round = None
        self._moved = False
        self._report()
        try:
            done = round_.result()
        except Moved:
            self._moved = True
            self._chores[:0] = followups
            for task in tasks:
                task.failed()
        except Exception as error:  # noqa: BLE001 - whatever it is, what is streamed goes on
            self._chores[:0] = followups
            self._failed(error)
            for task in tasks:
                task.failed()
        else:
            if done.fault is None:
                self._recovered()
            else:
                self._failed(done.fault)
            for task in tasks:
                task.done()
            for notify in done.seen:
                notify()
        self._arm()

    def _report(self) -> None:
        """Report what became of the file; let go of one that has gone."""
        news = self._writer.file.news
        if news and not self._closed:
            self._reading.submit(self._reader.drop_if_moved)
        while news:
            self.hear.store_reopened(news.pop(0))

    def _failed(self, error: BaseException) -> None:
        self.failures += 1
        if self.up:
            self.up = False
            self._why = _told(self.path, error)
            self._down_since = time.monotonic()
            self.hear.store_failed(self._why)

    def _recovered(self) -> None:
        if not self.up:
            self.up = True
            self._why = ""
            self.hear.store_recovered(time.monotonic() - self._down_since)


def _told(path: Path, error: BaseException) -> str:
    if isinstance(error, Unusable):
        return str(error)
    return f"{path}: {'out of memory' if isinstance(error, MemoryError) else error}"
