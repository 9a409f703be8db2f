"""The OpenAI cloud, over its SDK, keeps the promises of an upstream."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from contract.cloud_contract import CloudContract
from contract.upstream_contract import Opened

from edge.settings import Upstream as UpstreamSettings
from edge.upstream.cloud.openai import openai
from edge.upstream.ports import Upstream


class TestOpenAI(CloudContract):
    @pytest.fixture
    async def opened(self) -> AsyncIterator[Opened]:
        async with AsyncExitStack() as stack:

            def make(url: str) -> Upstream:
                upstream = openai(UpstreamSettings(name="up", kind="openai", url=url, api_key="key"))
                stack.push_async_callback(upstream.close)
                return upstream

            yield make
