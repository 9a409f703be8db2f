"""What every stream store promises (``edge.store.base``), as one suite that each kind of store runs.

A kind's test module subclasses ``StreamStoreContract`` and gives it the ``opened`` fixture: a function that opens a
store with given bounds, clock and listener. What it opened is closed at the end of the test. A kind that several
processes can share has all that it opens in one test over one place, which is empty at first.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.session_store_contract import NOW, Clock
from edge.settings import Store
from edge.store.base import (
    LEASE_S,
    Dropped,
    Ending,
    StreamLog,
    StreamMeta,
    StreamState,
    StreamStore,
    Stretch,
    lost,
)

# (bounds, clock, hear), by keyword; each has a default
Opened = Callable[..., Awaitable[StreamStore]]

SOON_S = 10.0  # what has not happened by then does not happen
COMPLETE = Ending("complete", clean=True, at=NOW + 1)
_numbers = itertools.count(1)


@dataclass
class Heard:
    """A ``base.Hear`` that writes down what it is told."""

    stops: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    def stop_asked(self, stream_id: str) -> None:
        self.stops.append(stream_id)
        self.told.set()

    def store_failed(self, why: str) -> None:
        self.failures.append(why)
        self.told.set()

    def store_recovered(self, after_s: float) -> None:
        self.recoveries.append(after_s)
        self.told.set()

    async def anything(self) -> None:
        """Wait until it is told something that it was not when this was last awaited."""
        async with asyncio.timeout(SOON_S):
            await self.told.wait()
        self.told.clear()


def a_meta(principal: str = "a", *, created: float = NOW, keep_bytes: int = 2**20, **facts: Any) -> StreamMeta:
    """Of a stream that no other is like."""
    known = {"surface": "chat", "model": "m", "session": None, "request_id": "req_1", **facts}
    return StreamMeta(
        id=f"st_{next(_numbers):032x}", principal=principal, created=created, keep_bytes=keep_bytes, **known
    )


async def ended(log: StreamLog, ending: Ending = COMPLETE, upstream: str | None = "up", reconnections: int = 0) -> bool:
    """End a stream; whether all of it is kept."""
    settled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    log.end(ending, upstream, reconnections, settled.set_result)
    async with asyncio.timeout(SOON_S):
        return await settled


async def is_gone(store: StreamStore, stream_id: str) -> bool:
    """Whether its events are not there any more, whatever is remembered of it."""
    state = await store.find(stream_id)
    return state is None or state.gone


def assert_gone(state: StreamState | None, last: int, ending: Ending) -> StreamState:
    """That it was there is remembered, and nothing else."""
    assert state is not None
    assert state.gone
    assert (state.first, state.last, state.size, state.ending) == (last + 1, last, 0, ending)
    return state


async def finished(store: StreamStore, meta: StreamMeta, *parts: bytes, at: float = NOW + 1) -> str:
    """A stream of these events, ended complete; its id."""
    log = store.begin(meta)
    for part in parts:
        log.append(part, 1)
    assert await ended(log, Ending("complete", clean=True, at=at))
    return meta.id


async def state_of(store: StreamStore, stream_id: str) -> StreamState:
    """As ``find`` finds it."""
    found = await store.find(stream_id)
    assert found is not None
    return found


async def seen(store: StreamStore, stream_id: str, last: int = 0) -> StreamState:
    """As ``find`` finds it, once that has gone so far; another process sees it a little later than its own."""
    async with asyncio.timeout(SOON_S):
        while (found := await store.find(stream_id)) is None or found.last < last:
            if found is None:
                await asyncio.sleep(0.01)
            else:
                await store.changed(stream_id, found.last, SOON_S)
    return found


async def everything(store: StreamStore, stream_id: str, after: int = 0, most: int = 2**20) -> list[Stretch]:
    """Read to the end of what is there. Checks that stretches follow each other."""
    read: list[Stretch] = []
    while more := await store.read(stream_id, read[-1].last if read else after, most):
        read += more
    for before, then in itertools.pairwise(read):
        assert then.last - then.count == before.last
    return read


def joined(stretches: Sequence[Stretch]) -> bytes:
    return b"".join(stretch.data for stretch in stretches)


class StreamStoreContract:
    """See the module."""

    @pytest.fixture
    def opened(self) -> Opened:
        """Open a store; it is closed at the end."""
        raise NotImplementedError

    async def test_an_unknown_stream_is_not_found(self, opened: Opened) -> None:
        store = await opened()
        unknown = "st_" + "0" * 32
        assert await store.find(unknown) is None
        with pytest.raises(Dropped):
            await store.read(unknown, 0, 1000)
        assert await store.forget(unknown) is False
        assert await store.came_back(unknown) == 0
        await store.stop(unknown)
        assert await store.streams(None, 10) == []

    async def test_a_stream_is_there_as_soon_as_it_begins(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta(model=None, session="s", surface="messages", request_id="é")
        store.begin(meta)
        assert await store.find(meta.id) == StreamState(meta, first=1, last=0, size=0, here=True, ending=None)
        assert await store.read(meta.id, 0, 1000) == []

    async def test_what_was_appended_is_read_back_byte_for_byte(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        parts = [b"data: \x00\xff\xfe\n\n", bytes(range(256)), b"\r\n", "é\u2028\U0001f388".encode(), b"\x00"]
        log = store.begin(meta)
        for number, part in enumerate(parts, 1):
            log.append(part, number)
        state = await state_of(store, meta.id)
        assert (state.first, state.last, state.size, state.ending) == (1, 15, len(b"".join(parts)), None)
        read = await everything(store, meta.id)
        assert joined(read) == b"".join(parts)
        assert (sum(stretch.count for stretch in read), read[-1].last) == (15, 15)

    async def test_what_is_read_while_live_and_after_the_end_is_the_same(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        log.append(b"one", 1)
        assert joined(await everything(store, meta.id)) == b"one"
        log.append(b"two", 1)
        assert joined(await everything(store, meta.id)) == b"onetwo"
        assert await ended(log)
        assert joined(await everything(store, meta.id)) == b"onetwo"

    async def test_reading_begins_after_any_event(self, opened: Opened) -> None:
        """At the stretch that holds the next: before it only what is of the same stretch."""
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        for number in range(1, 31):
            log.append(b"%02d" % number * 2, 2)
            if number % 7 == 0:
                await asyncio.sleep(0.06)  # so that it is written, for those that write behind
        for after in range(60):
            read = await everything(store, meta.id, after, most=10)
            first = read[0].last - read[0].count
            assert first <= after < read[0].last
            assert joined(read) == b"".join(b"%02d" % number * 2 for number in range(first // 2 + 1, 31))
        assert await store.read(meta.id, 60, 1000) == []
        assert await store.read(meta.id, 99, 1000) == []

    async def test_a_read_is_about_as_long_as_asked_for(self, opened: Opened) -> None:
        store = await opened()
        log = store.begin(meta := a_meta(keep_bytes=2**23))
        for _ in range(20):
            log.append(b"x" * 50_000, 1)
        for end in (False, True):
            if end:
                assert await ended(log)
            assert len(joined(await store.read(meta.id, 0, 1))) <= 100_000
            assert 200_000 <= len(joined(await store.read(meta.id, 0, 225_000))) <= 350_000
            assert 750_000 <= len(joined(await store.read(meta.id, 5, 2**23))) <= 800_000

    async def test_the_end_is_told_as_it_was(self, opened: Opened) -> None:
        store = await opened()
        endings = [
            Ending("complete", clean=True, at=NOW + 1.25),
            Ending("upstream", clean=False, at=NOW, status=502, error=("é \x00 it went", "upstream_gone", "api_error")),
            Ending("cancelled", clean=False, at=NOW, status=499, error=("no code", None, "api_error")),
        ]
        for ending, upstream in zip(endings, ("up", None, "é"), strict=True):
            meta = a_meta()
            log = store.begin(meta)
            log.append(b"e", 1)
            assert await ended(log, ending, upstream)
            state = await state_of(store, meta.id)
            assert state == StreamState(meta, 1, 1, 1, True, ending, upstream)

    async def test_a_stream_without_any_event_ends_as_well(self, opened: Opened) -> None:
        store = await opened()
        stream = await finished(store, a_meta())
        state = await state_of(store, stream)
        assert (state.first, state.last, state.size, state.ending) == (1, 0, 0, COMPLETE)
        assert await store.read(stream, 0, 1000) == []

    async def test_only_the_latest_bytes_are_kept(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta(keep_bytes=2048)
        log = store.begin(meta)
        for number in range(100):
            log.append(b"%0100d" % number, 1)
            await store.find(meta.id)
        state = await state_of(store, meta.id)
        assert (state.last, 1024 <= state.size <= 2048) == (100, True)
        assert state.size == (101 - state.first) * 100
        assert joined(await everything(store, meta.id, state.first - 1)) == b"".join(
            b"%0100d" % number for number in range(state.first - 1, 100)
        )
        for after in (0, state.first - 2):
            with pytest.raises(Dropped):
                await store.read(meta.id, after, 1000)
        assert await ended(log)
        assert await state_of(store, meta.id) == StreamState(meta, state.first, 100, state.size, True, COMPLETE, "up")

    async def test_a_burst_over_the_bound_leaves_what_came_last(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta(keep_bytes=2048)
        log = store.begin(meta)
        for number in range(1000):
            log.append(b"%0100d" % number, 1)
        state = await state_of(store, meta.id)
        assert (state.last, 100 <= state.size <= 2048) == (1000, True)
        assert joined(await everything(store, meta.id, state.first - 1)).endswith(b"%0100d" % 999)

    async def test_one_event_over_the_bound_is_kept(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta(keep_bytes=1024)
        log = store.begin(meta)
        log.append(b"small", 1)
        log.append(b"x" * 5000, 1)
        state = await state_of(store, meta.id)
        assert (state.first, state.last, state.size) == (2, 2, 5000)
        assert joined(await everything(store, meta.id, 1)) == b"x" * 5000

    async def test_each_principal_has_its_streams_the_latest_first(self, opened: Opened) -> None:
        store = await opened()
        metas = [a_meta("ab"[number % 2], created=NOW + number) for number in range(6)]
        for meta in metas[2:] + metas[:2]:
            store.begin(meta)
        await finished(store, done := a_meta("a", created=NOW + 2.5))

        async def ids(principal: str | None, most: int = 100) -> list[str]:
            return [state.meta.id for state in await store.streams(principal, most)]

        assert await ids("a") == [metas[4].id, done.id, metas[2].id, metas[0].id]
        assert await ids("b", 2) == [metas[5].id, metas[3].id]
        assert await ids(None, 4) == [metas[5].id, metas[4].id, metas[3].id, done.id]
        assert await ids("") == await ids("A") == await ids("a%") == await ids("a*") == []

    async def test_who_waits_is_woken_by_an_append_and_by_the_end(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        async with asyncio.timeout(SOON_S):
            for last in range(3):
                waiting = [asyncio.create_task(store.changed(meta.id, last, 600)) for _ in range(3)]
                await asyncio.sleep(0)
                assert not any(task.done() for task in waiting)
                log.append(b"e", 1)
                await asyncio.gather(*waiting)
                assert (await state_of(store, meta.id)).last == last + 1
            waiting = [asyncio.create_task(store.changed(meta.id, 3, 600))]
            await asyncio.sleep(0)
            await ended(log)
            await asyncio.gather(*waiting)
            assert (await state_of(store, meta.id)).ending == COMPLETE

    async def test_nobody_waits_for_what_is_there(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        log.append(b"e", 1)
        async with asyncio.timeout(SOON_S):
            await store.changed(meta.id, 0, 600)
            await ended(log)
            await store.changed(meta.id, 1, 600)

    async def test_waiting_is_over_in_time(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        store.begin(meta)
        async with asyncio.timeout(SOON_S):
            await store.changed(meta.id, 0, 0.01)
            await store.changed("st_" + "0" * 32, 0, 0.01)

    async def test_a_waiter_may_leave(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        waiting = [asyncio.create_task(store.changed(meta.id, 0, 600)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        log.append(b"e", 1)
        async with asyncio.timeout(SOON_S):
            await waiting[1]
        assert waiting[0].cancelled()

    async def test_readers_that_come_back_are_counted(self, opened: Opened) -> None:
        store = await opened()
        meta, other = a_meta(), a_meta()
        log = store.begin(meta)
        store.begin(other)
        assert [await store.came_back(meta.id) for _ in range(2)] == [1, 2]
        await ended(log)
        assert await store.came_back(meta.id) == 3
        assert (await state_of(store, meta.id)).reconnections == 3
        assert (await state_of(store, other.id)).reconnections == 0

    async def test_those_that_came_back_past_the_store_are_counted_with_its_own(self, opened: Opened) -> None:
        store = await opened()
        log = store.begin(meta := a_meta())
        assert await store.came_back(meta.id) == 1
        settled = asyncio.get_running_loop().create_future()
        log.end(COMPLETE, "up", 2, settled.set_result)
        assert (await state_of(store, meta.id)).reconnections == 3, "also before it is written"
        assert await settled
        assert (await state_of(store, meta.id)).reconnections == 3
        assert await store.came_back(meta.id) == 4

    async def test_only_what_has_ended_is_forgotten(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        log.append(b"e", 1)
        assert await store.forget(meta.id) is False
        assert (await state_of(store, meta.id)).last == 1
        await ended(log)
        assert await store.forget(meta.id) is True
        assert await store.find(meta.id) is None
        with pytest.raises(Dropped):
            await store.read(meta.id, 0, 1000)
        assert await store.forget(meta.id) is False
        assert await store.streams("a", 10) == []

    async def test_a_purge_takes_what_ended_before(self, opened: Opened) -> None:
        store = await opened(clock=Clock(NOW + 100))
        old = [await finished(store, a_meta(), b"e", at=NOW + at) for at in (0, 10)]
        young = await finished(store, a_meta(created=NOW - 1), b"e", at=NOW + 20)
        live = a_meta(created=NOW - 2)
        store.begin(live)
        assert await store.purge(NOW + 20) == 2
        for stream, at in zip(old, (0, 10), strict=True):
            assert_gone(await store.find(stream), 1, Ending("complete", clean=True, at=NOW + at))
        assert [state.meta.id for state in await store.streams(None, 10)] == [young, live.id]
        assert await store.purge(NOW + 20) == 0

    async def test_a_stream_is_kept_for_so_long_after_its_end(self, opened: Opened) -> None:
        clock = Clock()
        store = await opened(bounds=Store(keep_s=60), clock=clock)
        stream = await finished(store, a_meta(), b"e", at=NOW + 5)
        store.begin(live := a_meta())
        clock.now = NOW + 64
        assert joined(await everything(store, stream)) == b"e"
        clock.now = NOW + 66
        with pytest.raises(Dropped):
            await store.read(stream, 0, 1000)
        assert await store.came_back(stream) == 0
        assert [state.meta.id for state in await store.streams(None, 10)] == [live.id]
        assert (await store.sizes()).streams == 1
        assert await store.forget(stream) is False

    @pytest.mark.parametrize("how", ["expired", "purged"])
    async def test_that_a_stream_was_there_is_remembered(self, opened: Opened, how: str) -> None:
        clock = Clock()
        store = await opened(bounds=Store(keep_s=60), clock=clock)
        log = store.begin(meta := a_meta(session="s"))
        for number in range(3):
            log.append(b"e", number + 1)
        assert await store.came_back(meta.id) == 1
        assert await ended(log)
        if how == "purged":
            assert await store.purge(NOW + 10) == 1
        else:
            clock.now = NOW + 100
        for _ in range(2):  # the first look may be what finds that it has expired
            state = assert_gone(await store.find(meta.id), 6, COMPLETE)
            assert (state.meta, state.upstream, state.reconnections) == (meta, "up", 1)
            for after in (0, 5):
                with pytest.raises(Dropped):
                    await store.read(meta.id, after, 1000)
            assert await store.streams(None, 10) == []
            assert ((await store.sizes()).streams, (await store.sizes()).stream_bytes) == (0, 0)
        assert await store.came_back(meta.id) == 0
        await store.stop(meta.id)
        async with asyncio.timeout(SOON_S):
            await store.changed(meta.id, 6, 600)
        await store.purge(NOW + 1000)
        assert (await state_of(store, meta.id)).gone

    async def test_what_is_forgotten_was_never_there(self, opened: Opened) -> None:
        """Unlike what had to go; which can be forgotten as well."""
        store = await opened(bounds=Store(keep_s=60), clock=Clock(NOW + 10))
        purged = await finished(store, a_meta(), b"e")
        assert await store.purge(NOW + 10) == 1
        assert (await state_of(store, purged)).gone
        kept = await finished(store, a_meta(), b"e")
        assert [await store.forget(stream) for stream in (purged, kept)] == [False, True]
        assert [await store.find(stream) for stream in (purged, kept)] == [None, None]

    async def test_it_tells_what_is_in_it(self, opened: Opened) -> None:
        store = await opened()
        assert (await store.sizes()).streams == 0
        await finished(store, a_meta(), b"e" * 1000)
        log = store.begin(a_meta())
        log.append(b"e" * 500, 5)
        sizes = await store.sizes()
        assert (sizes.streams, sizes.live, sizes.stream_bytes, sizes.sessions) == (2, 1, 1500, 0)
        assert sizes.bytes >= 1500

    async def test_closing_twice_is_closing_once(self, opened: Opened) -> None:
        store = await opened()
        await finished(store, a_meta(), b"e")
        store.begin(a_meta()).append(b"e", 1)
        await store.close()
        await store.close()

    async def test_a_store_that_was_never_used_closes(self, opened: Opened) -> None:
        await (await opened()).close()

    async def test_the_end_settles_once(self, opened: Opened) -> None:
        store = await opened()
        told: list[bool] = []
        log = store.begin(a_meta())
        log.append(b"e", 1)
        log.end(COMPLETE, None, 0, told.append)
        await store.close()
        assert told == [True]

    async def test_many_streams_at_once_do_not_mix(self, opened: Opened) -> None:
        store = await opened()
        metas = [a_meta("abc"[number % 3]) for number in range(100)]
        logs = [store.begin(meta) for meta in metas]
        for round_ in range(20):
            for number, log in enumerate(logs):
                log.append(b"%d:%d " % (number, round_), 1)
            await asyncio.sleep(0.005)  # so that it is several batches, for those that write in such
        assert all(await asyncio.gather(*map(ended, logs)))
        texts = [joined(read) for read in await asyncio.gather(*(everything(store, meta.id) for meta in metas))]
        assert texts == [b"".join(b"%d:%d " % (number, each) for each in range(20)) for number in range(100)]

    @settings(
        max_examples=25,
        deadline=None,
        # One place for all examples, as streams do not touch each other; and the suite is for several kinds.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(
        steps=st.lists(
            st.one_of(
                st.tuples(st.just("append"), st.binary(min_size=1, max_size=40), st.integers(1, 5)),
                st.tuples(st.just("read"), st.integers(0, 2), st.integers(1, 60)),
                st.just(("flush",)),
            ),
            max_size=40,
        )
    )
    async def test_readers_of_any_pace_get_every_byte_once(self, opened: Opened, steps: list[tuple[Any, ...]]) -> None:
        """Three of them, beside any appends; each cuts off what it has already, as a reader can."""
        store = await opened()
        meta = a_meta()
        log = store.begin(meta)
        upto: list[bytes] = [b""]  # what was appended up to each sequence
        taken, at = [b"", b"", b""], [0, 0, 0]

        async def read(who: int, most: int) -> bool:
            more = await store.read(meta.id, at[who], most)
            for stretch in more:
                first = stretch.last - stretch.count
                assert first <= at[who] < stretch.last
                assert stretch.data == upto[stretch.last][len(upto[first]) :]
                taken[who] += stretch.data[len(upto[at[who]]) - len(upto[first]) :]
                at[who] = stretch.last
            return bool(more)

        for step in steps:
            if step[0] == "append":
                _, data, count = step
                log.append(data, count)
                upto += [upto[-1]] * (count - 1) + [upto[-1] + data]
            elif step[0] == "read":
                await read(*step[1:])
            else:
                await store.find(meta.id)
        await ended(log)
        for who in range(3):
            while await read(who, 25):
                pass
            assert taken[who] == upto[-1]
        await store.close()


class SharedStreamStoreContract:
    """Of a store that several processes share and that outlives them; each ``opened`` store is as if in its own.

    Renewals by themselves go by real time; no test of these lasts long enough for one.
    """

    @pytest.fixture
    def opened(self) -> Opened:
        """Open a store, over the same place whenever a test asks; all are closed at the end."""
        raise NotImplementedError

    async def vanish(self, store: Any) -> None:
        """End a store as ``kill -9`` ends its process: what it has not written is lost, nobody is told."""
        raise NotImplementedError

    async def renew(self, store: Any) -> None:
        """Let a store renew its lease now, as it does by itself every ``RENEW_S``."""
        raise NotImplementedError

    async def test_another_process_sees_a_live_stream_grow_and_end(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        meta = a_meta()
        log = owner.begin(meta)
        read = b""
        for number in range(5):
            log.append(b"%d\x00" % number, 1)
            assert (await state_of(owner, meta.id)).here is True
            state = await seen(other, meta.id, number + 1)
            assert state == StreamState(meta, 1, number + 1, 2 * number + 2, False, None)
            read += joined(await everything(other, meta.id, number))
        assert [each.meta.id for each in await other.streams("a", 10)] == [meta.id]
        assert await ended(log)
        assert await state_of(other, meta.id) == StreamState(meta, 1, 5, 10, False, COMPLETE, "up")
        assert joined(await everything(other, meta.id)) == b"0\x001\x002\x003\x004\x00"
        assert read.endswith(b"4\x00")

    async def test_who_waits_in_another_process_is_woken(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        meta = a_meta()
        log = owner.begin(meta)
        await seen(other, meta.id)
        async with asyncio.timeout(SOON_S):
            for last in range(3):
                waiting = [asyncio.create_task(other.changed(meta.id, last, 600)) for _ in range(3)]
                await asyncio.sleep(0.01)
                log.append(b"e", 1)
                await asyncio.gather(*waiting)
                while (await state_of(other, meta.id)).last == last:  # it *may* have gone on
                    await other.changed(meta.id, last, 600)
            waiting = [asyncio.create_task(other.changed(meta.id, 3, 600))]
            await asyncio.sleep(0.01)
            await ended(log)
            await asyncio.gather(*waiting)
            while (await state_of(other, meta.id)).ending is None:
                await other.changed(meta.id, 3, 600)

    async def test_waiting_in_another_process_is_over_in_time(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        meta = a_meta()
        owner.begin(meta)
        await seen(other, meta.id)
        async with asyncio.timeout(SOON_S):
            await other.changed(meta.id, 0, 0.01)

    async def test_another_process_can_have_a_stream_stopped(self, opened: Opened) -> None:
        heard, unconcerned = Heard(), Heard()
        owner, other = await opened(hear=heard), await opened(hear=unconcerned)
        meta = a_meta()
        log = owner.begin(meta)
        owner.begin(a_meta())
        await seen(other, meta.id)
        await other.stop(meta.id)
        await heard.anything()
        assert heard.stops == [meta.id]
        assert await ended(log, Ending("cancelled", clean=False, at=NOW, status=499))
        assert (await state_of(other, meta.id)).ending == Ending("cancelled", clean=False, at=NOW, status=499)
        await other.stop(meta.id)
        assert (heard.stops, unconcerned.stops) == ([meta.id], [])

    async def test_readers_that_come_back_are_counted_wherever_they_do(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        log = owner.begin(meta := a_meta())
        await seen(other, meta.id)
        assert [await store.came_back(meta.id) for store in (owner, other, owner)] == [1, 2, 3]
        log.append(b"e", 1)
        assert await ended(log, reconnections=2)
        assert (await state_of(other, meta.id)).reconnections == 5

    async def test_a_stream_whose_process_is_gone_ends_when_its_lease_has_lapsed(self, opened: Opened) -> None:
        clock = Clock()
        owner, other = await opened(clock=clock), await opened(clock=clock)
        meta, done = a_meta(), a_meta()
        log = owner.begin(meta)
        log.append(b"one", 1)
        log.append(b"two", 1)
        await finished(owner, done, b"e")
        await seen(other, meta.id, 2)
        await self.vanish(owner)
        clock.now += LEASE_S - 1
        await self.renew(other)
        assert (await state_of(other, meta.id)).ending is None
        clock.now += 2
        state = await state_of(other, meta.id)
        assert state.ending == lost(at=state.ending.at if state.ending else 0)
        assert (state.first, state.last, state.size, state.here) == (1, 2, 6, False)
        assert joined(await everything(other, meta.id)) == b"onetwo"
        listed = {each.meta.id: each.ending and each.ending.outcome for each in await other.streams("a", 10)}
        assert listed == {meta.id: "shutdown", done.id: "complete"}
        async with asyncio.timeout(SOON_S):
            await other.changed(meta.id, 2, 600)
        assert await other.forget(meta.id) is True

    async def test_a_stream_of_a_living_process_does_not_end(self, opened: Opened) -> None:
        clock = Clock()
        owner, other = await opened(clock=clock), await opened(clock=clock)
        meta = a_meta()
        log = owner.begin(meta)
        await seen(other, meta.id)
        for _ in range(6):
            clock.now += LEASE_S - 1
            await self.renew(owner)
            await self.renew(other)
            assert (await state_of(other, meta.id)).ending is None
        log.append(b"e", 1)
        assert await ended(log)
        assert (await state_of(other, meta.id)).ending == COMPLETE

    async def test_a_process_that_was_only_suspended_has_the_last_word(self, opened: Opened) -> None:
        clock = Clock()
        owner, other = await opened(clock=clock), await opened(clock=clock)
        meta = a_meta()
        log = owner.begin(meta)
        log.append(b"one", 1)
        await seen(other, meta.id, 1)
        for _ in range(2):
            clock.now += LEASE_S - 1
            await self.renew(other)
        state = await state_of(other, meta.id)
        assert state.ending == lost(at=state.ending.at if state.ending else 0)
        log.append(b"two", 1)
        await self.renew(owner)
        assert (await seen(other, meta.id, 2)).ending is None
        assert await ended(log)
        state = await state_of(other, meta.id)
        assert (state.ending, joined(await everything(other, meta.id))) == (COMPLETE, b"onetwo")

    async def test_what_a_closed_process_left_live_is_over_at_once(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        meta = a_meta()
        owner.begin(meta).append(b"e", 1)
        await owner.close()
        state = await state_of(other, meta.id)
        assert state.ending == lost(at=state.ending.at if state.ending else 0)
        assert joined(await everything(other, meta.id)) == b"e"

    async def test_what_is_kept_outlives_its_process(self, opened: Opened) -> None:
        first = await opened()
        meta = a_meta(model=None, session="é", keep_bytes=4096)
        stream = await finished(first, meta, b"\x00\xff", b"two")
        await first.came_back(stream)
        await first.close()
        second = await opened()
        assert await state_of(second, stream) == StreamState(meta, 1, 2, 5, False, COMPLETE, "up", 1)
        assert joined(await everything(second, stream)) == b"\x00\xfftwo"
        assert [state.meta.id for state in await second.streams("a", 10)] == [stream]
        assert await second.forget(stream) is True
        assert await (await opened()).find(stream) is None

    async def test_what_outlived_its_process_is_remembered_after_it_has_expired(self, opened: Opened) -> None:
        """Whether it had ended by itself or not."""
        clock = Clock()
        first, other = [await opened(bounds=Store(keep_s=60), clock=clock) for _ in range(2)]
        stream = await finished(first, a_meta(), b"e")
        first.begin(meta := a_meta()).append(b"e", 1)
        await seen(other, meta.id, 1)
        await self.vanish(first)
        clock.now += LEASE_S + 1
        await self.renew(other)
        at = (await state_of(other, meta.id)).ending
        assert at is not None
        clock.now += 80
        await self.renew(other)
        assert_gone(await other.find(stream), 1, COMPLETE)
        assert_gone(await other.find(meta.id), 1, at)

    async def test_a_purge_is_everybodys(self, opened: Opened) -> None:
        owner, other = await opened(), await opened()
        stream = await finished(owner, a_meta(), b"e" * 1000)
        log = owner.begin(live := a_meta())
        log.append(b"live", 1)
        await seen(other, live.id, 1)
        assert ((await other.sizes()).streams, (await other.sizes()).live) == (2, 1)
        assert await other.purge(NOW + 1000) == 1
        assert_gone(await owner.find(stream), 1, COMPLETE)
        assert await ended(log)
        assert joined(await everything(other, live.id)) == b"live"
