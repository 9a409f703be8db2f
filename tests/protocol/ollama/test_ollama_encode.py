"""Canonical events as Ollama's lines: whole tool calls, one last line with the figures, and nothing half said."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
import pytest
from fakes.answers import DONE, chat_events, chat_usage
from hypothesis import given
from hypothesis import strategies as st
from support.streams import MAX_EVENT, all_cuts, unhurried

from edge.bounds import TOOL_ARGUMENTS_CHARS
from edge.errors import UpstreamCut
from edge.protocol.batch import Usage
from edge.protocol.dialect import BadStream
from edge.protocol.dialects import DIALECTS
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.ollama.collect import OllamaCollector
from edge.protocol.ollama.decode import OllamaDecoder
from edge.protocol.ollama.encode import OllamaEncoder
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import transcoder
from edge.protocol.transcode_ports import Answering

BODIES: dict[Surface, dict[str, Any]] = {
    Surface.OLLAMA_CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    Surface.OLLAMA_GENERATE: {"prompt": "hi"},
}
both = pytest.mark.parametrize("surface", list(BODIES))
STRANGE = 'a\nb\r\u2028\u2029\x00"\\🎈é'


class Clock:
    """A second later at each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def encoder(surface: Surface = Surface.OLLAMA_CHAT) -> OllamaEncoder:
    prepared = prepare(surface, orjson.dumps({"model": "asked", **BODIES[surface]}))
    return OllamaEncoder(Answering(prepared, "ab12", 1_700_000_000), Clock())


def lines(
    events: Iterable[Event], surface: Surface = Surface.OLLAMA_CHAT, usage: Usage | None = None
) -> list[dict[str, Any]]:
    """The whole answer, off the wire."""
    writing = encoder(surface)
    pieces = [piece for event in events for piece in writing.add(event)] + writing.end(usage)
    wire = b"".join(map(writing.frame, pieces)) + writing.format.terminator
    assert wire.count(b"\n") == len(pieces)
    return [orjson.loads(line) for line in wire.splitlines()]


def call(number: int, *pieces: str, name: str = "weather", identity: str = "") -> list[Event]:
    return [ToolCallStart(number, identity, name), *(ToolCallArguments(number, piece) for piece in pieces)]


@both
def test_text_and_thinking_are_told_where_the_surface_has_them(surface: Surface) -> None:
    told = lines(
        [Start("m"), Reasoning("hm"), Reasoning("", "sig"), Text(STRANGE), Refusal("no"), Finish("stop")], surface
    )
    assert all(line["model"] == "m" for line in told)
    assert all(datetime.fromisoformat(line["created_at"]).tzinfo is not None for line in told)
    assert [line["done"] for line in told] == [False, False, False, True]
    held = [line["message"] for line in told] if surface is Surface.OLLAMA_CHAT else told
    key = "content" if surface is Surface.OLLAMA_CHAT else "response"
    assert [line[key] for line in held] == ["", STRANGE, "no", ""]
    assert held[0]["thinking"] == "hm"
    assert {message.get("role") for message in held} == ({"assistant"} if surface is Surface.OLLAMA_CHAT else {None})


@both
def test_the_last_line_has_reason_counts_and_durations(surface: Surface) -> None:
    """By Edge's clock: here it is looked at at the request (1), at the first content (2) and at the end (3)."""
    last = lines([Start("m"), Text("a"), Text("b"), Finish("length")], surface, Usage(7, 3))[-1]
    assert (last["done"], last["done_reason"]) == (True, "length")
    assert (last["prompt_eval_count"], last["eval_count"]) == (7, 3)
    second = 10**9
    assert last["total_duration"] == 2 * second
    assert (last["load_duration"], last["prompt_eval_duration"], last["eval_duration"]) == (0, second, second)
    assert all(isinstance(value, int) for name, value in last.items() if name.endswith(("_count", "_duration")))


@pytest.mark.parametrize(("reason", "told"), [("stop", "stop"), ("tool_calls", "stop"), ("content_filter",) * 2])
def test_the_reason_is_in_ollamas_words(reason: Any, told: str) -> None:
    assert lines([Start(), Finish(reason)])[-1]["done_reason"] == told


def test_an_empty_answer_is_its_last_line() -> None:
    (only,) = lines([Start(), Finish("stop")])
    assert (only["model"], only["message"]) == ("asked", {"role": "assistant", "content": ""})
    assert (only["prompt_eval_count"], only["eval_count"], only["eval_duration"]) == (0, 0, 0)


def test_tool_calls_are_told_whole_with_their_arguments_as_objects() -> None:
    first, second, third = (
        call(0, '{"ci', 'ty":"Ro', 'me"}', identity="c1"),
        call(1, '{"city":"Oslo"}'),
        call(2, name="now"),
    )
    begun = [event for pair in (first, second, third) for event in pair[:1]]
    mixed = [second[1], *first[1:]]  # servers may interleave them
    told = lines([Start(), Text("look"), *begun, *mixed, Finish("tool_calls")])
    assert len(told) == 3
    assert told[1]["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"index": 0, "name": "weather", "arguments": {"city": "Rome"}}},
            {"function": {"index": 1, "name": "weather", "arguments": {"city": "Oslo"}}},
            {"function": {"index": 2, "name": "now", "arguments": {}}},
        ],
    }


@pytest.mark.parametrize("arguments", ['{"city":', "[1]", "null", "text"])
def test_arguments_that_are_no_object_end_the_answer_instead_of_being_made_up(arguments: str) -> None:
    with pytest.raises(BadStream, match="weather are no JSON object"):
        lines([Start(), *call(0, arguments), Finish("tool_calls")])


def test_a_call_that_the_limit_has_cut_is_left_out_and_the_reason_says_so() -> None:
    told = lines([Start(), *call(0, '{"city":"Rome"}'), *call(1, '{"ci'), Finish("length")])
    assert [len(line["message"].get("tool_calls", ())) for line in told] == [1, 0]
    assert told[-1]["done_reason"] == "length"


def test_calls_do_not_grow_without_bound() -> None:
    writing = encoder()
    writing.add(ToolCallStart(0, "", "f"))
    for _ in range(TOOL_ARGUMENTS_CHARS // 4096):
        assert writing.add(ToolCallArguments(0, "x" * 4096)) == []
    with pytest.raises(BadStream, match=f"over {TOOL_ARGUMENTS_CHARS} characters"):
        writing.add(ToolCallArguments(0, "x"))


def test_what_has_no_place_is_left_out() -> None:
    assert len(lines([Start(), Annotation({"url": "x"}), Finish("stop")])) == 1


@both
def test_heartbeats_and_errors_are_lines(surface: Surface) -> None:
    writing = encoder(surface)
    beat = orjson.loads(writing.format("m", "req_1").heartbeat(writing.progress(), lively=True))
    assert (beat["model"], beat["done"]) == ("asked", False)
    assert beat.get("response", beat.get("message", {}).get("content")) == ""
    line = writing.format("m", "req_1").error_event(UpstreamCut("it broke\noff"), writing.progress())
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert orjson.loads(line) == {"error": "it broke\noff"}


def test_the_collected_answer_is_one_line_with_all_of_it() -> None:
    collector = OllamaCollector()
    events = [Start("m"), Reasoning("h"), Reasoning("m"), Text("a"), Text("b"), *call(0, "{}"), Finish("stop")]
    for line in lines(events, usage=Usage(1, 2)):
        collector.add(line)
    answer: dict[str, Any] = collector.answer()
    assert (answer["message"]["content"], answer["message"]["thinking"]) == ("ab", "hm")
    assert answer["message"]["tool_calls"][0]["function"]["name"] == "weather"
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "stop", 2)


@both
def test_a_chat_stream_may_be_cut_anywhere(surface: Surface) -> None:
    wire = b"".join([*chat_events(["a🎈", "[DONE]", "\u2028"])[:-2], chat_usage(7, 3), DONE])

    def told(pieces: list[bytes]) -> list[dict[str, Any]]:
        prepared = prepare(surface, orjson.dumps({"model": "asked", **BODIES[surface]}))
        source = DIALECTS[Surface.CHAT].codec(prepared, MAX_EVENT, frozenset())
        codec = transcoder(source, Surface.CHAT, Answering(prepared, "ab12", 1_700_000_000))
        data = b"".join([*(codec.feed(piece).data for piece in pieces), codec.eof().data])
        assert codec.finished(clean_eof=True)
        return [orjson.loads(line) for line in data.splitlines()]

    for pieces in all_cuts(wire, pairs=False):
        *first, last = told(pieces)
        texts = [line["message"]["content"] if "message" in line else line["response"] for line in first]
        assert "".join(texts) == "a🎈[DONE]\u2028"
        assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 3)


texts = st.text(min_size=1)
objects = st.dictionaries(st.text(), st.none() | st.booleans() | st.text() | st.integers(-(2**31), 2**31), max_size=3)


@given(
    said=st.lists(texts.map(Text) | texts.map(Reasoning)),
    called=st.lists(objects, max_size=3),
    reason=st.sampled_from(["stop", "length"]),
)
@unhurried
def test_any_answer_survives_being_written_and_read(
    said: list[Event], called: list[dict[str, Any]], reason: Any
) -> None:
    calls = [event for number, value in enumerate(called) for event in call(number, orjson.dumps(value).decode())]
    events = [Start("m"), *said, *calls, Finish(reason)]
    decoder = OllamaDecoder()
    for line in lines(events):
        decoder.add(line)
    assert decoder.events == events
