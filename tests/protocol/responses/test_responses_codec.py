"""OpenAI Responses: the same bytes and the same truth, and numbers that clients can follow."""

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import answers as say
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, codec_for, cut, cuts, goldens, read, slow, unhurried

from edge.errors import UpstreamCut
from edge.protocol.batch import Usage
from edge.protocol.codec import SseCodec
from edge.protocol.dialect import Dialect
from edge.protocol.dialects import DIALECTS
from edge.protocol.responses.format import ResponsesFormat, keepalive
from edge.protocol.surface import Surface

RESPONSES = Surface.RESPONSES
PING = b": ping\n\n"


def beat(dialect: Dialect, before: bytes, *, lively: bool) -> bytes:
    own = dialect.format("m", "req_1")
    own.before = before
    return own.heartbeat(lively=lively)


def event(kind: str, number: int, *, spaced: bool = False, end: bytes = b"\n", **fields: Any) -> bytes:
    payload = {"type": kind, "sequence_number": number, **fields}
    data = json.dumps(payload).encode() if spaced else orjson.dumps(payload)
    return b"event: " + kind.encode() + end + b"data: " + data + end + end


def token(text: str, number: int, **style: Any) -> bytes:
    return event("response.output_text.delta", number, item_id="m", delta=text, **style)


CREATED = event("response.created", 0, response={"id": "r"})
TOKEN = token("a", 1)
COMPLETED = event("response.completed", 2, response=say.responses_body())
INCOMPLETE = event("response.incomplete", 2, response=say.responses_body())
FAILED = event("response.failed", 2, response={"error": {"code": "server_error", "message": "m"}})
ERROR = event("error", 2, code="c", message="m", param=None)


def keepalive_number(codec: SseCodec) -> int:
    head, data, *rest = ResponsesFormat("m", "req_1").heartbeat(codec.progress(), lively=False).split(b"\n")
    assert (head, rest) == (b"event: keepalive", [b"", b""])
    payload = orjson.loads(data.removeprefix(b"data: "))
    assert payload == {"type": "keepalive", "sequence_number": payload["sequence_number"]}
    number = payload["sequence_number"]
    assert isinstance(number, int)
    return number


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The events of an answer as a server would write it: whole, or ended too early in some way."""
    style = {"spaced": draw(st.booleans()), "end": draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))}
    kinds = ["response.output_text.delta"] * 3 + ["response.function_call_arguments.delta", "response.in_progress"]
    texts = st.one_of(st.sampled_from(FORGERIES), st.text(max_size=6))
    plan = draw(st.lists(st.tuples(st.sampled_from(kinds), texts), max_size=12))
    written = [event(kind, number, delta=text, **style) for number, (kind, text) in enumerate(plan, 1)]
    number = len(written) + 1
    final = [event(kind, number, response=say.responses_body(), **style) for kind in ("response.completed", "x")]
    return [CREATED, *written, *draw(st.sampled_from([*([one] for one in final), [FAILED], [ERROR, *final], []]))]


@unhurried
@given(streams(), cuts)
def test_the_fast_path_tells_what_the_slow_one_does(events: list[bytes], positions: list[int]) -> None:
    """The number in the next heartbeat as well."""
    fast, walking = codec_for(RESPONSES), slow(codec_for(RESPONSES))
    assert read(fast, cut(b"".join(events), positions)) == read(walking, events)
    assert keepalive_number(fast) == keepalive_number(walking)


@pytest.mark.parametrize("path", goldens("responses"), ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, 7, 300, 2**20])
def test_real_streams_are_relayed_byte_for_byte(path: Path, step: int) -> None:
    stream = path.read_bytes()
    seen = read(codec_for(RESPONSES), cut(stream, range(0, len(stream), step)))
    assert (seen.data, seen.ending) == (stream, "done")
    assert seen.tokens > 0
    usage = orjson.loads(path.with_suffix(".json").read_bytes())["usage"]
    assert seen.usage is not None
    assert (seen.usage.prompt, seen.usage.completion) == (usage["input_tokens"], usage["output_tokens"])


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("text", FORGERIES)
def test_model_text_forges_nothing(text: str, *, spaced: bool) -> None:
    events = [TOKEN, *(token(text, number, spaced=spaced) for number in range(2, 5))]
    stream = b"".join(events)
    for pieces in ([stream], events, [TOKEN, stream[len(TOKEN) :]], cut(stream, range(0, len(stream), 11))):
        codec = codec_for(RESPONSES)
        seen = read(codec, pieces)
        assert (seen.data, seen.events, seen.tokens) == (stream, 4, 4)
        assert (seen.ending, seen.error) == ("cut", None)
        assert keepalive_number(codec) == 4


@pytest.mark.parametrize(
    ("events", "data", "ending"),
    [
        ([CREATED, TOKEN, COMPLETED], CREATED + TOKEN + COMPLETED, "done"),
        ([CREATED, TOKEN, INCOMPLETE], CREATED + TOKEN + INCOMPLETE, "done"),
        ([TOKEN, COMPLETED, b"data: [DONE]\n\n", TOKEN], TOKEN + COMPLETED, "done"),
        ([TOKEN, b"data: [DONE]\n\n"], TOKEN, "cut"),
        ([CREATED, TOKEN], CREATED + TOKEN, "cut"),
        ([], b"", "cut"),
        ([TOKEN, FAILED, COMPLETED], TOKEN + FAILED, "error told"),
        ([TOKEN, ERROR, COMPLETED], TOKEN + ERROR, "error told"),
        ([TOKEN, event("keepalive", 1), b": x\n\n", COMPLETED], TOKEN + COMPLETED, "done"),
        ([b"id: 1\n" + TOKEN, b"retry: 2\n" + COMPLETED], TOKEN + COMPLETED, "done"),
    ],
)
def test_how_a_stream_ends(events: list[bytes], data: bytes, ending: str) -> None:
    """By one of three events; the upstream's own heartbeats and ``[DONE]`` are not passed on."""
    stream = b"".join(events)
    for pieces in (events, [stream], cut(stream, range(len(stream)))):
        seen = read(codec_for(RESPONSES), pieces)
        assert (seen.data, seen.ending) == (data, ending)


def test_a_failed_response_is_a_regular_end_that_tells_the_error() -> None:
    """So no abort has to follow it; after an ``error`` event one has to."""
    for last, regular in ((FAILED, True), (ERROR, False)):
        batch = codec_for(RESPONSES).feed(TOKEN + last)
        assert batch.error is not None
        assert (batch.terminated, batch.error_in_data, batch.error.message) == (regular, True, "m")
    bare = codec_for(RESPONSES).feed(event("response.failed", 2, response=None))
    assert bare.error is not None
    assert bare.error.message == "the upstream failed: no reason given"


@pytest.mark.parametrize(
    ("bad", "status", "message"),
    [
        (b'data: {"error":{"message":"m","code":429}}\n\n', 429, "m"),
        (b'event: error\ndata: {"error":{"message":"m","code":"c"}}\n\n', 502, "m"),
        (b'event: error\ndata: {"type":"error","error":{"type":"x","message":"m"}}\n\n', 502, "m"),
        (b'data: {"type":"error","message":"m"}\n\n', 502, "m"),
        (b'data: {"error":"m"}\n\n', 502, "m"),
    ],
)
def test_an_error_in_another_shape_is_left_for_edge_to_tell(bad: bytes, status: int, message: str) -> None:
    seen = read(codec_for(RESPONSES), [CREATED + TOKEN + bad + COMPLETED])
    assert (seen.data, seen.ending) == (CREATED + TOKEN, "error")
    assert (seen.status, seen.error) == (status, message)


@pytest.mark.parametrize(
    "bad",
    [b'event: response.output_text.delta\ndata: {"del\n\n', b"data: hello\n\n", b"data:\n\n", TOKEN[:-3] + b"\n\n"],
)
def test_what_is_no_json_is_a_bad_stream(bad: bytes) -> None:
    for before in (CREATED, TOKEN):
        seen = read(codec_for(RESPONSES), [before, before + bad])
        assert (seen.data, seen.ending) == (before * 2, "bad")


@pytest.mark.parametrize("data", [b"null", b"7", b"[]", b"{}", b'{"type":{}}', b'{"sequence_number":"9"}'])
def test_json_of_another_shape_is_relayed_and_means_nothing(data: bytes) -> None:
    stream = b"data: " + data + b"\n\n"
    codec = codec_for(RESPONSES)
    seen = read(codec, [stream])
    assert (seen.data, seen.tokens, seen.ending) == (stream, 0, "cut")
    assert keepalive_number(codec) == 0


def test_heartbeats_are_comments_before_the_first_event_and_numbered_events_after() -> None:
    dialect = DIALECTS[RESPONSES]
    assert beat(dialect, b"", lively=True) == PING
    assert beat(dialect, CREATED + token("a", 7), lively=False) == keepalive(7)
    codec = codec_for(RESPONSES)
    for piece, number in (
        (CREATED, 0),
        (token("a", 1), 1),  # walked: the stream has only begun
        (token("a", 2), 2),  # fast
        (token("a", 3) + token("b", 4), 4),
        (token("a", 5, spaced=True), 5),
        (token("a", 6, end=b"\r\n"), 6),
        (b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n', 6),  # llama.cpp numbers nothing
        (b'event: response.output_text.delta\ndata: {"delta":"a","sequence_number": 1234567890123}\n\n', 1234567890123),
        (event("response.x", 12, item={"sequence_number": 3}), 12),
    ):
        codec.feed(piece)
        assert keepalive_number(codec) == number


def test_the_error_event_is_flat_and_carries_the_next_number() -> None:
    codec = codec_for(RESPONSES)
    codec.feed(CREATED + token("a", 7))
    head, data, *rest = (
        ResponsesFormat("m", "req_1").error_event(UpstreamCut("cut\noff"), codec.progress()).split(b"\n")
    )
    assert (head, rest) == (b"event: error", [b"", b""])
    flat = {"type": "error", "code": "upstream_cut", "message": "cut\noff", "param": None, "sequence_number": 8}
    assert orjson.loads(data.removeprefix(b"data: ")) == flat
    assert ResponsesFormat.terminator == b""


def test_usage_comes_with_the_end() -> None:
    assert read(codec_for(RESPONSES), [CREATED, TOKEN]).usage is None
    assert read(codec_for(RESPONSES), [CREATED, TOKEN, COMPLETED]).usage == Usage(7, 3, 0, 0)


@pytest.mark.parametrize("last", [COMPLETED, FAILED, ERROR, TOKEN])
def test_a_last_event_without_its_blank_line_counts_only_when_whole(last: bytes) -> None:
    whole = read(codec_for(RESPONSES), [TOKEN + last])
    line = last.rstrip(b"\n")
    for size in [*range(120), len(line) - 1, len(line), len(line) + 1]:
        seen = read(codec_for(RESPONSES), [TOKEN + last[:size]])
        if size >= len(line):
            assert (seen.data, seen.ending, seen.tokens) == (whole.data, whole.ending, whole.tokens)
        else:
            assert (seen.data, seen.ending) == (TOKEN, "cut")


@pytest.mark.parametrize("odd", [{"code": 500}, {"code": "c", "param": 7}])
def test_an_error_that_typed_clients_cannot_read_is_told_anew(odd: dict[str, Any]) -> None:
    """With the number that follows; one that they can read keeps its bytes."""
    fields = {"message": "m", "param": None, **odd}
    codec = codec_for(RESPONSES)
    batch = codec.feed(CREATED + TOKEN + event("error", 2, **fields))
    assert batch.data == CREATED + TOKEN
    assert batch.error is not None
    assert not batch.error_in_data
    told = orjson.loads(
        ResponsesFormat("m", "req_1").error_event(batch.error, codec.progress()).partition(b"data: ")[2]
    )
    assert (told["message"], told["sequence_number"]) == ("m", 2)
    assert all(told[name] is None or isinstance(told[name], str) for name in ("code", "param"))
