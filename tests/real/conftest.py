"""A real llama.cpp server with a real small model, shared by every test in here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from edge.cli.child import Unavailable
from edge.cli.llama_server import LlamaServer
from edge.cli.model_file import model_path


def _cannot(error: Unavailable) -> NoReturn:
    """Skip where a developer lacks the real thing; CI has no excuse."""
    message = f"REAL MODEL TESTS DID NOT RUN: {error}"
    if os.environ.get("CI") == "true":
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def model() -> Path:
    """The model file; fetched on the first run ever."""
    try:
        LlamaServer.need()
        return model_path(lambda _done, _total: None)
    except Unavailable as error:
        _cannot(error)


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
