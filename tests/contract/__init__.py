"""One suite per port, run over every implementation."""

import pytest

# They are no test modules by their names.
pytest.register_assert_rewrite(
    "contract.upstream_contract",
    "contract.session_store_contract",
    "contract.stream_store_contract",
    "contract.key_store_contract",
)
