"""The relay keeps the promises of an upstream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from contract.recorder import Recorder, turns
from contract.upstream_contract import Opened, UpstreamContract
from fakes.model_server import FakeModel

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.base import Upstream
from edge.upstream.http import READ_BUFSIZE, Handler, make_session, tracing
from edge.upstream.relay import Relay


class TestRelay(UpstreamContract):
    @pytest.fixture
    async def opened(self) -> AsyncIterator[Opened]:
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                session = make_session(UpstreamSettings(name="up", url=url))
                relay = Relay(session, "up")
                stack.push_async_callback(session.close)
                stack.push_async_callback(relay.close)
                return relay

            yield make

    async def test_it_is_connected_only_when_tls_stands(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        """A handshake that hangs is connecting: it has the clock of connecting, and can be aborted."""
        source = opened(fake.url.replace("http:", "https:")).open(self.call(), sink)
        async with asyncio.timeout(2.0):
            while not fake.live:
                await asyncio.sleep(0)
        await turns()
        assert sink.calls == []
        source.abort()
        async with asyncio.timeout(2.0):
            await asyncio.shield(fake.connections[0].left)
        assert sink.calls == []


class TestReadingRelay(TestRelay):
    """The same where aiohttp does not let its protocol be chosen: bodies are read by a task."""

    @pytest.fixture
    async def opened(self, request: pytest.FixtureRequest) -> AsyncIterator[Opened]:
        if "bad framing" in request.node.name:
            pytest.skip("MISSING: aiohttp's own protocol tells nobody of broken framing; the stall clock has to end it")
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                session = aiohttp.ClientSession(
                    url, auto_decompress=False, read_bufsize=READ_BUFSIZE, trace_configs=[tracing()]
                )
                relay = Relay(session, "up")
                stack.push_async_callback(session.close)
                stack.push_async_callback(relay.close)
                return relay

            yield make


async def test_bodies_are_taken_in_the_callback_of_each_read(fake: FakeModel) -> None:
    """Fails when aiohttp no longer uses the protocol it is given: everything works then, only slower."""
    async with make_session(UpstreamSettings(name="up", url=fake.url)) as session, session.get("/v1/models") as answer:
        assert answer.connection is None or isinstance(answer.connection.protocol, Handler)
        assert isinstance(session.connector._factory(), Handler)
