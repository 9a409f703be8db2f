"""The fake itself: what every fault test rests on."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    black_hole,
    chat_answer,
    chat_events,
    chat_token,
    chunk,
    end,
    fin,
    flood,
    garbage,
    gate,
    head,
    json_answer,
    messages_answer,
    messages_events,
    no_read,
    rst,
    send,
    stall,
)

CHAT = "/v1/chat/completions"
ASK = {"model": "m", "messages": [], "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
async def fake() -> AsyncIterator[FakeModel]:
    async with FakeModel() as server:
        yield server
    assert server.live == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def http(fake: FakeModel) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(fake.url) as session:
        yield session
    await asyncio.sleep(0)


@asynccontextmanager
async def posted(
    fake: FakeModel, body: bytes = b"{}"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw client that has sent one chat request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", fake.port)
    writer.write(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\nX-A: 1\r\nx-a: 2\r\n\r\n" % (CHAT.encode(), len(body)))
    writer.write(body)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("stream", [True, False])
async def test_unscripted_requests_get_a_valid_answer(http, path, stream):
    async with http.post(path, json={**ASK, "stream": stream}) as answer:
        body = await answer.text()
    assert answer.status == 200
    assert ("Hello there" in body) is (not stream or path == "/v1/responses")
    assert answer.content_type == ("text/event-stream" if stream else "application/json")


async def test_records_what_it_received_and_on_which_connection(fake, http):
    for _ in range(2):
        async with http.post(CHAT, json=ASK) as answer:
            assert await answer.read() == b"".join(chat_events())
    first, second = fake.requests
    assert (first.method, first.path, first.json) == ("POST", CHAT, ASK)
    assert (first.connection, second.connection) == (0, 0)


async def test_keeps_every_value_of_a_repeated_header(fake):
    async with posted(fake):
        request = await fake.request(0)
    assert request.headers.getall("X-a") == ["1", "2"]


async def test_takes_chunked_request_bodies(fake, http):
    async def body() -> AsyncIterator[bytes]:
        yield b'{"a":'
        yield b"1}"

    async with http.post(CHAT, data=body()) as answer:
        await answer.read()
    assert fake.requests[0].json == {"a": 1}


async def test_scripts_are_taken_in_order_by_path(fake, http):
    fake.script(*messages_answer(["only here"]), path="/v1/messages")
    fake.script(*json_answer({"error": {"message": "full"}}, 503, {"Retry-After": "1"}))
    async with http.post(CHAT, json=ASK) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    async with http.post("/v1/messages", json=ASK) as answer:
        assert await answer.read() == b"".join(messages_events(["only here"]))


async def test_split_pieces_arrive_in_reads_of_their_own(fake, http):
    fake.script(head(), chunk(b"data: {}\n\n", every=1), chunk(b"abcdef", split=[2, 3]), end())
    async with http.post(CHAT, json=ASK) as answer:
        reads = [piece async for piece in answer.content.iter_any()]
    assert reads == [*(bytes([byte]) for byte in b"data: {}\n\n"), b"ab", b"c", b"def"]


async def test_gates_hold_the_script_until_opened(fake, http):
    fake.script(head(), chunk(b"1"), gate("more"), chunk(b"2"), end())
    async with http.post(CHAT, json=ASK) as answer:
        assert await answer.content.readany() == b"1"
        await fake.reached("more")
        fake.open("more")
        assert await answer.read() == b"2"


@pytest.mark.parametrize("leave", ["fin", "reset"])
@pytest.mark.parametrize("at", [gate("held"), stall()])
async def test_tells_how_the_client_left(fake, leave, at):
    fake.script(head(), chunk(chat_token("a")), at)
    async with posted(fake) as (reader, writer):
        await reader.readuntil(b"a")
        request = await fake.request(0)
        assert request.live
        if leave == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        else:
            writer.write_eof()
            assert await request.left() == "fin"
    assert await request.left() == leave
    assert not request.live


@pytest.mark.parametrize(("ending", "error"), [(fin(), None), (rst(), ConnectionResetError)])
async def test_cuts_after_the_last_byte(fake, ending, error):
    fake.script(head(200, {"Content-Length": "99"}), send(b"half"), ending, send(b"never"))
    async with posted(fake) as (reader, _):
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(4) == b"half"
        if error is None:
            assert await reader.read() == b""
        else:
            with pytest.raises(error):
                await reader.read()
        assert await fake.requests[0].left() == "closed"


async def test_bytes_go_out_as_scripted(fake):
    fake.script(send(b"HTTP/1.1 2"), send(b"00 OK\r\n"), garbage(3), fin())
    async with posted(fake) as (reader, _):
        wire = await reader.read()
    assert wire.startswith(b"HTTP/1.1 200 OK\r\n")
    assert len(wire) == len(b"HTTP/1.1 200 OK\r\n") + 3


async def test_flood_stops_when_the_client_does_not_read(fake):
    fake.script(head(), flood(200_000_000, chat_token("x")))
    async with posted(fake):
        request = await fake.request(0)
        taken = await request.settled()
        assert 0 < taken < 20_000_000
    assert await request.left() == "reset"


async def test_no_read_leaves_the_body_unread_until_asked_who_left(fake):
    fake.script(no_read(), stall())
    async with posted(fake, b"x" * 30_000_000):
        request = await fake.request(0)
        assert request.body == b""
        assert request.live
    assert await request.left() in ("fin", "reset")


async def test_promises_keep_alive_then_closes(fake, http):
    fake.close_after_answer = True
    fake.server_header = "llama.cpp"
    async with http.post(CHAT, json=ASK) as answer:
        await answer.read()
    assert (answer.headers["Keep-Alive"], answer.headers["Server"]) == ("timeout=5, max=100", "llama.cpp")
    assert await fake.requests[0].left() == "closed"


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_reused_connection_turns_out_dead(fake, http, how):
    fake.reuse = how
    async with http.get("/v1/models") as answer:
        assert [model["id"] for model in (await answer.json())["data"]] == ["m"]
    with pytest.raises((aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await http.post(CHAT, json=ASK)
    assert (fake.hung_up, fake.requests) == (1, [])


async def test_gets_are_settable_and_else_404(fake, http):
    fake.get["/api/version"] = (200, {"Content-Type": "application/json"}, b'{"version":"1"}')
    async with http.get("/api/version") as answer:
        assert await answer.json() == {"version": "1"}
    async with http.get("/nowhere") as answer:
        assert answer.status == 404
    assert [request.path for request in fake.gets] == ["/api/version", "/nowhere"]


async def test_refuses_then_listens_on_the_same_port(fake, http):
    await fake.refuse()
    with pytest.raises(aiohttp.ClientConnectorError):
        await http.post(CHAT, json=ASK)
    await fake.listen()
    async with http.post(CHAT, json=ASK) as answer:
        assert (await answer.read()).endswith(DONE)


async def test_a_black_hole_never_answers_a_connect():
    with black_hole() as port, pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.open_connection("127.0.0.1", port)


async def test_a_faulty_script_fails_the_test():
    async def broken(_: object) -> None:
        raise KeyError("oops")

    fake = await FakeModel().__aenter__()
    fake.script(broken)
    async with posted(fake) as (reader, _):
        assert await reader.read() == b""
    with pytest.raises(KeyError, match="oops"):
        await fake.__aexit__()


async def test_leaves_nothing_behind_in_the_middle_of_scripts():
    async with FakeModel() as fake:
        fake.script(head(), stall())
        fake.script(*chat_answer(["a"] * 3))
        fake.script(head(), flood(10**9, b"x"))
        clients = [await asyncio.open_connection("127.0.0.1", fake.port) for _ in range(3)]
        for _, writer in clients:
            writer.write(b"POST / HTTP/1.1\r\n\r\n")
        await fake.request(2)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    for _, writer in clients:
        writer.transport.abort()
    await asyncio.sleep(0)
