"""The SDKs' clients as fixtures."""

import gc

import pytest
from support.sdk import anthropic_to, ollama_to, openai_to

__all__ = ["anthropic_to", "ollama_to", "openai_to"]


@pytest.fixture(autouse=True)
def _types_made_so_far_stay() -> None:
    """The SDKs make theirs at first use; the collection after each test would look at all of them, 0.1 s each time."""
    gc.freeze()
