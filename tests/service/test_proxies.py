"""Behind real nginx, Caddy and HAProxy with the files of ``config/``, Edge keeps its promises.

Tokens come one by one, a client that leaves stops the model, a cut stream looks cut, a silence is bridged.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_answer,
    chat_finish,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    gate,
    head,
    json_answer,
    rst,
    stall,
)
from support.forms import FORM, TRANSCRIPTIONS, form, noise
from support.proxies import Proxy, Unavailable, caddy, haproxy, in_front, nginx, nginx_bare
from support.raw import CHAT, EMBEDDINGS, MESSAGES, RawClient, ask, chat_body
from support.running import Serve

from edge.protocol.sse import COMMENT_HEARTBEAT

SHIPPED = {"nginx": nginx, "caddy": caddy, "haproxy": haproxy}
ALL = {**SHIPPED, "nginx-bare": nginx_bare}
WAIT_S = 1.0  # of a proxy that is to give up within a test

Front = Callable[..., Awaitable[int]]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    """Put a proxy in front of an Edge: ``port = await front("nginx", edge.port)``."""
    async with AsyncExitStack() as stack:

        async def start(name: str, edge: int, wait_s: float = 600) -> int:
            proxy: Proxy = ALL[name]
            try:
                return await stack.enter_async_context(in_front(proxy, edge, tmp_path, wait_s))
            except Unavailable as error:
                pytest.skip(f"NOT TESTED BEHIND {name.upper()}: {error}")

        yield start


every_proxy = pytest.mark.parametrize("name", ALL)
shipped_proxy = pytest.mark.parametrize("name", SHIPPED)


@every_proxy
async def test_token_by_token(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    words = [f"w{n}" for n in range(6)]
    steps = [step for word in words for step in (chunk(chat_token(word)), gate(word))]
    fake.script(head(), chunk(chat_role()), *steps, chunk(chat_finish() + DONE), end())
    edge = await serve()
    async with RawClient(await front(name, edge.port)) as client:
        await client.post(CHAT, chat_body())
        for word in words:  # the model says no more before its reader has this one
            await client.until(f'"{word}"'.encode())
            fake.open(word)
        answer = await client.answer()
    assert answer.status == 200
    assert answer.clean or name == "nginx-bare"  # which frames an answer without a length by closing
    assert answer.body.endswith(DONE)


@every_proxy
async def test_headers_of_a_stream_pass(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    fake.script(*chat_answer())
    edge = await serve()
    answer = await ask(await front(name, edge.port), CHAT, chat_body(), {"x-request-id": "req_of-mine"})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-request-id"] == "req_of-mine"
    assert {"x-stream-id", "x-edge-upstream", "server-timing"} <= answer.headers.keys()
    assert (await edge.record())["http10"] == (name == "nginx-bare")


@every_proxy
@pytest.mark.parametrize("when", ["before the first token", "between tokens", "whole"])
async def test_a_disconnect_passes_through(serve: Serve, fake: FakeModel, front: Front, name: str, when: str) -> None:
    said = [] if when == "before the first token" else [chunk(chat_role() + chat_token("tok"))]
    fake.script(head(), *said, gate("held"), stall())
    edge = await serve()
    async with RawClient(await front(name, edge.port)) as client:
        await client.post(CHAT, chat_body(stream=when != "whole"))
        await fake.reached("held")
        if when == "between tokens":
            await client.until(b"tok")
        client.close()
        await fake.requests[0].left()
        record = await edge.record()
    assert record["outcome"] == "client_gone"


@every_proxy
@pytest.mark.parametrize("cut", [fin, rst], ids=["fin", "rst"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_cut_upstream_is_not_shown_as_a_clean_end(
    serve: Serve, fake: FakeModel, front: Front, name: str, cut: Callable, path: str
) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("held"), cut())
    edge = await serve(upstream={"surfaces": ["chat"]})
    async with RawClient(await front(name, edge.port)) as client:
        await client.post(path, chat_body(max_tokens=9))
        await client.until(b"tok")
        fake.open("held")
        answer = await client.answer()
    assert not answer.clean
    assert b"error" in answer.body
    assert DONE not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


@shipped_proxy
async def test_heartbeats_bridge_a_silence_that_the_proxy_would_cut(
    serve: Serve, fake: FakeModel, front: Front, name: str
) -> None:
    fake.script(head(), gate("thinking"), *chat_answer()[1:])
    edge = await serve(stream={"heartbeat_s": 0.3, "commit_after_s": 0.3})
    async with RawClient(await front(name, edge.port, WAIT_S)) as client:
        await client.post(CHAT, chat_body())
        # three times as long as it waits
        while client.buffer.count(COMMENT_HEARTBEAT) < 3 * WAIT_S / 0.3:
            assert await client.receive()
        fake.open("thinking")
        answer = await client.answer()
    assert answer.clean
    assert answer.body.endswith(DONE)
    assert (await edge.record())["heartbeats"] >= 9


@shipped_proxy
async def test_without_heartbeats_it_does_cut(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    """Else the test above would show nothing."""
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    edge = await serve(stream={"heartbeat_s": 60, "commit_after_s": 0.1})
    async with RawClient(await front(name, edge.port, WAIT_S)) as client:
        await client.post(CHAT, chat_body())
        answer = await client.answer()
    assert not answer.clean
    assert (await edge.record())["outcome"] == "client_gone"


@every_proxy
async def test_an_answer_in_one_piece(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    edge = await serve()
    port = await front(name, edge.port)
    fake.script(*chat_answer(["Hel", "lo"]))
    answer = await ask(port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.clean) == (200, True)
    assert answer.json["choices"][0]["message"]["content"] == "Hello"
    fake.script(*json_answer({"object": "list", "data": [{"index": 0, "embedding": [0.5] * 100_000}]}))
    answer = await ask(port, EMBEDDINGS, {"model": "m", "input": "hi"})
    assert (answer.status, answer.clean) == (200, True)
    assert len(answer.json["data"][0]["embedding"]) == 100_000


@shipped_proxy
async def test_an_error_keeps_its_status_and_its_words(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    fake.script(*json_answer({"error": {"message": "slow down", "type": "rate_limit"}}, 429, {"Retry-After": "7"}))
    edge = await serve()
    answer = await ask(await front(name, edge.port), CHAT, chat_body())
    assert (answer.status, answer.headers["retry-after"]) == (429, "7")
    assert answer.json["error"]["message"] == "slow down"


@shipped_proxy
async def test_a_big_request(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    fake.script(*chat_answer())
    edge = await serve()
    text = "x" * 12_000_000
    answer = await ask(
        await front(name, edge.port),
        CHAT,
        chat_body(messages=[{"role": "user", "content": text}]),
    )
    assert (answer.status, answer.clean) == (200, True)
    assert fake.requests[0].json["messages"][0]["content"] == text


@shipped_proxy
async def test_connections_to_edge_are_kept(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    edge = await serve()
    port = await front(name, edge.port)
    async with RawClient(port) as client:
        for _ in range(5):
            await client.post(CHAT, chat_body())
            assert (await client.answer()).clean
            client.buffer = b""
    server = edge.edge.listener._runner.server
    assert server is not None
    assert len(server.connections) == 1


@every_proxy
async def test_a_public_name_is_passed_on_and_has_to_be_allowed(
    serve: Serve, fake: FakeModel, front: Front, name: str
) -> None:
    edge = await serve(server={"allowed_hosts": ["llm.example.com"]})
    port = await front(name, edge.port)
    public = {"Host": "llm.example.com"}
    assert (await ask(port, CHAT, chat_body(), public)).status == 200
    other = await ask(port, CHAT, chat_body(), {"Host": "evil.example.com"})
    assert other.status == (200 if name == "nginx-bare" else 403)  # that one puts its own idea of a name there


@shipped_proxy
async def test_an_upload_over_the_bound_of_other_bodies(serve: Serve, fake: FakeModel, front: Front, name: str) -> None:
    fake.script(*json_answer({"text": "hello"}))
    edge = await serve(server={"max_body_bytes": 2**20}, upstream={"relay": [TRANSCRIPTIONS]})
    sent = form(noise(8_000_000))
    answer = await ask(await front(name, edge.port), TRANSCRIPTIONS, sent, FORM)
    assert (answer.status, answer.json) == (200, {"text": "hello"})
    assert fake.requests[0].body == sent
