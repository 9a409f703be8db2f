"""The official SDKs as Edge's clients, and what it takes to test that they do not notice heartbeats.

In: a running Edge. Out: clients that are closed before it stops. Must not: configure what a user would not.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from fakes.steps import Step, Wire
from ollama import AsyncClient
from openai import AsyncOpenAI

from support.hanging import hang_limit
from support.running import LIMIT_S, Running, Serve

OpenAITo = Callable[..., AsyncOpenAI]
AnthropicTo = Callable[..., AsyncAnthropic]
OllamaTo = Callable[..., AsyncClient]

# A deadline commit at once and heartbeats all the time.
BEATING = {"commit_after_s": 0.02, "heartbeat_s": 0.02}
EVERY_SURFACE = {"surfaces": ["chat", "completions", "embeddings", "responses", "messages", "count_tokens"]}


@pytest.fixture
def no_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these clients speaks TLS; to read the system's certificates takes each of them 28 ms of CPU."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))


@pytest.fixture
async def openai_to(serve: Serve, no_authorities: None) -> AsyncIterator[OpenAITo]:
    """Make an OpenAI client of an Edge, which gives up soon and does not retry unless told to."""
    async with AsyncExitStack() as stack:

        def make(edge: Running, **options: Any) -> AsyncOpenAI:
            given = {"api_key": "dummy", "max_retries": 0, "timeout": LIMIT_S, **options}
            client = AsyncOpenAI(base_url=f"{edge.url}/v1", **given)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
async def anthropic_to(serve: Serve, no_authorities: None) -> AsyncIterator[AnthropicTo]:
    """Make an Anthropic client of an Edge, likewise."""
    async with AsyncExitStack() as stack:

        def make(edge: Running, **options: Any) -> AsyncAnthropic:
            given = {"api_key": "dummy", "max_retries": 0, "timeout": LIMIT_S, **options}
            client = AsyncAnthropic(base_url=edge.url, **given)
            stack.push_async_callback(client.close)
            return client

        yield make


@pytest.fixture
async def ollama_to(serve: Serve, no_authorities: None) -> AsyncIterator[OllamaTo]:
    """Make an Ollama client of an Edge, likewise."""
    async with AsyncExitStack() as stack:

        def make(edge: Running, **options: Any) -> AsyncClient:
            client = AsyncClient(host=edge.url, **{"timeout": LIMIT_S, **options})
            stack.push_async_callback(client.close)
            return client

        yield make


def heartbeats(edge: Running, count: int = 2) -> Step:
    """The model is silent until Edge has sent so many heartbeats more to its one reader."""

    async def run(_: Wire) -> None:
        (exchange,) = edge.edge.registry
        goal = exchange.reader.heartbeats + count
        async with hang_limit():
            while exchange.reader.heartbeats < goal:
                await asyncio.sleep(0.01)

    return run
