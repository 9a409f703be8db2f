"""The memory store keeps the promises of a key store."""

import pytest
from contract.key_store_contract import KeyStoreContract

from edge.store.memory.keys import MemoryKeys
from edge.store.ports import KeyStore


class TestMemoryKeys(KeyStoreContract):
    @pytest.fixture
    def store(self) -> KeyStore:
        return MemoryKeys()
