"""The Anthropic cloud, over its SDK, keeps the promises of an upstream."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import orjson
import pytest
from contract.cloud_contract import CloudContract
from contract.upstream_contract import MOST_ANSWER_BYTES, Opened
from fakes.model_server import (
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_error,
    messages_events,
    messages_start,
    messages_stop,
    messages_token,
)

from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.cloud.anthropic import anthropic
from edge.upstream.ports import Call, Upstream


class TestAnthropic(CloudContract):
    token = messages_token("tok")
    events = tuple(messages_events(["tok", "tok"]))
    finish = b"".join(
        (
            messages_start(),
            messages_block_start(),
            messages_token("tok"),
            messages_block_stop(),
            messages_delta(),
            messages_stop(),
        )
    )
    error_event = messages_error()

    def call(self, *, streamed: bool = True) -> Call:
        surface = Surface.MESSAGES if streamed else Surface.COUNT_TOKENS
        prepared = prepare(surface, orjson.dumps({"model": "m", "messages": []}))
        codec = DIALECTS[surface].codec(prepared, 100_000, frozenset()) if streamed else None
        return Call(surface, prepared.body, codec, {"x-request-id": "r"}, MOST_ANSWER_BYTES, takes_body=True)

    @pytest.fixture
    async def opened(self) -> AsyncIterator[Opened]:
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                upstream = anthropic(UpstreamSettings(name="up", kind="anthropic", url=url, api_key="key"))
                stack.push_async_callback(upstream.close)
                return upstream

            yield make
