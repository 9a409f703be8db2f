"""One suite per port, run over every implementation."""

import pytest

pytest.register_assert_rewrite("contract.upstream_contract")  # it is no test module by its name
