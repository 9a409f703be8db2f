"""All of what is proven here holds whatever keeps the streams: each test runs over every store."""

from typing import Any

import pytest
from support.running import Running, Serve

STORES = ("memory:",)


@pytest.fixture(params=STORES)
def store_url(request: pytest.FixtureRequest) -> str:
    """Where streams are kept."""
    url = request.param
    assert isinstance(url, str)
    return url


@pytest.fixture
def serve(serve: Serve, store_url: str) -> Serve:
    """The outermost one, over that store."""

    async def start(*urls: str, **sections: Any) -> Running:
        store = {"url": store_url, **sections.pop("store", {})}
        return await serve(*urls, store=store, **sections)

    return start
