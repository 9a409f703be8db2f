"""A proxy shares its connections to Edge among its clients: nothing of one request may get into the next on its way."""

import asyncio
import re

import orjson
import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.tls import TlsClient, make_certificate

KEY, OTHER_KEY = "a-key-of-the-attacker", "a-key-of-the-victim"
KEYS = {"keys": [KEY, OTHER_KEY]}
BODY = orjson.dumps(chat_body(stream=False))
STREAM_ID = "st_" + "0" * 32
EVERY_HEADER = {
    "Authorization": f"Bearer {KEY}",
    "x-api-key": KEY,
    "api-key": KEY,
    "Cookie": f"key={KEY}",
    "x-request-id": "of-the-attacker",
    "x-edge-lane": "batch",
    "x-edge-resume": "1",
    "Last-Event-ID": f"{STREAM_ID}:1",
    "X-Forwarded-For": "192.0.2.66",
    "Forwarded": "for=192.0.2.66",
    "Host": "evil.example",
    "Origin": "https://evil.example",
    "Sec-Fetch-Site": "cross-site",
    "Access-Control-Request-Headers": "x-evil",
    "Content-Type": "text/evil",
    "Content-Encoding": "gzip",
    "Content-Length": "0",
    "Transfer-Encoding": "chunked",
    "Connection": "keep-alive",
    "Expect": "evil",
    "Upgrade": "websocket",
    "anthropic-version": "evil",
    "anthropic-beta": "evil",
    "openai-beta": "evil",
}
each_header = pytest.mark.parametrize(("name", "value"), EVERY_HEADER.items(), ids=EVERY_HEADER)


def chunked(*trailers: str, path: str = CHAT, key: str = KEY) -> bytes:
    """A request whose chunked body is followed by these trailers."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nAuthorization: Bearer {key}\r\n"
    )
    ending = "".join(f"{line}\r\n" for line in trailers)
    return (
        f"{head}Transfer-Encoding: chunked\r\n\r\n{len(BODY):x}\r\n".encode() + BODY + f"\r\n0\r\n{ending}\r\n".encode()
    )


def declared(key: str | None = OTHER_KEY) -> bytes:
    """A request whose body has a Content-Length."""
    auth = f"Authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{auth}"
    return f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


async def everything(client: RawClient) -> list[bytes]:
    """Read to the end of the connection, which is a clean one; returns the status lines of what came."""
    assert await client.ending() == "eof"
    return re.findall(rb"HTTP/1\.[01] [0-9]{3}", client.buffer)


@each_header
async def test_no_trailer_is_a_header_of_the_next_request(serve: Serve, fake: FakeModel, name: str, value: str) -> None:
    """In one write: the parser has made the next request, with the trailer in it, before the first is answered."""
    edge = await serve(auth=KEYS, server={"trusted_proxies": ["127.0.0.1"]})
    async with RawClient(edge.port) as client:
        await client.send(chunked(f"{name}: {value}") + declared(key=None) + declared())
        statuses = await everything(client)
    assert len(statuses) == 1
    assert len(edge.records) == len(fake.requests) == (statuses == [b"HTTP/1.1 200"])


@each_header
async def test_nor_when_it_comes_later(serve: Serve, fake: FakeModel, name: str, value: str) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        await client.send(chunked("x-first: 1", f"{name}: {value}", "x-last: 1"))
        answer = await client.answer()
        assert answer.headers["connection"] == "close"
        client.buffer = b""
        assert await client.receive() == b""
    assert (await ask(edge.port, CHAT, chat_body(), {"Authorization": f"Bearer {OTHER_KEY}"})).status == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/nowhere", "/v1/messages", "/health", "/api/chat", "/v1/embeddings"])
@pytest.mark.parametrize("key", [KEY, "wrong"])
async def test_whoever_answers_the_first_request(serve: Serve, path: str, key: str) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        await client.send(chunked(f"Authorization: Bearer {KEY}", path=path, key=key) + declared(key=None))
        assert len(await everything(client)) == 1


async def test_wherever_the_bytes_are_split(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    sent = chunked(f"Authorization: Bearer {KEY}") + declared(key=None)
    before = len(sent) - len(declared(key=None))
    for at in range(1, len(sent)):
        async with RawClient(edge.port) as client:
            await client.send(sent[:at])
            if at >= before:  # all of the first request is there: its answer comes, and then the end
                await client.answer()
            else:
                await asyncio.sleep(0)
                await client.send(sent[at:])
            assert await everything(client) == [b"HTTP/1.1 200"], at
    assert len(fake.requests) == len(sent) - 1


async def test_byte_by_byte(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        for byte in chunked(f"Authorization: Bearer {KEY}"):
            await client.send(bytes([byte]))
        assert await everything(client) == [b"HTTP/1.1 200"]


async def test_over_tls(serve: Serve, fake: FakeModel, tmp_path: object) -> None:
    edge = await serve(auth=KEYS, server=make_certificate(tmp_path))
    async with TlsClient(edge.port) as client:
        await client.send(chunked(f"Authorization: Bearer {KEY}") + declared(key=None))
        assert await everything(client) == [b"HTTP/1.1 200"]


async def test_of_a_request_that_wants_another_protocol(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked"
    sent = chunked(f"Authorization: Bearer {KEY}").replace(b"Transfer-Encoding: chunked", upgrade)
    for data in (sent + declared(key=None), sent + sent + declared(key=None)):
        async with RawClient(edge.port) as client:
            await client.send(data)
            assert len(await everything(client)) == 1


async def test_what_came_before_a_chunked_body_is_answered(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        await client.send(declared() + declared() + chunked("x-api-key: wrong") + declared() * 40)
        assert await everything(client) == [b"HTTP/1.1 200"] * 3
    assert len(fake.requests) == 3


async def test_what_follows_it_cannot_spoil_its_answer(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        sent = chunked("x-api-key: wrong")
        await client.send(sent[:-20])
        await _until_read(edge)
        await client.send(sent[-20:] + b"\x00 not HTTP\r\n\r\n")
        assert await everything(client) == [b"HTTP/1.1 200"]


async def _until_read(edge: Running) -> None:
    (connection,) = edge.edge.listener._runner.server.connections
    await edge.wait(lambda: connection._current_request is not None)


async def test_bodies_with_a_length_keep_their_connection(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth=KEYS)
    async with RawClient(edge.port) as client:
        for key, status in ((OTHER_KEY, 200), ("wrong", 401), (OTHER_KEY, 200)):
            await client.send(declared(key))
            assert (await client.answer()).status == status
            client.buffer = b""
    assert {record["principal"] for record in edge.records} != {"anonymous"}


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n"])
async def test_chunks_that_break_later_are_refused_at_once(serve: Serve, fake: FakeModel, chunks: bytes) -> None:
    """Not after ``server.body_s``; and nothing is answered twice."""
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.send(chunked()[:-30])
        await _until_read(edge)
        await client.send(b" " * 10 + b"\r\n" + chunks + declared())
        assert await everything(client) == [b"HTTP/1.1 400"]
    assert fake.requests == []
