"""What every stream store promises (``edge.store.ports``), as one suite that each kind of store runs.

A kind's test module subclasses ``StreamStoreContract`` and gives it the ``opened`` fixture: a function that opens a
store with given bounds, clock and listener. What it opened is closed at the end of the test. A kind that several
processes can share has all that it opens in one test over one place, which is empty at first.
"""

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.hanging import hang_limit

from contract.kept_streams import (
    COMPLETE,
    Opened,
    a_meta,
    ended,
    everything,
    finished,
    joined,
    state_of,
)
from contract.session_store_contract import NOW
from contract.stream_keeping_contract import StreamKeepingContract
from edge.store.ports import Dropped, Ending, StreamState


class StreamStoreContract(StreamKeepingContract):
    """See the module."""

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

    async def test_several_are_found_at_once_if_they_are_ones_own(self, opened: Opened) -> None:
        """Somebody else's is not among them, whether it lives, has ended, or was never there."""
        store = await opened()
        live, done, others, others_done = a_meta("a"), a_meta("a"), a_meta("b"), a_meta("b")
        store.begin(live).append(b"e", 1)
        await finished(store, done, b"e", b"f")
        store.begin(others)
        await finished(store, others_done, b"e")
        unknown = "st_" + "0" * 32
        wanted = [unknown, *(meta.id for meta in (others, done, others_done, live))]
        found = await store.find_all("a", wanted)
        assert found == {meta.id: await store.find(meta.id) for meta in (done, live)}
        assert await store.find_all("c", wanted) == {}
        assert await store.find_all("a", []) == {}

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
        async with hang_limit():
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
        async with hang_limit():
            await store.changed(meta.id, 0, 600)
            await ended(log)
            await store.changed(meta.id, 1, 600)

    async def test_waiting_is_over_in_time(self, opened: Opened) -> None:
        store = await opened()
        meta = a_meta()
        store.begin(meta)
        async with hang_limit():
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
        async with hang_limit():
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

    async def test_readers_that_come_back_to_several_are_counted_for_each(self, opened: Opened) -> None:
        store = await opened()
        live, done = a_meta(), a_meta()
        unknown = "st_" + "0" * 32
        store.begin(live)
        await finished(store, done, b"e")
        assert await store.came_back(done.id) == 1
        assert await store.came_back_all([unknown, live.id, done.id]) == {live.id: 1, done.id: 2}
        assert await store.came_back_all([unknown]) == {}

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
