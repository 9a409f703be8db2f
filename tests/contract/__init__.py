"""One suite per port, run over every implementation."""

import pytest

# They are no test modules by their names.
pytest.register_assert_rewrite(
    "contract.kept_streams",
    "contract.key_store_contract",
    "contract.session_store_contract",
    "contract.shared_stream_store_contract",
    "contract.stream_keeping_contract",
    "contract.stream_store_contract",
    "contract.upstream_contract",
)
