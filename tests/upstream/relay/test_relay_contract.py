"""The relay keeps the promises of an upstream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from contract.recorder import Recorder, turns
from contract.upstream_contract import Opened, UpstreamContract
from fakes.model_server import FakeModel
from support.hanging import hang_limit

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.pool import Pool
from edge.upstream.ports import Upstream
from edge.upstream.relay.relay import Relay


class TestRelay(UpstreamContract):
    @pytest.fixture
    async def opened(self) -> AsyncIterator[Opened]:
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                pool = Pool(UpstreamSettings(name="up", url=url))
                relay = Relay(pool, "up")
                stack.push_async_callback(pool.close)
                stack.push_async_callback(relay.close)
                return relay

            yield make

    async def test_it_is_connected_only_when_tls_stands(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        """A handshake that hangs is connecting: it has the clock of connecting, and can be aborted."""
        source = opened(fake.url.replace("http:", "https:")).open(self.call(), sink)
        async with hang_limit():
            while not fake.live:
                await asyncio.sleep(0)
        await turns()
        assert sink.calls == []
        source.abort()
        async with hang_limit():
            await asyncio.shield(fake.connections[0].left)
        assert sink.calls == []
