"""What is still to be written to Redis: gathered on the loop, and written all at once a few dozen times a second.

In: what streams of this process do. Out: ``scripts.WRITE`` with many of those, in order, each until Redis has
confirmed it; whether all of a stream got there. Must not: let a stream wait, hold more than ``MOST_BYTES``, or leave a
gap in a stream that is said to be kept.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal

import orjson
from typing_extensions import override

from edge.store.ports import LEASE_S, Ending, StoreDown, StreamLog, StreamMeta
from edge.store.redis.link import Argument, RedisLink
from edge.store.redis.scripts import TEND, WRITE

GATHER_S = 0.03  # how long what is appended may wait for company
MOST_BYTES = 32 * 2**20
_JOINED_BYTES = 16 * 1024  # of an entry: what a reader gets at least
_CALL_BYTES = 2**20  # of a call, and
_CALL_OPERATIONS = 512  # likewise, as all of Redis waits for it
_TENDED = 500  # streams of a call
_OPERATION_BYTES = 600  # what one takes beside its data
_PART_BYTES = 50
_LAST_S = 5.0  # for what is left at the end

Kind = Literal["begin", "append", "end", "drop"]
Settled = Callable[[bool], None]


class _Operation:
    """One thing to do with a stream."""

    __slots__ = ("count", "facts", "kind", "last", "log", "number", "parts", "since", "size", "weight")

    def __init__(
        self, kind: Kind, log: "RedisLog", since: float, number: int, facts: tuple[Argument, ...] = ()
    ) -> None:
        self.kind = kind
        self.log: RedisLog | None = log  # None if it need not be done any more
        self.since = since
        self.number = number
        self.facts = facts
        self.parts: list[bytes] = []
        self.size = self.count = self.last = 0
        self.weight = _OPERATION_BYTES

    def arguments(self, stream_id: str) -> Iterator[Argument]:
        """Seven, as the script takes them."""
        yield self.kind
        yield stream_id
        if self.kind == "append":
            yield from (self.last, self.count, b"".join(self.parts), "", "")
        else:
            yield from self.facts
            yield from ("",) * (5 - len(self.facts))


class RedisLog(StreamLog):
    """A ``ports.StreamLog``."""

    __slots__ = (
        "_last",
        "_writer",
        "broken",
        "joined",
        "meta",
        "open",
        "pending",
        "sent",
        "settled",
        "stopped",
        "there",
    )

    def __init__(self, writer: "Writer", meta: StreamMeta) -> None:
        self.meta = meta
        self.joined = min(_JOINED_BYTES, meta.keep_bytes // 4)  # so that the bound can be kept, nearly
        self.broken = False  # something is missing, so nothing more is written
        self.sent = False  # something is there, or may be
        self.there = False  # its beginning is, for sure
        self.stopped = False
        self.settled: Settled | None = None
        self.pending: deque[_Operation] = deque()  # not confirmed yet
        self.open: _Operation | None = None  # the last of those, if more can join it
        self._writer = writer
        self._last = 0

    @override
    def append(self, data: bytes, count: int) -> None:
        self._last += count
        if not self.broken:
            self._writer.append(self, data, count, self._last)

    @override
    def end(self, ending: Ending, upstream: str | None, reconnections: int, settled: Settled) -> None:
        facts = (self._last, orjson.dumps(ending), upstream or "", repr(ending.at), reconnections)
        self._writer.end(self, facts, settled)


class Writer:
    """Writes behind. ``keep_s`` is ``store.keep_s``."""

    def __init__(self, link: RedisLink, keep_s: float) -> None:
        self.keep_s = keep_s
        self.live: dict[str, RedisLog] = {}
        self.backlog = 0
        self._link = link
        self._queue: deque[_Operation] = deque()
        self._flying: list[_Operation] = []
        self._undone = 0  # operations in the queue that need not be done
        self._number = 0
        self._some = asyncio.Event()
        self._hurry = asyncio.Event()
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue) + len(self._flying) - self._undone

    @property
    def lag_s(self) -> float:
        """How long the oldest has waited."""
        for operation in (*self._flying[:1], *self._queue):
            if operation.log is not None:
                return asyncio.get_running_loop().time() - operation.since
        return 0.0

    # --- what streams do ---

    def begin(self, meta: StreamMeta) -> RedisLog:
        """A stream begins."""
        if self._task is None:
            self._task = self._link.start(self._run())
        log = RedisLog(self, meta)
        if self.backlog >= MOST_BYTES:
            log.broken = True
            return log
        self.live[meta.id] = log
        facts = (orjson.dumps(meta), meta.principal, repr(meta.created), meta.keep_bytes)
        self._put(_Operation("begin", log, self._now(), self._next(), facts), len(facts[0]))
        return log

    def append(self, log: RedisLog, data: bytes, count: int, last: int) -> None:
        """A stream goes on."""
        operation = log.open
        if operation is None or operation.size + len(data) > log.joined:
            operation = log.open = _Operation("append", log, self._now(), self._next())
            self._put(operation, 0)
        operation.parts.append(data)
        operation.size += len(data)
        operation.count += count
        operation.last = last
        weight = len(data) + _PART_BYTES
        operation.weight += weight
        self.backlog += weight
        if self.backlog > MOST_BYTES:
            self._give_up(log)

    def end(self, log: RedisLog, facts: tuple[Argument, ...], settled: Settled) -> None:
        """A stream ends."""
        if log.broken:
            self.live.pop(log.meta.id, None)
            settled(False)
            return
        log.settled, log.open = settled, None
        self._put(_Operation("end", log, self._now(), self._next(), facts), 0)

    async def written(self) -> None:
        """Return when all that there is now is written. Raises ``StoreDown``."""
        self._link.check()
        if not self._queue and not self._flying:
            return
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._number, waiting))
        self._hurry.set()
        await waiting

    async def renew(self) -> None:
        """Keep live streams from expiring; learn which are gone and which are to be stopped. Raises ``StoreDown``."""
        there = [stream_id for stream_id, log in self.live.items() if log.there and not log.broken]
        for at in range(0, len(there), _TENDED):
            ids = there[at : at + _TENDED]
            gone, stop = await self._link.tend(TEND, self._link.owner, self._live_ms, *ids)
            for each in gone:
                log = self.live.get(each.decode())
                if log is not None:
                    self._give_up(log)
            for each in stop:
                self.stop(each.decode())

    def stop(self, stream_id: str) -> None:
        """Somebody wants that; said once per stream."""
        log = self.live.get(stream_id)
        if log is not None and not log.stopped:
            log.stopped = True
            self._link.hear.stop_asked(stream_id)

    def went_down(self, error: StoreDown | None) -> None:
        """Nothing is written for now; or at once, on another connection, if there is no error."""
        while error is not None and self._waiting:
            _, waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # looked at, in case that nobody waits any more

    async def close(self) -> None:
        """Write what is to be written, as far as that can be done soon; say of the rest that it is not kept."""
        if self._task is not None:
            with contextlib.suppress(StoreDown, TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self.written()
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for log in [operation.log for operation in (*self._flying, *self._queue) if operation.kind == "end"]:
            if log is not None:
                self._settle(log, kept=False)
        self._queue.clear()
        self._flying.clear()
        self.live.clear()
        self.backlog = self._undone = 0

    # --- how ---

    @property
    def _live_ms(self) -> int:
        return int((self.keep_s + LEASE_S) * 1000)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _put(self, operation: _Operation, size: int) -> None:
        operation.weight += size
        self.backlog += operation.weight
        self._queue.append(operation)
        if operation.log is not None:
            operation.log.pending.append(operation)
        if not self._some.is_set():
            self._some.set()

    def _give_up(self, log: RedisLog) -> None:
        """Something of it is missing: what waits to be written goes, and so does what is there."""
        if log.broken:
            return
        log.broken, log.open = True, None
        while log.pending:
            self._undo(log.pending.popleft())
        if self._undone > _CALL_OPERATIONS and not self._flying:
            self._queue = deque(operation for operation in self._queue if operation.log is not None)
            self._undone = 0
        if log.sent:
            self._put(_Operation("drop", log, self._now(), self._next()), 0)
        if log.settled is not None:
            self._settle(log, kept=False)

    def _undo(self, operation: _Operation) -> None:
        operation.log = None
        operation.parts = []
        self.backlog -= operation.weight
        operation.weight = 0
        self._undone += 1

    def _settle(self, log: RedisLog, *, kept: bool) -> None:
        self.live.pop(log.meta.id, None)
        settled, log.settled = log.settled, None
        if settled is not None:
            settled(kept)

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    await self._hurry.wait()
            self._hurry.clear()
            await self._link.up.wait()
            self._some.clear()
            try:
                while self._queue:
                    await self._write()
                self._report(self._number)
            except StoreDown:
                self._some.set()  # it is all still there; on with it when the server is back

    async def _write(self) -> None:
        """The first so many."""
        arguments: list[Argument] = [self._link.owner, self._live_ms, int(self.keep_s * 1000)]
        size = number = 0
        while self._queue and size < _CALL_BYTES and len(self._flying) < _CALL_OPERATIONS:
            operation = self._queue.popleft()
            number = operation.number
            if operation.log is None:
                self._undone -= 1
                continue
            self._flying.append(operation)
            operation.log.sent = True
            operation.log.open = None if operation.log.open is operation else operation.log.open
            arguments += operation.arguments(operation.log.meta.id)
            size += operation.size
        if self._flying:
            try:
                bad = set(await self._link.write(WRITE, *arguments))
            except BaseException:
                self._queue.extendleft(reversed(self._flying))
                self._flying = []
                raise
            self._confirmed(bad)
        self._report(number)

    def _report(self, number: int) -> None:
        """All up to this one is written."""
        while self._waiting and self._waiting[0][0] <= number:
            _, waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(None)

    def _confirmed(self, bad: set[bytes]) -> None:
        done, self._flying = self._flying, []
        for operation in done:
            log = operation.log
            if log is None:
                self._undone -= 1
                continue
            self.backlog -= operation.weight
            if log.pending and log.pending[0] is operation:
                log.pending.popleft()
            log.there = True
            if log.meta.id.encode() in bad:
                self._give_up(log)
            elif operation.kind == "end" and not log.broken:
                self._settle(log, kept=True)
