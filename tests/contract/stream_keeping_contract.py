"""How long every stream store keeps a stream, and what is known of it afterwards: a part of ``StreamStoreContract``."""

import pytest
from support.hanging import hang_limit

from contract.kept_streams import (
    COMPLETE,
    Opened,
    a_meta,
    assert_gone,
    ended,
    everything,
    finished,
    joined,
    state_of,
)
from contract.session_store_contract import NOW, Clock
from edge.settings import Store
from edge.store.ports import Dropped, Ending


class StreamKeepingContract:
    """See the module."""

    @pytest.fixture
    def opened(self) -> Opened:
        """Open a store; it is closed at the end."""
        raise NotImplementedError

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
        async with hang_limit():
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
