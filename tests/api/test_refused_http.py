"""What never becomes a request gets Edge's own answer: in the surface's shape, told in the log, and quoted nowhere."""

import asyncio
import io
from contextlib import suppress

import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, MESSAGES, Answer, RawClient, ask, chat_body
from support.running import Serve
from support.shapes import assert_told, get, say
from support.tls import TlsClient, make_certificate

from edge import __version__
from edge.settings import Log
from edge.telemetry import log

SECRET = b"sk-a-secret-of-the-client"
PATHS = [CHAT, MESSAGES, "/v1/messages/count_tokens", "/v1/responses", "/api/chat", "/nowhere"]
LINES = b"Host: localhost\r\nAuthorization: Bearer " + SECRET + b"\r\n"

# What stands for the request line after the path and for the headers; the status; what the message names.
FAULTS = {
    "long line": (b" HTTP/1.1\r\n" + LINES + b"Cookie: a=" + SECRET * 1000 + b"\r\n\r\n", 431, "max_header_bytes"),
    "long name": (b" HTTP/1.1\r\n" + LINES + SECRET * 1000 + b": 1\r\n\r\n", 431, "max_header_bytes"),
    "many headers": (b" HTTP/1.1\r\n" + LINES + b"x-a: " + SECRET + b"\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431, "128"),
    "bad name": (b" HTTP/1.1\r\n" + LINES + SECRET + b" : 1\r\n\r\n", 400, "headers"),
    "control character": (b" HTTP/1.1\r\n" + LINES + b"x-a: \x01" + SECRET + b"\r\n\r\n", 400, "headers"),
    "nul": (b" HTTP/1.1\r\n" + LINES + b"x-a: " + SECRET + b"\x00\r\n\r\n", 400, "headers"),
    "two hosts": (b" HTTP/1.1\r\n" + LINES + b"Host: " + SECRET + b"\r\n\r\n", 400, "Host"),
    "no host": (b" HTTP/1.1\r\nAuthorization: Bearer " + SECRET + b"\r\n\r\n", 400, "Host"),
    "two types": (b" HTTP/1.1\r\n" + LINES + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400, "Content-Type"),
    "length that overflows": (b" HTTP/1.1\r\n" + LINES + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", 413, "body"),
    "length that is none": (b" HTTP/1.1\r\n" + LINES + b"Content-Length: " + SECRET + b"\r\n\r\n", 400, "framing"),
    "bad chunks": (
        b" HTTP/1.1\r\n" + LINES + b"Transfer-Encoding: chunked\r\n\r\nzz" + SECRET + b"\r\n", 400, "framing",
    ),
    "version": (b" HTTP/" + SECRET + b"\r\n" + LINES + b"\r\n", 400, "request line"),
    "text behind the version": (b" HTTP/1.1 " + SECRET + b"\r\n" + LINES + b"\r\n", 400, ""),
    "unknown Expect": (b" HTTP/1.1\r\n" + LINES + b"Expect: " + SECRET + b"\r\n\r\n", 417, "Expect"),
}  # fmt: skip


def assert_ours(answer: Answer, status: int, path: str) -> None:
    """In the shape of the surface at ``path``, from Edge, with nothing of the request in it."""
    if path.startswith("/api/"):
        assert (answer.status, list(answer.json)) == (status, ["error"]), answer.body
        assert isinstance(answer.json["error"], str)
    else:
        assert_told(answer, status, path)
    assert answer.headers["server"] == f"edge/{__version__}"
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-request-id"].startswith("req_")
    assert b"aiohttp" not in answer.body
    assert SECRET[:9] not in answer.body
    assert SECRET[:9].decode() not in str(answer.headers)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_it_is_told_in_the_surfaces_shape(serve: Serve, fake: FakeModel, path: str, fault: str) -> None:
    rest, status, named = FAULTS[fault]
    edge = await serve()
    answer = await say(edge.port, b"POST " + path.encode() + rest)
    assert_ours(answer, status, path)
    assert named in answer.body.decode()
    (line,) = await edge.lines.wait("refused")
    assert (line["status"], line["client"]) == (status, "127.0.0.1")
    assert SECRET[:9].decode() not in str(edge.lines.lines)
    assert fake.requests == []


@pytest.mark.parametrize("fault", ["long line", "bad name", "no host", "unknown Expect"])
async def test_also_when_it_comes_byte_by_byte(serve: Serve, fault: str) -> None:
    rest, status, _ = FAULTS[fault]
    rest = rest.replace(SECRET * 1000, SECRET * 50)
    edge = await serve(server={"max_header_bytes": 1024})
    async with RawClient(edge.port) as client:
        with suppress(ConnectionError):  # it may be refused before it is whole
            for byte in b"POST " + MESSAGES.encode() + rest:
                await client.send(bytes([byte]))
        assert_ours(await client.answer(), status, MESSAGES)


REQUEST_LINES = {
    "no method": b"%s / HTTP/1.1\r\n" % SECRET,
    "bad path": b"GET http://[%s HTTP/1.1\r\n" % SECRET,
    "long path": b"GET /" + SECRET * 1000 + b" HTTP/1.1\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SECRET,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET,
    "nothing known": SECRET + b"\r\n\r\n",
}


@pytest.mark.parametrize("line", REQUEST_LINES.values(), ids=REQUEST_LINES)
async def test_a_bad_request_line(serve: Serve, fake: FakeModel, line: bytes) -> None:
    edge = await serve()
    answer = await say(edge.port, line + LINES + b"\r\n")
    assert answer.status in (400, 431)
    assert_ours(answer, answer.status, CHAT)
    (told,) = await edge.lines.wait("refused")
    assert told["error"] in ("malformed_request", "headers_too_large")
    assert SECRET[:9].decode() not in str(edge.lines.lines)


@pytest.mark.parametrize("line", [b"CONNECT a:1 HTTP/1.1\r\n", b"CONNECT [a HTTP/1.1\r\n", b"OPTIONS * HTTP/1.1\r\n"])
async def test_a_strange_target_is_refused_in_the_shape_too(serve: Serve, line: bytes) -> None:
    edge = await serve()
    answer = await say(edge.port, line + b"Host: localhost\r\n\r\n")
    assert_told(answer, 404, CHAT)


async def test_the_admin_address_answers_in_the_same_way(serve: Serve) -> None:
    edge = await serve(server={"admin_listen": ["127.0.0.1:0"]})
    assert_ours(await say(edge.admin_port, b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400, CHAT)


async def test_nothing_reaches_any_log(serve: Serve) -> None:
    edge = await serve()
    text = io.StringIO()
    log.configure(Log(), stream=text)
    for rest, status, _ in FAULTS.values():
        assert (await say(edge.port, b"POST /v1/chat/completions" + rest)).status == status
    assert SECRET[:9].decode() not in text.getvalue()
    assert "Traceback" not in text.getvalue()
    assert text.getvalue().count("refused") >= len(FAULTS)


async def test_a_failure_of_edge_itself_before_any_surface_is_told_likewise(serve: Serve) -> None:
    edge = await serve()
    del edge.edge.face._stall_s  # what is needed once an answer is to be sent, outside of all other care
    answer = await get(edge.port, "/v1/models")
    assert_told(answer, 500, CHAT, "internal_error")
    assert "AttributeError" in str(await edge.expect_bug())


# --- long headers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9_000, 16_000])
async def test_a_long_header_is_let_in(serve: Serve, fake: FakeModel, size: int) -> None:
    """Every program that ever served a page on localhost has left cookies for all of them."""
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body(), {"Cookie": "a=" + "b" * size})
    assert answer.status == 200


async def test_how_long_it_may_be_is_a_setting(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(server={"max_header_bytes": 32_768})
    assert (await ask(edge.port, CHAT, chat_body(), {"Cookie": "a=" + "b" * 32_000})).status == 200
    assert (await ask(edge.port, CHAT, chat_body(), {"Cookie": "a=" + "b" * 33_000})).status == 431


async def test_all_lines_together_are_bounded_while_they_come(serve: Serve) -> None:
    edge = await serve(server={"max_header_bytes": 1024})
    async with RawClient(edge.port) as client:
        await client.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        answering = asyncio.create_task(client.answer())
        with suppress(ConnectionError):
            for number in range(100):
                await client.send(b"x-%d: %s\r\n" % (number, b"a" * 1000))
        assert_ours(await answering, 431, CHAT)


# --- the end of the connection ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(("status", "sent"), [(413, 10**9), (408, 100)])
async def test_the_connection_ends_with_the_answer(
    serve: Serve, tmp_path: object, status: int, sent: int, *, tls: bool
) -> None:
    """The rest of the body, which nobody wants, is not waited for."""
    edge = await serve(server={"body_s": 0.1, **(make_certificate(tmp_path) if tls else {})})
    async with (TlsClient if tls else RawClient)(edge.port) as client:
        await client.post(CHAT, b"{", {"Content-Length": str(sent)})
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        client.buffer = b""
        assert await client.receive() == b""  # the client has said nothing meanwhile
        client.half_close()
        await edge.wait(lambda: edge.edge.listener.connections == 0)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_client_that_sends_on_can_still_read_its_answer(serve: Serve, tmp_path: object, *, tls: bool) -> None:
    """A connection closed with bytes unread would be reset, and the answer lost to many a client."""
    edge = await serve(server={"max_body_bytes": 1024, **(make_certificate(tmp_path) if tls else {})})
    async with (TlsClient if tls else RawClient)(edge.port) as client:
        await client.post(CHAT, b" " * 8_000_000)  # all of it, before anything is read
        answer = await client.answer()
        assert (answer.status, answer.clean) == (413, True)
        assert await client.ending() == "eof"


async def test_one_that_never_stops_sending_is_cut(serve: Serve) -> None:
    edge = await serve(server={"max_body_bytes": 1024})
    async with RawClient(edge.port) as client:
        await client.post(CHAT, b"{", {"Content-Length": "9999999999"})
        with suppress(ConnectionError):  # which ends it
            while True:
                await client.send(b" " * 1000)
                await asyncio.sleep(0.01)
        await edge.wait(lambda: edge.edge.listener.connections == 0)


# --- HTTP/1.0 --------------------------------------------------------------------------------------------------------

KEEP = {"Connection": "keep-alive"}


@pytest.mark.parametrize("path", [CHAT, "/api/chat", MESSAGES, "/v1/chat/stream"])
async def test_a_stream_to_http10_ends_with_its_connection(serve: Serve, fake: FakeModel, path: str) -> None:
    """It has neither a length nor chunks, so its end is that of the connection, whatever the client asked for."""
    edge = await serve()
    body = {"message": "hi"} if path.endswith("/stream") else chat_body(max_tokens=9)
    async with RawClient(edge.port) as client:
        await client.post(path, body, KEEP, version="1.0")
        assert await client.ending() == "eof"
        assert client.buffer.startswith(b"HTTP/1.0 200")
        assert b"keep-alive" not in client.buffer.partition(b"\r\n\r\n")[0].lower()


async def test_an_answer_with_a_length_keeps_the_connection_of_http10(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        for _ in range(3):
            await client.post(CHAT, chat_body(stream=False), KEEP, version="1.0")
            assert (await client.answer()).headers["connection"] == "keep-alive"
            client.buffer = b""
