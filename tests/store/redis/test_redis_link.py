"""How a Redis server is named and reached: URLs, passwords, TLS, the missing client, another version's data."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from contract.kept_streams import Heard, a_meta, ended, finished
from contract.session_store_contract import said, told
from support.redis_server import RedisServer, free_port, redis_server, until
from support.tls import make_certificate

from edge.settings import Sessions, Store
from edge.store.opening import shown_url
from edge.store.ports import StoreDown, StreamStore, Unusable
from edge.store.redis.address import Address
from edge.store.redis.link import RedisLink
from edge.store.redis.sessions import RedisSessions
from edge.store.redis.streams import RedisStreams

SECRET = "p@ss/word: é"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


def a_store(url: str, heard: Heard | None = None) -> RedisStreams:
    return RedisStreams(RedisLink(url, heard or Heard()), Store(keep_s=1e9))


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("http://127.0.0.1:1/0", "redis://"),
        ("redis://:secret@127.0.0.1:port/0", "not a URL"),
        ("redis://:secret@127.0.0.1:99999/0", "not a URL"),
        ("redis://:secret@127.0.0.1/main", "number"),
        ("redis://:secret@127.0.0.1?db=main", "number"),
        ("redis://:secret@127.0.0.1/0?socket_timeout=9", "socket_timeout"),
        ("redis://:secret@127.0.0.1/0?ssl_ca_certs=x", "ssl_ca_certs"),
        ("rediss://:secret@127.0.0.1/0?ssl_strange=x", "ssl_strange"),
    ],
)
def test_a_wrong_url_is_refused_with_what_is_wrong_and_not_the_password(url: str, named: str) -> None:
    with pytest.raises(ValueError, match=r"store\.url") as refusal:
        RedisLink(url, Heard())
    assert named in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_an_address_is_shown_without_its_password() -> None:
    address = Address(f"rediss://user:{quote(SECRET, safe='')}@redis.example:6380/3")
    assert str(address) == "rediss://redis.example:6380/3"
    assert str(Address("redis://h")) == "redis://h:6379/0"
    assert str(Address("redis://h?db=2")) == str(Address("redis://h/?db=2")) == "redis://h:6379/2"
    assert shown_url("rediss://h/1?ssl_password=secret", {}) == "rediss://h:6379/1"
    assert str(Address("redis://[::1]:1/")) == "redis://[::1]:1/0"
    for form in (SECRET, quote(SECRET), quote(SECRET, safe="")):
        assert (
            address.hide(f"unknown command 'AUTH', with args: '{form}'") == "unknown command 'AUTH', with args: '***'"
        )


def test_the_client_library_is_loaded_by_who_uses_it() -> None:
    code = "import sys, edge.store.redis.streams, edge.store.redis.sessions; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603 - our own words


async def test_the_password_opens_and_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with redis_server(tmp_path, password=SECRET) as server:
        heard = Heard()
        store = a_store(f"redis://:{quote(SECRET, safe='')}@127.0.0.1:{server.port}/0", heard)
        assert await finished(store, a_meta(), b"e")
        shown = [repr(store), repr(store._link), repr(store._link.address), repr(store.statistics())]
        server.kill()
        with pytest.raises(StoreDown) as down:
            await store.find("st_1")
        shown += [repr(store), str(down.value), repr(down.value.__cause__), *heard.failures]
        await store.close()
        assert store._link.failures == 1
    for text in (*shown, caplog.text):
        for form in (SECRET, quote(SECRET), quote(SECRET, safe="")):
            assert form not in text


@pytest.mark.parametrize("options", [("--requirepass", "another"), ("--rename-command", "AUTH", "")])
async def test_a_password_that_is_refused_is_told_without_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    """A server that does not know AUTH says all the words that it was given."""
    password = "another" if options[0] == "--requirepass" else ""
    with redis_server(tmp_path, *(() if password else options), password=password) as server:
        heard = Heard()
        store = a_store(f"redis://:wrongsecret@127.0.0.1:{server.port}/0", heard)
        with pytest.raises(StoreDown) as down:
            await store.find("st_1")
        assert "wrongsecret" not in str(down.value)
        assert len(heard.failures) == 1
        assert "wrongsecret" not in heard.failures[0]
        assert "auth" in heard.failures[0].lower() or "password" in heard.failures[0].lower()
        await store.close()


async def test_tls_verifies_the_server(tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    certificate, key = files["tls_cert"], files["tls_key"]
    tls = free_port()
    options = (
        "--tls-port",
        str(tls),
        "--tls-cert-file",
        certificate,
        "--tls-key-file",
        key,
        "--tls-auth-clients",
        "no",
    )
    with redis_server(tmp_path, *options):
        store = a_store(f"rediss://127.0.0.1:{tls}/0?ssl_ca_certs={certificate}")
        assert await finished(store, a_meta(), b"e")
        await store.close()
        heard = Heard()
        wary = a_store(f"rediss://127.0.0.1:{tls}/0", heard)
        with pytest.raises(StoreDown):
            await wary.find("st_1")
        assert "certificate" in heard.failures[0].lower()
        await wary.close()


async def test_what_only_a_later_version_can_read_is_left_alone(server: RedisServer) -> None:
    server.say("SET", "edge:schema", "2")
    heard = Heard()
    store = a_store(server.url, heard)
    with pytest.raises(Unusable, match="schema 2"):
        await store.open()
    store.begin(a_meta())
    with pytest.raises(StoreDown, match="schema 2"):
        await store.find("st_1")
    await store.close()
    assert server.all_keys() == [b"edge:schema"]


async def test_a_key_that_somebody_else_wrote_is_no_outage(server: RedisServer) -> None:
    heard = Heard()
    store = a_store(server.url, heard)
    log, meta = store.begin(a_meta()), a_meta()
    server.say("SET", f"edge:st:{meta.id}", "x")
    with pytest.raises(StoreDown, match="WRONGTYPE"):
        await store.find(meta.id)
    wrong = store.begin(meta)
    wrong.append(b"e", 1)
    assert await ended(wrong) is False
    assert await ended(log) is True
    assert heard.failures == []
    await store.close()


async def test_a_node_has_three_connections_however_many_ask(server: RedisServer) -> None:
    link = RedisLink(server.url, Heard())
    streams: StreamStore = RedisStreams(link, Store(keep_s=1e9))
    sessions = RedisSessions(link, Sessions())
    metas = [a_meta() for _ in range(1000)]
    logs = [streams.begin(meta) for meta in metas]
    waiting = [asyncio.create_task(streams.changed(meta.id, 0, 600)) for meta in metas]
    await asyncio.gather(*(streams.find(meta.id) for meta in metas))
    await asyncio.gather(*(sessions.read("a", str(number)) for number in range(100)))
    assert server.connections() == 3
    for log in logs:
        log.append(b"e", 1)
    await asyncio.gather(*waiting)
    assert set(await asyncio.gather(*map(ended, logs))) == {True}
    await streams.close()
    assert await sessions.read("a", "s") is None
    await sessions.close()
    await until(lambda: server.connections() == 0)


async def test_who_leaves_before_the_answer_disturbs_nobody(server: RedisServer) -> None:
    store = a_store(server.url)
    ids = [await finished(store, a_meta(), b"e") for _ in range(50)]
    for turns in range(6):
        asked = [asyncio.create_task(store.find(stream)) for stream in ids]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        for stream, task in list(zip(ids, asked, strict=True))[1::2]:
            found = task.result()
            assert found is not None
            assert found.meta.id == stream
    assert store.statistics().failures == 0
    await store.close()


async def test_a_crash_leaves_nothing_for_ever(server: RedisServer) -> None:
    """All but the number of the schema goes by itself."""
    link = RedisLink(server.url, Heard())
    streams, sessions = RedisStreams(link, Store()), RedisSessions(link, Sessions())
    streams.begin(a_meta()).append(b"e", 1)
    await finished(streams, a_meta(), b"e", at=2e9)
    await sessions.claim("a", "s")
    for part in (said("q"), said("q")):
        await sessions.append("a", "s", part, told("r"))
    keys = [key.decode() for key in server.all_keys()]
    assert all(key.startswith("edge:") for key in keys)
    assert len(keys) >= 9
    stay = {key for key in keys if server.say("PTTL", key).startswith(b":-1")}
    assert stay == {"edge:schema"}
    await streams.close()
    await sessions.close()
