"""An upstream's own headers win over a client's, and each goes out once, on every kind of call."""

import hashlib
from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel, json_answer
from support.ollama import pass_for_ollama
from support.raw import CHAT, MESSAGES, RawClient, ask, chat_body
from support.running import Running, Serve

from edge.upstream.headers import merged

OWN = {"Anthropic-Beta": "ours", "openai-beta": "ours", "user-agent": "ours", "X-Own": "ours", "ACCEPT": "text/ours"}
CLIENTS = {"anthropic-beta": "theirs", "openai-beta": "theirs", "anthropic-version": "2023-01-01"}
BLOB = f"/api/blobs/sha256:{hashlib.sha256(b'x').hexdigest()}"
JSON = {"Content-Type": "application/json"}


def assert_each_once(fake: FakeModel, path: str) -> None:
    (request,) = [request for request in fake.requests if request.path == path]
    names = [name.lower() for name in request.headers]
    assert sorted(names) == sorted(set(names))
    assert {name: request.headers[name] for name in OWN} == OWN


async def test_a_relayed_call(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"headers": OWN})
    await ask(edge.port, CHAT, chat_body(), CLIENTS)
    assert_each_once(fake, CHAT)
    assert fake.requests[0].headers["anthropic-version"] == "2023-01-01"


async def test_an_upload(serve: Serve, fake: FakeModel) -> None:
    path = "/v1/audio/transcriptions"
    fake.script(*json_answer({"text": "hi"}))
    edge = await serve(upstream={"headers": OWN, "relay": [path]})
    form = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
    await ask(edge.port, path, form, {"Content-Type": "multipart/form-data; boundary=b", **CLIENTS})
    assert_each_once(fake, path)


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/pull"), ("POST", BLOB)])
async def test_management(serve: Serve, fake: FakeModel, method: str, path: str) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={"headers": OWN, "allow_management": True})
    fake.script(*json_answer({"status": "success"}))
    async with RawClient(edge.port) as client:
        body = orjson.dumps({"model": "a"})
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        await client.send(head.encode() + body)
        await client.answer()
    assert_each_once(fake, path)


@pytest.mark.parametrize(("kind", "path"), [("openai", CHAT), ("anthropic", MESSAGES)])
async def test_a_cloud(serve: Serve, fake: FakeModel, kind: str, path: str) -> None:
    listed: dict[str, Any] = {"data": [{"type": "model", "id": "m"}], "has_more": False}
    fake.get["/v1/models?limit=1000"] = (200, JSON, orjson.dumps(listed))
    edge = await serve(upstream={"kind": kind, "api_key": "k", "headers": {**OWN, "x-stainless-lang": "ours"}})
    await ask(edge.port, path, {**chat_body(), "max_tokens": 9}, CLIENTS)
    assert_each_once(fake, path)
    (request,) = [request for request in fake.requests if request.path == path]
    assert request.headers["x-stainless-lang"] == "ours"


async def test_a_look_at_what_is_there(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"headers": OWN})
    head = pool_of(edge).head("GET", "/v1/models").decode()
    names = [line.partition(":")[0].lower() for line in head.split("\r\n")[1:-2]]
    assert sorted(names) == sorted(set(names))
    assert all(f"{name}: {value}\r\n" in head for name, value in OWN.items())


def pool_of(edge: Running) -> Any:
    return edge.edge.fleet.members[0].upstream.pool  # type: ignore[attr-defined]


def test_later_layers_win_whatever_the_case() -> None:
    assert merged({"A": "1", "B": "1"}, {"a": "2"}, {"C": "3"}) == {"a": "2", "B": "1", "C": "3"}
