"""An answer is known by its first bytes, whatever its type says; compressed, it is read."""

import gzip
import zlib

import orjson
import pytest
from fakes.model_server import FakeModel, Step, chunk, end, head, json_answer
from support.faults import SURFACES, every_surface, without_usage
from support.raw import CHAT, MESSAGES, Answer, ask, chat_body
from support.running import Serve
from support.surfaces import SPOKEN, Spoken

CHUNKED = {"Transfer-Encoding": "chunked"}


def error_of(answer: Answer) -> dict[str, object]:
    error: dict[str, object] = answer.json["error"]
    return error


def typed(kind: str, data: bytes, **headers: str) -> list[Step]:
    named = {"Content-Type": kind} if kind else {}
    return [head(200, {**CHUNKED, **named, **headers}), chunk(data), end()]


def whole_stream(spoken: Spoken) -> bytes:
    return spoken.prelude + spoken.token + spoken.ending


@every_surface
@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=utf-8", "text/html", ""])
async def test_a_stream_is_one_under_any_type(serve: Serve, fake: FakeModel, spoken: Spoken, kind: str) -> None:
    edge = await serve(upstream=SURFACES)
    fake.script(*typed(kind, whole_stream(spoken)))
    streamed = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert (streamed.status, streamed.body) == (200, without_usage(whole_stream(spoken)))
    fake.script(*typed(kind, b": hello\n\n" + whole_stream(spoken)))
    collected = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert collected.status == 200
    assert b"tok" in collected.body


@pytest.mark.parametrize("cut", [1, 3, 5])
async def test_the_first_bytes_may_come_one_by_one(serve: Serve, fake: FakeModel, cut: int) -> None:
    edge = await serve(upstream=SURFACES)
    data = b"\xef\xbb\xbf\n" + whole_stream(SPOKEN[0])
    fake.script(head(200, {**CHUNKED, "Content-Type": "application/json"}), chunk(data, every=cut), end())
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert answer.status == 200
    assert b"tok" in answer.body


async def test_json_under_the_type_of_a_stream_is_read(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    fake.script(*typed("text/event-stream", b'{"error":{"message":"no such thing","code":404}}'))
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert (answer.status, error_of(answer)["message"]) == (404, "no such thing")


@pytest.mark.parametrize("kind", ["text/html", "", "application/json"])
async def test_what_begins_as_nothing_known_is_told(serve: Serve, fake: FakeModel, kind: str) -> None:
    edge = await serve()
    fake.script(*typed(kind, b"<html>"))
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert answer.status == 502
    assert (kind or "no type").removeprefix("application/").upper() in str(error_of(answer)["message"]).upper()


RAW = zlib.compressobj(wbits=-15)
SQUEEZED = {
    "gzip": gzip.compress,
    "x-gzip": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:]) + b"\0" * 8,
    "deflate": zlib.compress,
    "Deflate": lambda data: RAW.copy().compress(data) + _flushed(data),
}


def _flushed(data: bytes) -> bytes:
    squeezer = RAW.copy()
    return squeezer.compress(data)[:0] + squeezer.flush()


@pytest.mark.parametrize("encoding", SQUEEZED)
@pytest.mark.parametrize("every", [None, 7])
async def test_compressed_answers_are_read(serve: Serve, fake: FakeModel, encoding: str, every: int | None) -> None:
    edge = await serve()
    squeeze, told = SQUEEZED[encoding], {**CHUNKED, "Content-Encoding": encoding}
    stream = squeeze(whole_stream(SPOKEN[0]))
    fake.script(head(200, {**told, "Content-Type": "text/event-stream"}), chunk(stream, every=every), end())
    assert b"tok" in (await ask(edge.port, CHAT, chat_body(stream=True))).body
    whole = orjson.dumps({"choices": [{"index": 0, "message": {"content": "tok"}, "finish_reason": "stop"}]})
    fake.script(head(200, {**told, "Content-Type": "application/json"}), chunk(squeeze(whole), every=every), end())
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.body) == (200, whole)
    why = b'{"error":{"message":"the prompt is too long"}}'
    fake.script(head(400, {**told, "Content-Type": "application/json"}), chunk(squeeze(why), every=every), end())
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert (answer.status, error_of(answer)["message"]) == (400, "the prompt is too long")


async def test_a_compressed_stream_that_is_cut_is_told_as_cut(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    cut = gzip.compress(whole_stream(SPOKEN[0]))[:-30]
    fake.script(*typed("text/event-stream", cut, **{"Content-Encoding": "gzip"}))
    await ask(edge.port, CHAT, chat_body(stream=True))
    assert (await edge.record())["outcome"] == "upstream_cut"


@pytest.mark.parametrize(("encoding", "data"), [("br", b"x"), ("gzip", b"no gzip at all")])
async def test_compression_that_cannot_be_read_is_told(
    serve: Serve, fake: FakeModel, encoding: str, data: bytes
) -> None:
    edge = await serve()
    fake.script(*typed("application/json", data, **{"Content-Encoding": encoding}))
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert answer.status == 502
    assert "compress" in str(error_of(answer)["message"])


async def test_a_small_read_does_not_grow_without_bound(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"max_answer_bytes": 100_000})
    bomb = gzip.compress(b"data: " + b"x" * 10_000_000)
    fake.script(*typed("text/event-stream", bomb, **{"Content-Encoding": "gzip"}))
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert answer.status == 502
    assert "max_answer_bytes" in str(error_of(answer)["message"])
    assert answer.headers["x-should-retry"] == "false"


async def test_an_event_over_the_bound_names_the_setting(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"max_event_bytes": 100_000})
    fake.script(head(), chunk(b"data: " + b"x" * 200_000))
    answer = await ask(edge.port, CHAT, chat_body(stream=True))
    assert "stream.max_event_bytes" in str(error_of(answer)["message"])
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("inner", "status"),
    [
        ({"type": "overloaded_error"}, 529),
        ({"type": "rate_limit_error"}, 429),
        ({"type": "invalid_request_error"}, 400),
        ({"type": "x", "code": "context_length_exceeded"}, 400),
        ({"type": "x", "code": "503"}, 503),
        ({"type": "api_error"}, 502),
    ],
)
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_typed_error_in_the_first_event_keeps_its_status(
    serve: Serve, fake: FakeModel, inner: dict[str, str], status: int, path: str
) -> None:
    edge = await serve(upstream=SURFACES)
    said = orjson.dumps({"type": "error", "error": {**inner, "message": "no"}})
    fake.script(*typed("text/event-stream", b"event: error\ndata: " + said + b"\n\n"))
    spoken = next(spoken for spoken in SPOKEN if spoken.path == path)
    assert (await ask(edge.port, path, spoken.asked(stream=True))).status == status


async def test_many_vectors_pass_and_are_not_read(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    data = [{"object": "embedding", "index": n, "embedding": "A" * 2**20} for n in range(3)]
    fake.script(*json_answer({"object": "list", "data": data, "model": "m"}))
    answer = await ask(edge.port, "/v1/embeddings", orjson.dumps({"model": "m", "input": ["a"] * 3}))
    assert (answer.status, len(answer.json["data"])) == (200, 3)
