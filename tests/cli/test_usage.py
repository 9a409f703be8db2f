"""``edge usage`` shows requests and tokens by key and day, from the store's file or server."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from contract.kept_streams import Heard
from support.redis_server import redis_server
from support.sqlite import RealClock, some_counters

from edge.cli import main
from edge.policy.limits.counters import Account, Used, day_of, days_before
from edge.policy.limits.rules import Demand, Spent
from edge.store.redis.counters import RedisCounters
from edge.store.redis.link import RedisLink


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["usage", *words], env={"EDGE_STORE_URL": url})


async def count(store: Any) -> None:
    for who, spent in (("ann", Spent(1000, 20)), ("bob", Spent(3, 4)), ("ann", Spent(5, 6))):
        store.end(await store.reserve(Demand(f"st_{spent.prompt}", who, "all")), spent)
    await store.usage("2026-01-01")
    await store.close()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "edge.db"

    async def fill() -> None:
        store = some_counters(path, RealClock())
        await store.open()
        for back in (0, 5, 40):
            account = Account(days_before(time.time(), back), "old", "")
            store._counters.use(account, Used(back, back, 1))
        await count(store)

    asyncio.run(fill())
    return f"sqlite:{path}"


def test_a_row_for_each_day_and_principal(file: str) -> None:
    today = day_of(time.time())
    shown = run(file, "--days", "1")
    assert shown.exit_code == 0
    rows = [line.split() for line in shown.output.splitlines()]
    assert rows[0] == ["day", "principal", "requests", "prompt", "tokens", "answer", "tokens", "tokens"]
    assert rows[1:] == [
        [today, "ann", "2", "1005", "26", "1031"],
        [today, "bob", "1", "3", "4", "7"],
        [today, "old", "0", "0", "1", "1"],
    ]


def test_json_for_scripts_and_the_days_that_were_asked_for(file: str) -> None:
    told = [json.loads(line) for line in run(file, "--json").output.splitlines()]
    assert [(one["day"], one["principal"]) for one in told if one["principal"] == "old"] == [
        (days_before(time.time(), back), "old") for back in (5, 0)
    ]
    assert told[1] == {
        "day": day_of(time.time()), "principal": "ann", "requests": 2, "prompt_tokens": 1005, "completion_tokens": 26,
        "tokens": 1031,
    }  # fmt: skip
    assert len(run(file, "--json", "--days", "41").output.splitlines()) == len(told) + 1


def test_a_server_is_asked_like_a_file(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:

        async def fill() -> None:
            await count(RedisCounters(RedisLink(server.url, Heard())))

        asyncio.run(fill())
        told = [json.loads(line) for line in run(server.url, "--json").output.splitlines()]
    assert [(one["principal"], one["tokens"]) for one in told] == [("ann", 1031), ("bob", 7)]
    gone = run(server.url)
    assert gone.exit_code == 1
    assert "the usage cannot be read" in gone.output


def test_what_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database at all, and long enough to be taken for something else than one " * 9)
    for url, why in (("memory:", "nothing outlives the process"), (f"sqlite:{tmp_path}/text", "is no database")):
        shown = run(url)
        assert (shown.exit_code, why in shown.output) == (1, True), shown.output


def test_nothing_is_no_mistake(tmp_path: Path) -> None:
    assert run(f"sqlite:{tmp_path}/none.db").output == "nothing was used\n"
    assert run(f"sqlite:{tmp_path}/none.db", "--json").output == ""
