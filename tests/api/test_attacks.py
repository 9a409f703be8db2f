"""What is sent to break a proxy: smuggling, bombs, injection into logs, names that look like addresses."""

import asyncio
import gzip
import io
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest
from fakes.model_server import (
    FakeModel,
    chat_events,
    chunk,
    end,
    head,
    json_answer,
    sse,
)
from support.hanging import hang_limit
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Lines, Serve
from support.shapes import assert_told, get, say

from edge import __version__
from edge.settings import Log
from edge.telemetry import log

QUICK_S = 3.0  # measured in milliseconds
BODY = orjson.dumps(chat_body())
SIZE = b"Content-Length: %d\r\n" % len(BODY)
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
SMUGGLED = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + SIZE + b"\r\n" + BODY

# --- framing --------------------------------------------------------------------------------------------------------

MALFORMED = {
    "length and chunked": HEAD + SIZE + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + CHUNKED,
    "two lengths": HEAD + SIZE + b"Content-Length: 0\r\n\r\n" + BODY,
    "same length twice": HEAD + SIZE + SIZE + b"\r\n" + BODY,
    "lengths in a list": HEAD + b"Content-Length: %d, 0\r\n\r\n" % len(BODY) + BODY,
    "length with a sign": HEAD + b"Content-Length: +%d\r\n\r\n" % len(BODY) + BODY,
    "length with a blank": HEAD + b"Content-Length : %d\r\n\r\n" % len(BODY) + BODY,
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "hex length": HEAD + b"Content-Length: 0x10\r\n\r\n" + BODY,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKED,
    "chunked twice": HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED,
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + CHUNKED,
    "coding behind a tab": HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n" + CHUNKED,
    "chunked in http/1.0": HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + SIZE + CHUNKED,
    "two hosts": HEAD + b"Host: evil.example\r\n" + SIZE + b"\r\n" + BODY,
    "folded header": HEAD + b"X-A: 1\r\n 2\r\n" + SIZE + b"\r\n" + BODY,
    "bare lf": HEAD.replace(b"\r\n", b"\n") + SIZE + b"\r\n" + BODY,
    "bare cr": HEAD + b"X-A: 1\rX-B: 2\r\n" + SIZE + b"\r\n" + BODY,
    "nul": HEAD + b"X-A: \x00\r\n" + SIZE + b"\r\n" + BODY,
    "nameless header": HEAD + b": 1\r\n" + SIZE + b"\r\n" + BODY,
    "no version": b"POST /v1/chat/completions\r\n\r\n",
    "blank in the path": HEAD.replace(b"completions ", b"completions x ") + SIZE + b"\r\n" + BODY,
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64 + b"\r\n\r\n",
    "huge header": HEAD + b"X-A: " + b"a" * 100_000 + b"\r\n" + SIZE + b"\r\n" + BODY,
    "many headers": HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(5000)) + SIZE + b"\r\n" + BODY,
    "huge path": HEAD.replace(b"/v1", b"/v1" + b"a" * 100_000) + SIZE + b"\r\n" + BODY,
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_what_another_server_might_read_differently_is_refused_and_the_connection_ended(
    serve: Serve, fake: FakeModel, data: bytes
) -> None:
    """Nothing that follows on the connection is taken for a request, and nothing reaches a model."""
    edge = await serve()
    async with RawClient(edge.port) as client:
        with_more = asyncio.create_task(client.send(data + SMUGGLED))
        answer = await client.answer()
        while not with_more.done():  # a reset may come before all is sent
            await asyncio.wait([with_more], timeout=QUICK_S)
        failed = with_more.exception()
        assert failed is None or isinstance(failed, ConnectionError)
        assert answer.status in (400, 413, 431), answer
        assert answer.headers["server"] == f"edge/{__version__}"
        assert_told(answer, answer.status, CHAT)
        rest = client.buffer.partition(b"\r\n\r\n")[2]
        while answer.ending == "framed":
            try:
                data = await client.receive()
            except ConnectionResetError:
                break
            if not data:
                break
            rest += data
        assert not re.search(rb"HTTP/1\.[01] [0-9]{3} ", rest)
    assert fake.requests == []


@pytest.mark.parametrize("extension", [b";a=b", b";" + b"x" * 200, b' ; q="\\"'])
async def test_chunk_extensions_do_not_change_what_is_read(serve: Serve, fake: FakeModel, extension: bytes) -> None:
    edge = await serve()
    chunked = CHUNKED.replace(b"\r\n", extension + b"\r\n", 1)
    answer = await say(edge.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
    if answer.status == 200:
        assert fake.requests[0].json["messages"] == chat_body()["messages"]
    else:
        assert answer.status == 400
        assert fake.requests == []


@pytest.mark.parametrize(
    "chunks", [b"zz\r\nabc\r\n0\r\n\r\n", b"-1\r\nabc\r\n", b"5\r\nabcdefgh\r\n0\r\n\r\n", b"fffffffffffffffff\r\n"]
)
async def test_broken_chunks_are_refused(serve: Serve, fake: FakeModel, chunks: bytes) -> None:
    edge = await serve()
    answer = await say(edge.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.status == 400
    assert fake.requests == []


async def test_trailers_are_not_headers(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth={"keys": ["a-key-that-is-long-enough"]})
    trailers = CHUNKED[:-2] + b"x-api-key: a-key-that-is-long-enough\r\n\r\n"
    assert (await say(edge.port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + trailers)).status == 401
    assert fake.requests == []


async def test_pipelined_requests_are_answered_one_after_the_other(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    one = HEAD + SIZE + b"\r\n" + BODY
    async with RawClient(edge.port) as client:
        await client.send(one + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"unknown_route" in await client.until(b"unknown_route")
        assert client.buffer.index(b"data: [DONE]") < client.buffer.index(b"unknown_route")
    assert len(fake.requests) == 1


# --- headers --------------------------------------------------------------------------------------------------------

REQUEST_IDS = {
    "good": ("abc-DEF_1.2", True),
    "longest": ("a" * 64, True),
    "too long": ("a" * 65, False),
    "10 kB": ("a" * 10_000, False),
    "blank": ("a b", False),
    "escaped line end": ("a%0d%0aSet-Cookie: x", False),
    "escape": ("a\x7f", False),
    "latin": ("caf\xe9", False),
    "quote": ('a"b', False),
    "empty": ("", False),
}


@pytest.mark.parametrize(("given", "kept"), REQUEST_IDS.values(), ids=REQUEST_IDS)
async def test_a_request_id_is_taken_only_if_it_is_well_formed(
    serve: Serve, fake: FakeModel, given: str, *, kept: bool
) -> None:
    """It goes to the client, the log and the model server, so it must be harmless in all three."""
    edge = await serve()
    lines = HEAD + SIZE + b"x-request-id: " + given.encode("latin-1") + b"\r\n\r\n"
    answer = await say(edge.port, lines + BODY)
    if answer.status == 400:  # not even HTTP
        assert not kept
        assert fake.requests == []
        return
    told = answer.headers["x-request-id"]
    assert (told == given) is kept
    assert told == answer.headers["request-id"] == fake.requests[0].headers["x-request-id"]
    assert told == (await edge.record())["request_id"]
    assert kept or (told.startswith("req_") and len(told) == 36)


@pytest.mark.parametrize(("given", "status"), [(b"a" * 17_000, 431), (b"a\r\n b", 400), (b"a\x00b", 400)])
async def test_a_request_id_that_is_no_header_value_is_no_request(
    serve: Serve, fake: FakeModel, given: bytes, status: int
) -> None:
    edge = await serve()
    assert (await say(edge.port, HEAD + SIZE + b"x-request-id: " + given + b"\r\n\r\n" + BODY)).status == status
    assert fake.requests == []


SENT_UPSTREAM = {
    "host", "accept", "accept-encoding", "content-type", "content-length", "user-agent", "x-request-id", "cdn-loop",
    "anthropic-version", "anthropic-beta", "openai-beta",
}  # fmt: skip


async def test_only_listed_headers_travel_upstream(serve: Serve, fake: FakeModel) -> None:
    """No credential, nothing of the connection, nothing that changes how a server works; and not the client's agent."""
    edge = await serve()
    extra = {
        "Authorization": "Bearer mine", "x-api-key": "mine", "Cookie": "a=mine", "Proxy-Authorization": "Basic mine",
        "Connection": "keep-alive, anthropic-beta, x-secret", "Keep-Alive": "timeout=9", "TE": "trailers",
        "Upgrade": "h2c", "HTTP2-Settings": "mine", "Trailer": "x-a", "Expect": "", "x-secret": "mine",
        "X-Conversation-Id": "mine", "X-Forwarded-For": "mine", "Forwarded": "for=mine", "Via": "mine",
        "User-Agent": "mine", "Accept-Encoding": "gzip", "X-HTTP-Method-Override": "DELETE", "Origin": "http://mine",
        "Referer": "http://mine", "anthropic-version": "2023-06-01", "OpenAI-Organization": "mine",
    }  # fmt: skip
    answer = await ask(edge.port, CHAT, chat_body(), extra)
    assert answer.status == 200
    (request,) = fake.requests
    assert {name.lower() for name in request.headers} <= SENT_UPSTREAM
    assert "mine" not in str(request.headers)
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["anthropic-version"] == "2023-06-01"


async def test_only_listed_headers_come_back(serve: Serve, fake: FakeModel) -> None:
    odd = {"Set-Cookie": "a=theirs", "Server": "theirs", "Location": "theirs", "Connection": "keep-alive, x-a",
           "Access-Control-Allow-Origin": "*", "X-Request-Id": "theirs", "Content-Encoding": "identity",
           "WWW-Authenticate": "theirs", "Clear-Site-Data": "theirs"}  # fmt: skip
    fake.script(head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked", **odd}),
                *(chunk(event) for event in chat_events()), end())  # fmt: skip
    fake.script(*json_answer({"error": {"message": "no"}}, 401, odd))
    edge = await serve()
    for _ in range(2):
        answer = await ask(edge.port, CHAT, chat_body())
        assert "theirs" not in str(answer.headers)
        assert not {"set-cookie", "location", "access-control-allow-origin"} & set(answer.headers)


# --- names that look like addresses ---------------------------------------------------------------------------------


@contextmanager
def trap() -> Iterator[socket.socket]:
    """A port that nobody may connect to."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        sock.setblocking(False)
        yield sock


async def test_what_a_request_says_never_becomes_a_connection(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    with trap() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        where = dict.fromkeys(("api_base", "base_url", "url", "proxy", "user_config", "metadata"), url)
        requests = [
            {"model": url},
            {"model": f"openai/{url}"},
            {"model": "m@" + url},
            where,
            {"metadata": {"x": [where]}},
        ]
        for request in requests:
            assert (await ask(edge.port, CHAT, chat_body(**request), {"X-Forwarded-Host": url})).status == 200
            await get(edge.port, f"/v1/models/{url}")
            await say(edge.port, b"GET " + url.encode() + b"v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert {request.path for request in fake.requests} == {CHAT}


async def test_a_redirect_is_not_followed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    with trap() as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/chat/completions"
        fake.script(*json_answer({}, 307, {"Location": url}))
        assert_told(await ask(edge.port, CHAT, chat_body()), 502, CHAT, "upstream_error")
        with pytest.raises(BlockingIOError):
            listener.accept()


# --- bombs ----------------------------------------------------------------------------------------------------------

M = b'{"messages":['
BOMBS = {
    "deep list": M + b"[" * 300 + b"]" * 300 + b"]}",
    "deeper than the parser": M + b"[" * 1025 + b"]" * 1025 + b"]}",
    "deep and unclosed": b"[" * 500_000,
    "deep objects": b'{"messages":[],"x":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
    "a million objects": M + b"{}," * 1_000_000 + b"{}]}",
    "two million numbers": M + b"0," * 2_000_000 + b"0]}",
    "quotes": b'{"' + b'\\"' * 400_000,
    "unclosed strings": b'"' + b'"[' * 200_000,
}


@pytest.mark.parametrize("raw", BOMBS.values(), ids=BOMBS)
async def test_json_bombs_are_refused_quickly(serve: Serve, fake: FakeModel, raw: bytes) -> None:
    edge = await serve()
    async with hang_limit():
        assert_told(await ask(edge.port, CHAT, raw), 400, CHAT, "invalid_request")
    assert fake.requests == []


async def test_a_big_bodys_fault_is_told_like_a_small_ones(serve: Serve) -> None:
    """Big ones are read by another process."""
    edge = await serve()
    for padding in (b" ", b" " * 2**20):
        answer = await ask(edge.port, CHAT, b'{"model":"m"' + padding + b"}")
        assert_told(answer, 400, CHAT, "invalid_request")
        assert answer.json["error"]["param"] == "messages"
        assert answer.json["error"]["message"] == "messages: required, a list of messages"


async def test_compressed_bodies_are_not_even_unpacked(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    bomb = gzip.compress(b"0" * 10_000_000)
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, identity", "x"):
        answer = await ask(edge.port, CHAT, bomb, {"Content-Encoding": coding})
        assert_told(answer, 415, CHAT, "unsupported_media_type")
    assert fake.requests == []


async def test_a_compressed_answer_is_not_unpacked_either(serve: Serve, fake: FakeModel) -> None:
    """Edge asks for none, so it is the upstream's fault."""
    bomb = gzip.compress(b"data: {}\n\n" * 1_000_000)
    fake.script(head(200, {"Content-Type": "text/event-stream", "Content-Encoding": "gzip",
                           "Transfer-Encoding": "chunked"}), chunk(bomb), end())  # fmt: skip
    edge = await serve()
    assert_told(await ask(edge.port, CHAT, chat_body()), 502, CHAT)


async def test_what_was_checked_is_what_is_sent(serve: Serve, fake: FakeModel) -> None:
    """Of duplicate keys one is left, so that the server behind cannot choose the other."""
    edge = await serve()
    raw = b'{"model":"a","model":"m","messages":[],"stream":false,"stream":true,\n"messages":[{"role":"user"}]}'
    assert (await ask(edge.port, CHAT, raw)).headers["content-type"].startswith("text/event-stream")
    sent = fake.requests[0].body
    for key in (b'"model"', b'"stream"', b'"messages"'):
        assert sent.count(key) == 1
    assert fake.requests[0].json["model"] == "m"


# --- injection into logs --------------------------------------------------------------------------------------------

EVIL = 'x\r\n{"event":"exchange","fake":1}\r\x1b[2J\x00\x85\u2028\u2029"\\'


class Tape(Lines):
    """Every character of the log."""

    def __init__(self) -> None:
        super().__init__()
        self.text = io.StringIO()

    def write(self, text: str) -> int:
        self.text.write(text)
        return len(text)


async def provoke(port: int, fake: FakeModel) -> None:
    """Lines of every kind, each with something hostile in what is logged. Ten of them."""
    for path in ("/%0d%0a%1b%5b2J%00", "/v1/models/x%e2%80%a8y%c2%85", "/a\x7f\xa0", f"/{'%0a' * 3000}"):
        await say(port, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a\x1b\r\n\r\n".encode("latin-1"))
    await ask(port, CHAT, b"{", {"x-request-id": "a%0a\xe9", "User-Agent": "x\tfake=1", "Host": "localhost"})
    for model in (EVIL, "m" * 10_000):
        await ask(port, CHAT, chat_body(model=model))
    fake.script(head(), chunk(sse({"error": {"message": EVIL, "code": EVIL, "type": EVIL}})), end())
    await ask(port, CHAT, chat_body())


@pytest.mark.parametrize("form", ["json", "logfmt", "console"])
async def test_nothing_that_is_logged_can_begin_a_line_of_its_own(serve: Serve, fake: FakeModel, form: str) -> None:
    edge = await serve(log={"format": form, "content_bytes": 200})
    tape = Tape()
    log.configure(Log(format=form, content_bytes=200), stream=tape)
    await provoke(edge.port, fake)
    while edge.edge.registry:
        await asyncio.sleep(0)
    text = tape.text.getvalue()
    lines = text.removesuffix("\n").split("\n")
    assert len(lines) == len(text.splitlines())  # nor for those who take U+2028 and the like for line ends
    assert all(char.isprintable() or char == "\n" for char in text)
    assert max(map(len, lines)) < 4_000
    if form == "json":
        events = [orjson.loads(line)["event"] for line in lines]
        assert (events.count("refused"), events.count("start"), events.count("exchange")) == (5, 3, 3)
        assert len(events) == 11
    elif form == "logfmt":
        assert len(lines) == 11
        assert all(line.startswith("2") for line in lines)
    else:
        assert len(lines) == 8  # without the three starts
        assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in lines)
    assert "m" * 200 not in text
