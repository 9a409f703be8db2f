"""``edge keys`` as a user runs it, beside an Edge that runs: what it shows, what it keeps, and who gets in then."""

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel
from support.cli import Done, Serving, run, serving
from support.hanging import hang_limit
from support.raw import CHAT, ask, chat_body

KEY = re.compile(r"edge-[0-9a-f]{12}-[0-9a-f]{48}\n")


class Keys:
    """The command, with a store of its own."""

    def __init__(self, directory: Path) -> None:
        self.variables = {"EDGE_STORE_URL": f"sqlite:{directory}/edge.db"}

    async def run(self, *args: str) -> Done:
        return await run("keys", *args, **self.variables)

    async def make(self, *args: str) -> str:
        done = await self.run(*args)
        assert done.status == 0, done.err
        assert KEY.fullmatch(done.out), done.out
        assert done.out.strip() not in done.err
        return done.out.strip()

    async def listed(self) -> list[dict[str, Any]]:
        done = await self.run("list", "--json")
        return list(orjson.loads(done.out))


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


async def until(edge: Serving, key: str, status: int) -> None:
    """Ask until that is the answer."""
    async with hang_limit():
        while (await ask(edge.port, CHAT, chat_body(stream=False), {"x-api-key": key})).status != status:
            await asyncio.sleep(0.05)


async def test_a_running_edge_follows_what_is_done_with_keys(fake: FakeModel, keys: Keys) -> None:
    first = await keys.make("create", "--name", "alice")
    limits = {"EDGE_AUTH_FAILURES_PER_MIN": "0", "EDGE_UPSTREAM_URL": fake.url}
    async with serving(**keys.variables, **limits) as edge:
        await edge.line("upstream found")
        await until(edge, first, 200)
        second = await keys.make("rotate", "alice", "--overlap", "0s")
        await until(edge, second, 200)
        await until(edge, first, 401)
        await keys.run("revoke", "alice")
        await until(edge, second, 401)
    assert first not in edge.log
    assert second not in edge.log


async def test_what_is_kept_is_not_the_key(keys: Keys, tmp_path: Path) -> None:
    key = await keys.make("create", "--name", "alice")
    data = contents(tmp_path)
    assert key.encode() not in data
    assert key.rpartition("-")[2].encode() not in data
    done = await keys.run("list")
    assert key.rpartition("-")[2] not in done.out
    assert "alice" in done.out


def contents(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(directory.iterdir()))


async def test_a_key_has_the_rights_it_was_made_with_and_so_has_its_successor(keys: Keys) -> None:
    await keys.make(
        "create", "--name", "ci@example.com", "--expires", "30d", "--models", "llama*, qwen3", "--lane", "batch",
        "--limits", "requests_per_min=60,weight=0.5", "--admin",
    )  # fmt: skip
    await keys.make("rotate", "ci@example.com", "--overlap", "10m")
    old, new = await keys.listed()
    for one in (old, new):
        assert (one["name"], one["models"], one["lanes"]) == ("ci@example.com", ["llama*", "qwen3"], ["batch"])
        assert (one["limits"]["requests_per_min"], one["limits"]["weight"], one["admin"]) == (60, 0.5, True)
        assert one["state"] == "live"
        assert "digest" not in one
    assert new["expires"] - new["created"] == pytest.approx(30 * 86400)
    assert old["expires"] == pytest.approx(new["created"] + 600)
    await keys.make("rotate", new["id"], "--expires", "never")
    assert (await keys.listed())[-1]["expires"] is None


async def test_a_name_has_one_key_unless_it_is_replaced(keys: Keys) -> None:
    await keys.make("create", "--name", "alice", "--limits", "gold")
    done = await keys.run("create", "--name", "alice")
    assert (done.status, done.out) == (1, "")
    assert "edge keys rotate alice" in done.err
    assert (await keys.run("revoke", "alice")).status == 0
    await keys.make("create", "--name", "alice")
    assert [one["state"] for one in await keys.listed()] == ["revoked", "live"]
    done = await keys.run("revoke", "alice", "--forget")
    assert done.err.count("forgotten") == 2
    assert await keys.listed() == []


WRONG = {
    "no name": (("create",), "--name"),
    "a name for logs to break on": (("create", "--name", "a b"), "letters, digits"),
    "another's name": (("create", "--name", "key-12345678"), "must not begin"),
    "a token's name": (("create", "--name", "jwt:bob"), "letters, digits"),
    "a span without a unit": (("create", "--name", "a", "--expires", "30"), "30d, 12h"),
    "the past": (("create", "--name", "a", "--expires", "2020-01-01"), "in the past"),
    "no model": (("create", "--name", "a", "--models", " ,"), "names no model"),
    "an unknown limit": (("create", "--name", "a", "--limits", "rpm=1"), "requests_per_min"),
    "a limit without a number": (("create", "--name", "a", "--limits", "concurrent=x"), "must be a number"),
    "no weight": (("create", "--name", "a", "--limits", "weight=0"), "above 0"),
    "an unknown lane": (("create", "--name", "a", "--lane", "express"), "interactive"),
    "nobody to revoke": (("revoke", "nobody"), "no key with the id or name nobody"),
    "nobody to replace": (("rotate", "nobody"), "edge keys list"),
    "an overlap without a unit": (("rotate", "a", "--overlap", "1"), "30m"),
}


@pytest.mark.parametrize(("args", "told"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_is_told_and_nothing_is_made(keys: Keys, args: tuple[str, ...], told: str) -> None:
    done = await keys.run(*args)
    assert done.status in (1, 2)
    assert done.out == ""
    assert told in " ".join(done.err.split())
    assert await keys.listed() == []


async def test_memory_keeps_no_keys(keys: Keys) -> None:
    keys.variables = {"EDGE_STORE_URL": "memory:"}
    done = await keys.run("create", "--name", "alice")
    assert (done.status, done.out) == (1, "")
    assert "store.url = memory: keeps no keys" in done.err


async def test_a_store_that_cannot_be_used_is_told_in_one_line(keys: Keys, tmp_path: Path) -> None:
    keys.variables = {"EDGE_STORE_URL": f"sqlite:{tmp_path}"}
    done = await keys.run("list")
    assert (done.status, done.out) == (1, "")
    assert "Traceback" not in done.err
    assert str(tmp_path) in done.err


async def test_the_check_tells_who_may_call(fake: FakeModel, keys: Keys, tmp_path: Path) -> None:
    async def told(**variables: str) -> tuple[int, str]:
        done = await run("check", EDGE_UPSTREAM_URL=fake.url, **{**keys.variables, **variables})
        assert "Traceback" not in done.err
        (line,) = [line for line in done.out.splitlines() if line.startswith("auth ")]
        return done.status, line.removeprefix("auth").strip()

    assert await told() == (0, "anonymous: no keys")
    assert await told(EDGE_AUTH_REQUIRE_KEY="true") == (0, "nobody yet: auth.require_key, and no key has been made")
    await keys.make("create", "--name", "alice")
    await keys.make("create", "--name", "bob")
    await keys.run("revoke", "bob")
    assert await told(EDGE_AUTH_KEYS="the-static-key") == (0, "1 key, 1 made with edge keys (1 ended)")
    assert await told(EDGE_AUTH_JWT_SECRET="s" * 32) == (0, "1 made with edge keys (1 ended), tokens by a secret")
    issuer = {
        "EDGE_AUTH_JWT_JWKS": f"{fake.url}/jwks", "EDGE_AUTH_JWT_ISSUER": "me", "EDGE_AUTH_JWT_AUDIENCE": "edge",
    }  # fmt: skip
    status, line = await told(**issuer)
    assert status == 1
    assert "tokens cannot be verified: the answer has status 404" in line
    status, line = await told(EDGE_STORE_URL=f"sqlite:{tmp_path}")
    assert status == 1
    assert "keys that were made cannot be read" in line
