"""What one client's request leaves behind in a cloud's connections must not touch the next one's."""

from typing import Literal

import orjson
import pytest
from fakes.model_server import FakeModel, json_answer
from support.raw import CHAT, MESSAGES, RawClient, ask, chat_body
from support.running import Serve

JSON = {"Content-Type": "application/json"}
MODELS = orjson.dumps({"data": [{"type": "model", "id": "m"}], "has_more": False})
ASKED = {
    CHAT: chat_body(stream=False),
    MESSAGES: orjson.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]}),
}
CLOUDS = pytest.mark.parametrize(("kind", "path"), [("openai", CHAT), ("anthropic", MESSAGES)])


def answer(path: str) -> dict[str, object]:
    if path == MESSAGES:
        return {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
    return {"choices": [{"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}]}


@CLOUDS
@pytest.mark.parametrize("reuse", ["fin", "rst"])
async def test_a_used_connection_that_is_dead_is_replaced(
    serve: Serve, fake: FakeModel, kind: str, path: str, reuse: Literal["fin", "rst"]
) -> None:
    fake.get["/v1/models?limit=1000"] = (200, JSON, MODELS)
    edge = await serve(fake.url, upstream={"kind": kind, "api_key": "k"})
    fake.reuse = reuse
    for _ in range(4):
        fake.script(*json_answer(answer(path)))
        assert (await ask(edge.port, path, ASKED[path])).status == 200


@CLOUDS
async def test_no_cookie_is_kept(serve: Serve, fake: FakeModel, kind: str, path: str) -> None:
    fake.get["/v1/models?limit=1000"] = (200, JSON, MODELS)
    # By a name: most jars take no cookie of an address, so that they would look clean.
    edge = await serve(fake.url.replace("127.0.0.1", "localhost"), upstream={"kind": kind, "api_key": "k"})
    for _ in range(3):
        fake.script(*json_answer(answer(path), 200, {"Set-Cookie": "sid=of-alice; Path=/"}))
        told = await ask(edge.port, path, ASKED[path])
        assert told.status == 200
        assert "set-cookie" not in told.headers
    assert not [request for request in fake.requests if "cookie" in request.headers]


@pytest.mark.parametrize("kind", ["openai", "anthropic", "openai-compatible"])
@pytest.mark.parametrize("wanted", ["auto", "bearer", "x-api-key"])
async def test_one_credential_looks_and_calls(serve: Serve, fake: FakeModel, kind: str, wanted: str) -> None:
    fake.get["/v1/models?limit=1000"] = (200, JSON, MODELS)
    path = MESSAGES if kind == "anthropic" else CHAT
    edge = await serve(fake.url, upstream={"kind": kind, "api_key": "k", "credential": wanted})
    fake.script(*json_answer(answer(path)))
    assert (await ask(edge.port, path, ASKED[path])).status == 200
    in_its_own = wanted == "x-api-key" or (wanted == "auto" and kind == "anthropic")
    expected = {"x-api-key": "k"} if in_its_own else {"authorization": "Bearer k"}
    heads = [{n.lower(): v for n, v in request.headers.items()} for request in fake.requests if request.path == path]
    assert heads
    for found in heads:
        assert {name: found[name] for name in ("authorization", "x-api-key") if name in found} == expected


async def test_repeated_lines_are_joined(serve: Serve, fake: FakeModel) -> None:
    fake.get["/v1/models?limit=1000"] = (200, JSON, MODELS)
    edge = await serve(fake.url, upstream={"kind": "anthropic", "api_key": "k"})
    fake.script(*json_answer(answer(MESSAGES)))
    body = ASKED[MESSAGES]
    head = f"POST {MESSAGES} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"anthropic-beta: one\r\nAnthropic-Beta: two\r\nContent-Length: {len(body)}\r\n\r\n"
    async with RawClient(edge.port) as client:
        await client.send(head.encode() + body)
        assert (await client.answer()).status == 200
    (request,) = [request for request in fake.requests if request.path == MESSAGES]
    assert request.headers["anthropic-beta"] == "one, two"


async def test_a_translated_request_is_of_the_version_that_edge_writes(serve: Serve, fake: FakeModel) -> None:
    fake.get["/v1/models?limit=1000"] = (200, JSON, MODELS)
    edge = await serve(fake.url, upstream={"kind": "anthropic", "api_key": "k"})
    fake.script(*json_answer(answer(MESSAGES)))
    await ask(edge.port, CHAT, chat_body(stream=False, temperature=0.5), {"anthropic-version": "2026-10-21"})
    (request,) = [request for request in fake.requests if request.path == MESSAGES]
    assert request.headers["anthropic-version"] == "2023-06-01"
    fake.script(*json_answer(answer(MESSAGES)))
    await ask(edge.port, MESSAGES, ASKED[MESSAGES], {"anthropic-version": "2026-10-21"})
    assert fake.requests[-1].headers["anthropic-version"] == "2026-10-21"


async def test_a_model_list_that_is_a_bare_array_is_one(serve: Serve, fake: FakeModel) -> None:
    fake.get["/v1/models"] = (200, JSON, b'[{"id":"m"}]')
    edge = await serve(fake.url)
    fake.script(*json_answer(answer(CHAT)))
    assert (await ask(edge.port, CHAT, ASKED[CHAT])).status == 200
