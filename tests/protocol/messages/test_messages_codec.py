"""Anthropic Messages: the same bytes and the same truth, whatever the model writes and the network cuts."""

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
from edge.protocol.messages.format import MessagesFormat
from edge.protocol.surface import Surface

MESSAGES = Surface.MESSAGES
START, BLOCK, TOKEN, DELTA, STOP = (
    say.messages_start(),
    say.messages_block_start(),
    say.messages_token("a"),
    say.messages_delta(),
    say.messages_stop(),
)
ERROR = say.messages_error()


def write(payload: Any, *, spaced: bool, end: bytes, named: bool = True) -> bytes:
    data = json.dumps(payload).encode() if spaced else orjson.dumps(payload)
    name = b"event: " + payload["type"].encode() + end
    return name * named + b"data: " + data + end + end


KINDS = (("text_delta", "text"), ("thinking_delta", "thinking"), ("input_json_delta", "partial_json"))
texts = st.one_of(st.sampled_from(FORGERIES), st.text(max_size=6))
deltas = st.tuples(st.sampled_from(KINDS), texts).map(lambda drawn: {"type": drawn[0][0], drawn[0][1]: drawn[1]})


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """The events of an answer as a server would write it: whole, or ended too early in some way."""
    style = {"spaced": draw(st.booleans()), "end": draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))}
    tool = {"type": "content_block_start", "index": 1, "content_block": {"type": "tool_use", "id": "x", "name": "f"}}
    between = st.one_of(
        deltas.map(lambda delta: {"type": "content_block_delta", "index": 0, "delta": delta}),
        deltas.map(lambda delta: {"type": "content_block_delta", "index": 0, "delta": delta}),
        st.sampled_from([{"type": "ping"}, {"type": "content_block_stop", "index": 0}, tool, {"type": "new_thing"}]),
    )
    written = [write(payload, **style) for payload in draw(st.lists(between, max_size=12))]
    written += draw(st.sampled_from([[DELTA, STOP], [DELTA], [STOP], [], [ERROR, STOP], [DELTA, STOP, TOKEN]]))
    return [START, BLOCK, *written]


@unhurried
@given(streams(), cuts)
def test_the_fast_path_tells_what_the_slow_one_does(events: list[bytes], positions: list[int]) -> None:
    expected = read(slow(codec_for(MESSAGES)), events)
    assert read(codec_for(MESSAGES), cut(b"".join(events), positions)) == expected


@pytest.mark.parametrize("path", goldens("messages"), ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, 7, 300, 2**20])
def test_real_streams_are_relayed_byte_for_byte(path: Path, step: int) -> None:
    stream = path.read_bytes()
    blocks = [block + b"\n\n" for block in stream.split(b"\n\n") if block and not block.startswith(b"event: ping")]
    seen = read(codec_for(MESSAGES), cut(stream, range(0, len(stream), step)))
    assert (seen.data, seen.ending) == (b"".join(blocks), "done")
    assert seen.tokens > 0
    usage = orjson.loads(path.with_suffix(".json").read_bytes())["usage"]
    assert seen.usage is not None
    assert seen.usage.completion == usage["output_tokens"]
    cached = usage.get("cache_read_input_tokens") or 0
    assert seen.usage.prompt == usage["input_tokens"] + cached + (usage.get("cache_creation_input_tokens") or 0)


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize("text", FORGERIES)
def test_model_text_forges_nothing(text: str, *, spaced: bool) -> None:
    payloads = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": kind, name: text}} for kind, name in KINDS
    ]
    events = [TOKEN, *(write(payload, spaced=spaced, end=b"\n") for payload in payloads), TOKEN]
    stream = b"".join(events)
    for pieces in ([stream], events, [TOKEN, stream[len(TOKEN) :]], cut(stream, range(0, len(stream), 11))):
        seen = read(codec_for(MESSAGES), pieces)
        assert (seen.data, seen.events, seen.tokens) == (stream, 5, 5)
        assert (seen.ending, seen.usage, seen.error) == ("cut", None, None)


@pytest.mark.parametrize(
    ("events", "data", "ending"),
    [
        ([START, BLOCK, TOKEN, DELTA, STOP], START + BLOCK + TOKEN + DELTA + STOP, "done"),
        ([START, DELTA, STOP], START + DELTA + STOP, "done"),
        ([TOKEN, DELTA], TOKEN + DELTA, "done"),
        ([TOKEN, DELTA, b"data: [DONE]\n\n"], TOKEN + DELTA, "done"),
        ([TOKEN, STOP], TOKEN, "cut"),
        ([TOKEN, b"data: [DONE]\n\n"], TOKEN, "cut"),
        ([TOKEN], TOKEN, "cut"),
        ([START], START, "cut"),
        ([], b"", "cut"),
        ([TOKEN, ERROR, STOP], TOKEN + ERROR, "error told"),
        ([TOKEN, DELTA, ERROR, b"data: [DONE]\n\n"], TOKEN + DELTA + ERROR, "error told"),
        ([TOKEN, say.messages_ping(), TOKEN, b": x\n\n", DELTA, STOP], TOKEN * 2 + DELTA + STOP, "done"),
        ([b"id: 1\n" + TOKEN, b"retry: 2\n" + DELTA, STOP], TOKEN + DELTA + STOP, "done"),
    ],
)
def test_how_a_stream_ends(events: list[bytes], data: bytes, ending: str) -> None:
    """An end that is not true is not passed on, none counts after an error; pings are Edge's own business."""
    stream = b"".join(events)
    for pieces in (events, [stream], cut(stream, range(len(stream)))):
        seen = read(codec_for(MESSAGES), pieces)
        assert (seen.data, seen.ending) == (data, ending)


@pytest.mark.parametrize(
    "event",
    [
        b'event: content_block_delta\ndata: {"type":"content_block_delta","del\n\n',
        b'event: content_block_delta\ndata: {"type":"content_block_delta","del}\ndata: x\n\n',
        b"event: message_stop\ndata: \n\n",
        b"data: hello\n\n",
    ],
)
def test_what_is_no_json_is_a_bad_stream(event: bytes) -> None:
    for before in (START, TOKEN):
        seen = read(codec_for(MESSAGES), [before, before + event])
        assert (seen.data, seen.ending) == (before * 2, "bad")


@pytest.mark.parametrize("event", [b"null", b"7", b"[]", b"{}", b'{"type":{}}', b'{"type":"message_delta","delta":1}'])
def test_json_of_another_shape_is_relayed_and_means_nothing(event: bytes) -> None:
    stream = b"data: " + event + b"\n\n"
    seen = read(codec_for(MESSAGES), [stream])
    assert (seen.data, seen.tokens, seen.ending) == (stream, 0, "cut")


@pytest.mark.parametrize(
    ("event", "status", "message", "told"),
    [
        (ERROR, 502, "the model broke", True),
        (b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}\r\n\r\n',
         529, "m", True),
        (b'data: {"type":"error","error":{"type":"x","message":"m"}}\n\n', 502, "m", False),  # no SDK would see it
        (b'event: error\ndata: {"error":{"message":"m","code":429}}\n\n', 429, "m", False),
        (b'data: {"error":{"message":"m","type":"t","param":null,"code":400}}\n\n', 400, "m", False),
        (b'event: error\ndata: {"message":"m"}\n\n', 502, "m", False),
        (b'data: {"error":"m"}\n\n', 502, "m", False),
    ],
)  # fmt: skip
def test_an_error_event_ends_the_stream(event: bytes, status: int, message: str, *, told: bool) -> None:
    for before in (b"", START, START + TOKEN):
        seen = read(codec_for(MESSAGES), [before + event + STOP])
        assert (seen.ending, seen.status, seen.error) == ("error told" if told else "error", status, message)
        assert seen.data == before + event * told


def test_usage_is_merged_field_by_field() -> None:
    """Input comes first, output last; what was read from the cache or written to it is part of the prompt."""
    first = {"input_tokens": 5, "cache_read_input_tokens": 10, "cache_creation_input_tokens": 20, "output_tokens": 1}
    start = say.messages_event("message_start", message={"usage": first})
    assert read(codec_for(MESSAGES), [start]).usage == Usage(35, 1, 10)
    assert read(codec_for(MESSAGES), [start, say.messages_delta(completion=9)]).usage == Usage(35, 9, 10)
    assert read(codec_for(MESSAGES), [say.messages_event("message_start", message=None), TOKEN]).usage is None


def test_what_is_generated_content() -> None:
    """Blocks that begin empty are not yet; a tool call's name is."""
    assert read(codec_for(MESSAGES), [START, BLOCK, say.messages_ping()]).tokens == 0
    tool = say.messages_event("content_block_start", index=1, content_block={"type": "tool_use", "name": "f"})
    assert read(codec_for(MESSAGES), [START, tool]).tokens == 1


@pytest.mark.parametrize("last", [STOP, ERROR, TOKEN])
def test_a_last_event_without_its_blank_line_counts_only_when_whole(last: bytes) -> None:
    before = TOKEN + DELTA * (last is STOP)
    whole = read(codec_for(MESSAGES), [before + last])
    line = last.rstrip(b"\n")
    for size in range(len(line) + 2):
        seen = read(codec_for(MESSAGES), [before + last[:size]])
        if size >= len(line):
            assert (seen.data, seen.ending, seen.tokens) == (whole.data, whole.ending, whole.tokens)
        else:
            assert (seen.data, seen.ending) == (before, "done" if last is STOP else "cut")


def test_what_edge_says_on_this_surface() -> None:
    codec = codec_for(MESSAGES)
    assert MessagesFormat.terminator == b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    ping = b'event: ping\ndata: {"type":"ping"}\n\n'
    assert MessagesFormat("m", "req_1").heartbeat(codec.progress(), lively=False) == ping
    head, data, *rest = MessagesFormat("m", "req_1").error_event(UpstreamCut("cut\noff"), codec.progress()).split(b"\n")
    assert (head, rest) == (b"event: error", [b"", b""])
    error = {"type": "api_error", "message": "cut\noff"}
    assert orjson.loads(data.removeprefix(b"data: ")) == {"type": "error", "error": error, "request_id": "req_1"}


def test_a_block_of_an_odd_type_breaks_nothing() -> None:
    stream = b'data: {"type":"content_block_start","content_block":{"type":["text"]}}\n\n'
    assert read(codec_for(MESSAGES), [stream]).data == stream
