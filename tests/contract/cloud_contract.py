"""What a cloud over its SDK promises besides; each of the SDKs runs it."""

import asyncio
import os
from dataclasses import replace

from fakes.model_server import FakeModel, no_read, stall
from support.hanging import hang_limit

from contract.recorder import Recorder, turns
from contract.upstream_contract import Opened, UpstreamContract
from edge.policy.lifecycle import LifecycleEvent

_UNSENDABLE_BYTES = 32 * 2**20  # far more than the kernel takes of a request that is not read


class CloudContract(UpstreamContract):
    """See the module."""

    over_aiohttp = True

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

    async def test_a_large_request_arrives_as_it_was(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        body = self.call().body[:-1] + b',"image":"' + os.urandom(2**20).hex().encode() + b'"}'
        opened(fake.url).open(replace(self.call(), body=body), sink)
        await sink.until_call("end")
        assert sink.happened is LifecycleEvent.DONE
        assert fake.requests[0].body == body

    async def test_abort_in_the_middle_of_a_request(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        before = asyncio.all_tasks()
        fake.script(no_read(), stall())
        upstream = opened(fake.url)
        source = upstream.open(replace(self.call(), body=b"{" + b" " * _UNSENDABLE_BYTES + b"}"), sink)
        await fake.request(0)
        assert sink.calls == ["connected"]
        source.abort()
        assert await fake.requests[0].left() in ("fin", "reset")
        await upstream.close()
        await turns()
        assert asyncio.all_tasks() - before - {connection.task for connection in fake.connections} == set()
        assert sink.calls == ["connected"]
