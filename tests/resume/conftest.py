"""All of what is proven here holds whatever keeps the streams: each test runs over every store."""

from pathlib import Path
from typing import Any

import pytest
from support.running import Running, Serve

STORES = ("memory", "sqlite")


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where streams are kept."""
    return {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'edge.db'}"}[request.param]


@pytest.fixture
def serve(serve: Serve, store_url: str) -> Serve:
    """The outermost one, over that store."""

    async def start(*urls: str, **sections: Any) -> Running:
        store = {"url": store_url, **sections.pop("store", {})}
        return await serve(*urls, store=store, **sections)

    return start
