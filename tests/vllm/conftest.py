"""The real vLLM that the tests in here ask; all of them are marked ``vllm``."""

import os
from pathlib import Path

import pytest

HERE = f"{Path(__file__).parent}/"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before the marks are looked at: these tests run only when they are asked for."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.vllm)


@pytest.fixture
def vllm_port() -> int:
    """Where it listens."""
    port = os.environ.get("VLLM_PORT", "")
    assert port.isdigit(), "start a vLLM and set VLLM_PORT; see tests/vllm/README.md"
    return int(port)
