"""Several Edges over one store: each test in here is run over a file, and over a Redis server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hanging import HANG_S
from support.redis_server import RedisServer, redis_server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real server for all of them."""
    with redis_server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The section of the configuration that names the store."""
    if request.param == "sqlite":
        return {"url": f"sqlite:{tmp_path / 'edge.db'}"}
    monkeypatch.setattr("edge.store.redis.link.ANSWER_S", HANG_S)  # a busy machine is no outage
    server: RedisServer = request.getfixturevalue("redis")
    server.say("FLUSHALL")
    return {"url": server.url}
