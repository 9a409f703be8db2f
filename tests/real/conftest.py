"""A real llama.cpp server with a real small model, shared by every test in here; and the SDKs' clients."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.sdk import anthropic_to, no_authorities, ollama_to, openai_to

from edge.cli.llama_server import LlamaServer

__all__ = ["anthropic_to", "no_authorities", "ollama_to", "openai_to"]


@pytest.fixture(scope="session")
def llama(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """The server, ready: two slots of 2,048 tokens, /metrics and /slots on, model "smollm2"."""
    with LlamaServer(model, tmp_path_factory.mktemp("llama") / "log", parallel=2, ctx=4096) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
def llama_embedding(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A second server that also speaks /v1/embeddings."""
    with LlamaServer(model, tmp_path_factory.mktemp("embedding") / "log", embedding=True) as server:
        server.wait_ready()
        yield server


@pytest.fixture
def mortal(model: Path, tmp_path: Path) -> Iterator[LlamaServer]:
    """A server with one slot, which the test may stop, continue and kill."""
    with LlamaServer(model, tmp_path / "log", parallel=1, ctx=2048) as server:
        server.wait_ready()
        yield server
        if server.status() is None:
            os.kill(server.pid, signal.SIGCONT)
