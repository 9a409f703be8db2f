"""Messages streams as canonical events and back: nothing is lost, and every stream is well-formed."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.messages import CITED, call, shape, written
from support.streams import FORGERIES, codec_for, cut, goldens, unhurried

from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reasoning,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.messages.decode import MessagesDecoder
from edge.protocol.surface import Surface


def decoded(payloads: Iterable[Any]) -> list[Event]:
    decoder = MessagesDecoder()
    for payload in payloads:
        decoder.add(payload)
    return decoder.events


def block(kind: str, *deltas: Any, index: int = 0, **fields: Any) -> list[Any]:
    started = {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}
    parts = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [started, *parts, {"type": "content_block_stop", "index": index}]


# Decoding


@pytest.mark.parametrize("path", goldens("messages"), ids=lambda path: path.stem)
@pytest.mark.parametrize("step", [1, 300, 2**20])
def test_a_recorded_stream_is_its_whole_answer(path: Path, step: int) -> None:
    stream, answer = path.read_bytes(), orjson.loads(path.with_suffix(".json").read_bytes())
    codec, decoder = codec_for(Surface.MESSAGES), MessagesDecoder()
    codec.collect(decoder)
    for piece in cut(stream, range(0, len(stream), step)):
        codec.feed(piece)
    codec.eof()
    whole = MessagesDecoder()
    usage = whole.whole(answer)
    assert shape(decoder.events, ids=False) == shape(whole.events, ids=False)
    assert codec.usage == usage
    texts = "".join(event.text for event in decoder.events if isinstance(event, Text))
    assert texts == "".join(held["text"] for held in answer["content"] if held["type"] == "text")
    assert decoder.events[0] == Start(answer["model"])
    assert isinstance(decoder.events[-1], Finish)


def test_tool_calls_are_counted_by_themselves() -> None:
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ("", '{"a"', ":1}")]
    stream = [
        *block("text", {"type": "text_delta", "text": "x"}, text=""),
        *block("server_tool_use", *pieces, index=1, id="s", name="web_search", input={}),
        *block("tool_use", *pieces, index=2, id="t", name="f", input={}),
        *block("tool_use", pieces[0], index=3, id="u", name="g", input={}),
        *block("tool_use", index=4, id="v", name="h", input={"b": 2}),
    ]
    assert decoded(stream) == [
        Text("x"),
        ToolCallStart(0, "t", "f"),
        ToolCallArguments(0, '{"a"'),
        ToolCallArguments(0, ":1}"),
        ToolCallStart(1, "u", "g"),
        ToolCallArguments(1, "{}"),
        ToolCallStart(2, "v", "h"),
        ToolCallArguments(2, '{"b":2}'),
    ]


def test_thought_citations_and_text_that_begin_a_block() -> None:
    stream = [
        *block("thinking", {"type": "signature_delta", "signature": "c2ln"}, thinking="hm", signature=""),
        *block("redacted_thinking", index=1, data="ZGF0YQ"),
        *block("text", {"type": "citations_delta", "citation": CITED}, index=2, text="a", citations=[]),
    ]
    assert decoded(stream) == [Reasoning("hm"), Reasoning("", "c2ln"), Text("a"), Annotation(CITED)]


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        ({"stop_reason": "end_turn", "stop_sequence": None}, Finish("stop")),
        ({"stop_reason": "stop_sequence", "stop_sequence": "END"}, Finish("stop", "END")),
        ({"stop_reason": "max_tokens"}, Finish("length")),
        ({"stop_reason": "model_context_window_exceeded"}, Finish("length")),
        ({"stop_reason": "pause_turn"}, Finish("length")),
        ({"stop_reason": "tool_use"}, Finish("stop")),  # there is no call
        ({"stop_reason": "refusal"}, Finish("content_filter")),
        ({"stop_reason": "something_new"}, Finish("stop")),
        ({"stop_reason": ["odd"], "stop_sequence": 7}, Finish("stop")),
    ],
)
def test_how_an_answer_ends(said: dict[str, Any], finish: Finish) -> None:
    assert decoded([{"type": "message_delta", "delta": said}]) == [finish]
    assert decoded([{"type": "message_delta", "delta": {"stop_reason": None}}]) == []


@pytest.mark.parametrize(
    "odd",
    [
        None, [], {}, {"type": "ping"}, {"type": ["x"]}, {"type": "message_start", "message": "x"},
        {"type": "content_block_start", "index": 0}, {"type": "content_block_start", "content_block": "x"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 7}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": "x"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "new_delta", "text": "x"}},
        {"type": "content_block_stop", "index": 9}, {"type": "message_delta", "delta": 7},
    ],
)  # fmt: skip
def test_odd_payloads_mean_nothing(odd: Any) -> None:
    assert decoded([odd]) == []


@pytest.mark.parametrize("odd", [{}, {"content": "x"}, {"error": {}}])
def test_what_is_no_message_has_no_events(odd: Any) -> None:
    decoder = MessagesDecoder()
    assert decoder.whole(odd) is None
    assert decoder.events == []


# Both ways

texts = st.one_of(st.sampled_from(FORGERIES), st.text(min_size=1, max_size=6))
json_values: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Any order of text, thought, citations and calls; the pieces of the calls mixed at will, but each in its order."""
    lanes: list[list[Event]] = []
    for number in range(draw(st.integers(0, 3))):
        json = orjson.dumps(draw(st.dictionaries(texts, json_values, max_size=3))).decode()
        positions = draw(st.lists(st.integers(0, len(json)), max_size=4))
        pieces = [json[a:b] for a, b in pairwise(sorted({0, *positions, len(json)}))]
        lanes.append(call(number, *pieces))
    others = st.one_of(
        texts.map(Text), texts.map(Reasoning), texts.map(lambda held: Reasoning("", held)), st.just(Annotation(CITED))
    )
    lanes.append(draw(st.lists(others, max_size=8)))
    events: list[Event] = []
    begun = 0  # calls are numbered as they begin
    while any(lanes):
        ready = [lane for n, lane in enumerate(lanes) if lane and (n == len(lanes) - 1 or n <= begun)]
        lane = draw(st.sampled_from(ready))
        event = lane.pop(0)
        begun += isinstance(event, ToolCallStart)
        events.append(event)
    reasons = [Finish("stop"), Finish("length"), Finish("content_filter")]
    ends = [Finish("tool_calls")] if begun else [*reasons, Finish("stop", "END")]
    return [Start("m"), *events, draw(st.sampled_from(ends))]


@unhurried
@given(answers())
def test_any_answer_survives_the_way_there_and_back(events: list[Event]) -> None:
    assert shape(decoded(written(events))) == shape(events)
