"""What every stream store that several processes share promises besides, as one suite that each kind of those runs."""

import asyncio
from typing import Any

import pytest
from support.hanging import hang_limit

from contract.kept_streams import (
    COMPLETE,
    Heard,
    Opened,
    a_meta,
    assert_gone,
    ended,
    everything,
    finished,
    joined,
    seen,
    state_of,
)
from contract.session_store_contract import NOW, Clock
from edge.settings import Store
from edge.store.ports import LEASE_S, Ending, StreamState, lost


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
        async with hang_limit():
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
        async with hang_limit():
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
        async with hang_limit():
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
