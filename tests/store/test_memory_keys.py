"""The memory store keeps the promises of a key store."""

import pytest
from contract.key_store_contract import KeyStoreContract

from edge.store.base import KeyStore
from edge.store.memory_keys import MemoryKeys


class TestMemoryKeys(KeyStoreContract):
    @pytest.fixture
    def store(self) -> KeyStore:
        return MemoryKeys()
