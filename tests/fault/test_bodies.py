"""Requests at their bounds: too large, too many, too slow, broken off, wrongly framed; and what HTTP allows besides."""

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import orjson
import pytest
from fakes.model_server import (
    FakeModel,
    chat_role,
    chat_token,
    chunk,
    end,
    gate,
    head,
    rst,
    short_answer,
    stall,
)
from support.edge_process import EdgeProcess
from support.hanging import hang_limit
from support.raw import CHAT, EMBEDDINGS, MESSAGES, Answer, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN

ENDING = SPOKEN[0].ending
BODY = orjson.dumps(chat_body(stream=False))


def padded(size: int) -> bytes:
    """A chat request of ``size`` bytes."""
    return BODY + b" " * (size - len(BODY))


def error_code(answer: Answer) -> str:
    assert answer.clean
    code = answer.json["error"]["code"]
    assert isinstance(code, str)
    return code


async def next_answer(client: RawClient) -> Answer:
    """The answer, and the buffer emptied for the one after it."""
    answer = await client.answer()
    assert answer.clean
    client.buffer = b""
    return answer


async def nothing_held(edge: Running) -> None:
    async with hang_limit():
        while edge.edge.bodies.budget.used:
            await asyncio.sleep(0.005)


async def test_a_body_that_declares_too_much_is_refused_before_it_comes(serve: Serve) -> None:
    edge = await serve(server={"max_body_bytes": 4096})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, b"{", {"Content-Length": "4097"})
        answer = await client.answer()
    assert (answer.status, error_code(answer)) == (413, "request_too_large")
    assert edge.records == []


async def test_a_body_that_grows_too_large_is_refused(serve: Serve) -> None:
    edge = await serve(server={"max_body_bytes": 4096})
    async with RawClient(edge.port) as client:
        await client.get(CHAT, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, "POST")
        await client.send(b"1000\r\n" + padded(4096) + b"\r\n1\r\n \r\n0\r\n\r\n")
        answer = await next_answer(client)
        assert (answer.status, error_code(answer)) == (413, "request_too_large")
        assert await client.ending() == "eof"
    assert (await ask(edge.port, CHAT, padded(4096))).status == 200


async def test_a_chunked_body_is_taken(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.get(CHAT, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, "POST")
        for at in range(0, len(BODY), 10):
            piece = BODY[at : at + 10]
            await client.send(b"%x;extension=1\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).status == 200
    assert fake.requests[0].json["messages"] == chat_body()["messages"]


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_bodies_in_flight_share_a_budget(serve: Serve, fake: FakeModel, chunked: bool) -> None:
    fake.script(gate("held"), head(), chunk(chat_role() + chat_token("tok") + ENDING), end())
    edge = await serve(server={"bodies_budget_bytes": 4096})

    body = padded(3000).replace(b'"stream":false', b'"stream":true ')

    async def post(client: RawClient) -> None:
        if chunked:
            await client.get(CHAT, {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}, "POST")
            await client.send(b"bb8\r\n" + body + b"\r\n0\r\n\r\n")
        else:
            await client.post(CHAT, body)

    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await post(first)
        await fake.reached("held")
        await post(second)
        answer = await next_answer(second)
        assert (answer.status, error_code(answer)) == (503, "server_is_overloaded")
        assert answer.headers["retry-after"] == "1"
        fake.open("held")
        assert (await first.answer()).clean
        await nothing_held(edge)
    async with RawClient(edge.port) as third:
        await post(third)
        assert (await next_answer(third)).status == 200


async def test_what_a_head_declares_reserves_nothing(serve: Serve) -> None:
    edge = await serve(server={"bodies_budget_bytes": 8000, "max_body_bytes": 8000})
    async with AsyncExitStack() as clients:
        for path in (CHAT, MESSAGES, EMBEDDINGS, "/api/chat", "/v1/chat/stream", "/api/show"):
            client = await clients.enter_async_context(RawClient(edge.port))
            await client.post(path, b"{", {"Content-Length": "8000"})
        await edge.wait(lambda: edge.edge.bodies.budget.used == 6)
        assert (await ask(edge.port, CHAT, padded(7000))).status == 200


async def test_one_caller_holds_a_part_of_the_budget_only(serve: Serve) -> None:
    """By who it is; who that is not known of, by the address."""
    edge = await serve(
        server={"bodies_budget_bytes": 40_000, "max_body_bytes": 10_000, "trusted_proxies": ["127.0.0.1"]},
    )

    async def begin(client: RawClient, address: str) -> None:
        await client.post(CHAT, padded(9000), {"Content-Length": "9001", "X-Forwarded-For": address})

    async with RawClient(edge.port) as first, RawClient(edge.port) as second:
        await begin(first, "2001:db8::1")
        await edge.wait(lambda: edge.edge.bodies.budget.used == 9000)
        for address, status in (("2001:db8::2", 503), ("2001:db8:0:1::1", 200), ("192.0.2.1", 200)):
            answer = await ask(edge.port, CHAT, padded(9000), {"X-Forwarded-For": address})
            assert answer.status == status, address
        answer = await ask(edge.port, CHAT, padded(1000), {"X-Forwarded-For": "2001:db8::3"})
        assert answer.status == 200, "within its part it may have several"
        await begin(second, "192.0.2.1")
        await edge.wait(lambda: edge.edge.bodies.budget.used == 18_000)


async def test_a_caller_with_a_key_is_the_same_from_everywhere(serve: Serve) -> None:
    keys = ["key-of-the-first-one", "key-of-the-second-one"]
    edge = await serve(server={"bodies_budget_bytes": 40_000, "max_body_bytes": 10_000}, auth={"keys": keys})
    first, second = ({"Authorization": f"Bearer {key}"} for key in keys)
    async with RawClient(edge.port) as client:
        await client.post(CHAT, padded(9000), {"Content-Length": "9001", **first})
        await edge.wait(lambda: edge.edge.bodies.budget.used == 9000)
        assert (await ask(edge.port, CHAT, padded(9000), first)).status == 503
        assert (await ask(edge.port, CHAT, padded(9000), second)).status == 200


async def test_a_caller_may_always_have_one_whole_body(serve: Serve) -> None:
    edge = await serve(server={"bodies_budget_bytes": 12_000, "max_body_bytes": 10_000})
    assert (await ask(edge.port, CHAT, padded(10_000))).status == 200


async def test_a_slow_body_is_given_up(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(server={"body_s": 0.2})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, BODY[:20], {"Content-Length": str(len(BODY))})
        answer = await client.answer()
        assert (answer.status, error_code(answer)) == (408, "request_timeout")
        await nothing_held(edge)
    assert fake.requests == []


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("size", [2000, 3_000_000], ids=["small", "big"])
async def test_leaving_in_the_middle_of_a_body_leaves_nothing(serve: Serve, how: str, size: int) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, padded(size), {"Content-Length": str(size + 1)})
        async with hang_limit():
            while not edge.edge.bodies.budget.used:
                await asyncio.sleep(0.005)
        getattr(client, how)()
        await nothing_held(edge)
        assert edge.records == []


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/comp", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: "])
async def test_slow_headers_are_cut(serve: Serve, sent: bytes) -> None:
    edge = await serve(server={"keepalive_s": 0.3})
    async with RawClient(edge.port) as client:
        await client.send(sent)
        assert await client.receive() == b""


async def test_headers_that_trickle_in_are_cut_all_the_same(serve: Serve) -> None:
    edge = await serve(server={"keepalive_s": 0.3})
    async with RawClient(edge.port) as client:
        ending = asyncio.create_task(client.receive())
        await client.send(b"GET /health HTTP/1.1\r\n")
        with suppress(ConnectionError):  # the cut may come while something is being sent
            while not ending.done():
                await asyncio.wait([ending], timeout=0.05)
                await client.send(b"X-A: 1\r\n")
        with suppress(ConnectionError):
            assert await ending == b""


async def test_an_idle_connection_is_closed(serve: Serve) -> None:
    edge = await serve(server={"keepalive_s": 1})
    async with RawClient(edge.port) as client:
        await client.get("/health")
        assert (await next_answer(client)).status == 200
        assert await client.receive() == b""


async def test_a_stream_is_no_idle_connection(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    edge = await serve(server={"keepalive_s": 1}, stream={"heartbeat_s": 0.3})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        while client.buffer.count(b": ping") < 5:
            assert await client.receive()
        fake.open("more")
        assert (await client.answer()).clean


async def test_over_max_connections_one_is_told_and_closed(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    edge = await serve(server={"max_connections": 2})
    async with RawClient(edge.port) as idle, RawClient(edge.port) as busy:
        await idle.get("/health")
        await idle.answer()
        await busy.post(CHAT, chat_body())
        await busy.until(b"tok")
        for _ in range(3):
            answer = await ask(edge.port, CHAT, chat_body())
            assert (answer.status, error_code(answer)) == (503, "server_is_overloaded")
            assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
        busy.reset()
        await edge.record()
        assert (await ask(edge.port, CHAT, BODY)).status == 200


@pytest.mark.parametrize(
    "head_and_body",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 0x5\r\n\r\n12345",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}}}}}\r\n0\r\n\r\n",
    ],
)
async def test_wrong_framing_is_a_400_and_the_end(serve: Serve, fake: FakeModel, head_and_body: bytes) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        start = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        await client.send(start.encode() + head_and_body)
        answer = await client.answer()
        assert answer.status == 400
        while await client.receive():
            pass
    assert fake.requests == []


async def test_what_follows_a_body_must_be_a_request(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, BODY)
        assert (await next_answer(client)).status == 200
        await client.send(b"surplus\r\n\r\n")
        await client.until(b" 400 Bad Request")
        while await client.receive():
            pass
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Content-Encoding": "br"},
        {"Content-Type": "text/plain"},
        {"Content-Type": "multipart/form-data"},
    ],
)
async def test_a_body_of_another_kind_is_a_415(serve: Serve, headers: dict[str, str]) -> None:
    edge = await serve()
    answer = await ask(edge.port, CHAT, b"\x1f\x8b\x08" + b"\0" * 100, headers)
    assert (answer.status, error_code(answer)) == (415, "unsupported_media_type")


async def test_a_connection_goes_on_after_errors(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role()), rst())
    edge = await serve(server={"max_body_bytes": 4096})
    async with RawClient(edge.port) as client:
        for expected, path, body, headers in (
            (404, "/v1/nothing", BODY, {}),
            (415, CHAT, BODY, {"Content-Type": "text/plain"}),
            (400, CHAT, b"{", {}),
            (400, CHAT, b"", {}),
            (413, CHAT, padded(5000), {}),
            (405, "/health", BODY, {}),
            (502, CHAT, BODY, {}),
            (200, CHAT, BODY, {}),
        ):
            await client.post(path, body, headers)
            assert (await next_answer(client)).status == expected
    assert len(fake.requests) == 2


@pytest.mark.parametrize("path", [CHAT, MESSAGES, EMBEDDINGS])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
async def test_other_methods_are_a_405(serve: Serve, path: str, method: str) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.get(path, method=method)
        head_of = (await client.until(b"\r\n\r\n")).partition(b"\r\n\r\n")[0]
        assert head_of.startswith(b"HTTP/1.1 405")
        assert b"\r\nAllow: POST" in head_of
        if method == "HEAD":
            assert client.buffer.endswith(b"\r\n\r\n")
        else:
            assert "error" in (await client.answer()).json
        client.buffer = b""
        await client.get("/health")  # a body after HEAD would stand before this answer
        assert (await client.answer()).json == {"status": "ok"}


async def test_pipelined_requests_are_answered_in_order(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), gate("more"), chunk(ENDING), end())
    edge = await serve()
    post = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    streaming = BODY.replace(b'"stream":false', b'"stream":true ')
    async with RawClient(edge.port) as client:
        await client.send(post.replace(BODY, streaming) + post + b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await client.until(b"tok")
        assert len(fake.requests) == 1
        fake.open("more")
        received = await client.until(b'{"status":"ok"}')
    stream, whole = received.index(b"[DONE]"), received.index(b'"chat.completion"')
    assert stream < whole
    assert received.count(b"HTTP/1.1 200 OK") == 3
    assert len(await edge.lines.wait("exchange", 2)) == 2


async def test_a_client_that_leaves_takes_its_pipelined_requests_along(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), stall())
    edge = await serve()
    post = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    async with RawClient(edge.port) as client:
        await client.send(post.replace(b'"stream":false', b'"stream":true ') + post * 5)
        await client.until(b"tok")
        client.reset()
        await fake.requests[0].left()
        assert (await edge.record())["outcome"] == "client_gone"
    assert len(fake.requests) == 1


async def test_an_http_10_stream_has_no_framing_and_ends_with_its_connection(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(), version="1.0")
    assert "transfer-encoding" not in answer.headers
    assert "content-length" not in answer.headers
    assert (answer.status, answer.ending) == (200, "eof")
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert (await edge.record())["http10"] is True


async def test_an_http_10_reader_sees_an_error_as_a_reset(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("tok")), rst())
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(), version="1.0")
    assert (answer.status, answer.ending) == (200, "reset")
    assert b'"error"' in answer.events[-1]
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_a_client_that_waits_for_a_go_ahead_gets_it(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(BODY)), "Expect": "100-continue"}
        await client.get(CHAT, headers, "POST")
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.buffer = b""
        await client.send(BODY)
        answer = await client.answer()
    assert (answer.status, answer.json) == (200, short_answer(CHAT, {}))


async def test_a_body_is_let_go_of_once_the_answer_has_begun(tmp_path: Path, fake: FakeModel) -> None:
    """Images of many megabytes must not be held for as long as the model talks about them."""
    size, count = 24_000_000, 9
    for _ in range(count):
        fake.script(head(), chunk(chat_role()), chunk(chat_token("a")), gate("on"), chunk(ENDING), end())
    async with EdgeProcess(tmp_path, fake.url) as edge, AsyncExitStack() as clients:
        await edge.ready()
        held = [edge.memory()]
        for _ in range(count):
            client = await clients.enter_async_context(RawClient(edge.port))
            await client.post(CHAT, chat_body(picture="A" * size))
            await client.until(b"data: ")
            held.append(edge.memory())
        assert held[-1] - held[0] < 2 * size  # at most one that was not let go of yet, not nine
        fake.open("on")
        assert (await client.answer()).clean


async def test_memory_for_bodies_is_bounded_and_given_back(tmp_path: Path, fake: FakeModel) -> None:
    """10 bodies of 24 MB came to a peak of 620 MB, and 244 MB stayed."""
    size, count = 24_000_000, 10
    keys = [f"key-of-caller-number-{number}" for number in range(count)]
    process = EdgeProcess(tmp_path, fake.url, auth={"keys": keys})
    del process.environ["MALLOC_MMAP_THRESHOLD_"]
    async with process as edge, AsyncExitStack() as clients:
        await edge.ready()
        before = edge.memory()
        body = chat_body(picture="A" * size, stream=False)
        asking = [await clients.enter_async_context(RawClient(edge.port)) for _ in keys]
        posts = [
            client.post(CHAT, body, {"Authorization": f"Bearer {key}"})
            for client, key in zip(asking, keys, strict=True)
        ]
        await asyncio.gather(*posts)
        for client in asking:
            assert (await client.answer()).status == 200
        assert edge.peak_memory() - before < (count + 3) * size + 32 * 2**20
        assert edge.memory() - before < size
