"""Canonical events as a Responses stream: every stream is well formed, and says what the events said."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.responses import texts_of, well_formed
from support.streams import FORGERIES, unhurried

from edge.errors import UpstreamCut, UpstreamSaid
from edge.protocol.batch import Usage
from edge.protocol.canonical import Target, ThinkingPart
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
from edge.protocol.request import prepare
from edge.protocol.responses.collect import ResponsesCollector
from edge.protocol.responses.encode import ResponsesEncoder
from edge.protocol.responses.parse import parse
from edge.protocol.surface import Surface
from edge.protocol.transcode import translate
from edge.protocol.transcode_ports import Answering

ID = "0123456789abcdef" * 2
CUSTOM = {"type": "custom", "name": "apply_patch", "description": "Edit files."}
SEARCH = {"type": "function", "name": "search", "parameters": {}}
GITHUB = {"type": "namespace", "name": "mcp__github", "description": "GitHub.", "tools": [SEARCH]}
USAGE = Usage(prompt=7, completion=3, cached=4, reasoning=1)


def encoder(**asked: Any) -> ResponsesEncoder:
    prepared = prepare(Surface.RESPONSES, orjson.dumps({"model": "asked", "input": "hi", "stream": True, **asked}))
    translated = translate(prepared, Target(Surface.CHAT))
    return ResponsesEncoder(Answering(prepared, ID, 1_700_000_000, translated.echo))


def told(*events: Event, usage: Usage | None = USAGE, asked: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """The stream for these events, as a client decodes it."""
    making = encoder(**(asked or {}))
    pieces = [piece for event in (Start("m"), *events) for piece in making.add(event)] + making.end(usage)
    frames = [making.frame(piece) for piece in pieces]
    assert all(frame.count(b"\n") == 3 and frame.endswith(b"\n\n") for frame in frames)
    return [orjson.loads(frame.split(b"\ndata: ")[1]) for frame in frames]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_one_message_from_added_to_done() -> None:
    events = told(Text("Hel"), Text("lo"), Finish("stop"))
    assert kinds(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done", "content_part.done"),
        *("output_item.done", "completed"),
    ]
    final = well_formed(events)
    assert (final["id"], final["model"], final["created_at"]) == (f"resp_{ID}", "m", 1_700_000_000)
    assert final["output"] == [
        {
            "id": f"msg_{ID}00",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}],
        }
    ]


def test_usage_has_its_details() -> None:
    assert well_formed(told(Text("a"), Finish("stop")))["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 10,
    }
    assert well_formed(told(Text("a"), Finish("stop"), usage=None))["usage"] is None


def test_thought_text_and_call_are_three_items_in_order() -> None:
    thought = (Reasoning("Hm"), Reasoning("m"), Reasoning("", "signature"))
    call = (ToolCallStart(0, "call_a", "weather"), ToolCallArguments(0, '{"city":'), ToolCallArguments(0, '"Rome"}'))
    events = told(*thought, Text("Let me see."), *call, Finish("tool_calls"))
    final = well_formed(events)
    assert texts_of(final) == [
        ("reasoning", "Hmm"),
        ("message", "Let me see."),
        ("function_call", '{"city":"Rome"}'),
    ]
    assert kinds(events).count("reasoning_text.delta") == 2
    thinking, _, called = final["output"]
    assert thinking["summary"] == []
    assert [item["id"] for item in final["output"]] == [f"rs_{ID}00", f"msg_{ID}01", f"fc_{ID}02"]
    assert (called["call_id"], called["name"], called["status"]) == ("call_a", "weather", "completed")


def test_a_thought_can_be_sent_back_by_a_client_that_asks_for_it() -> None:
    """Codex sends back nothing of a thought but what it cannot read."""
    events = (Reasoning("Hm"), Reasoning("m 🎈"), Reasoning("", "sig=="), Reasoning("More"), Text("a"), Finish("stop"))
    final = well_formed(told(*events, asked={"include": ["reasoning.encrypted_content"]}))
    thoughts = [{**item, "content": None} for item in final["output"] if item["type"] == "reasoning"]
    ask = parse({"model": "m", "input": [{"role": "user", "content": "hi"}, *thoughts]})
    assert ask.messages[1].parts == (ThinkingPart("Hmm 🎈", "sig=="), ThinkingPart("More"))
    assert "include" not in final


def test_a_thought_is_not_sealed_for_a_client_that_does_not_ask() -> None:
    final = well_formed(told(Reasoning("Hm"), Reasoning("", "sig=="), Finish("stop")))
    assert "encrypted_content" not in final["output"][0]


def test_a_signature_of_nothing_is_nothing() -> None:
    assert texts_of(well_formed(told(Reasoning("", "sig=="), Text("a"), Finish("stop")))) == [("message", "a")]


def test_parallel_calls_with_interleaved_pieces_are_kept_apart() -> None:
    final = well_formed(
        told(
            ToolCallStart(0, "call_a", "weather"),
            ToolCallArguments(0, '{"city"'),
            ToolCallStart(1, "call_b", "time"),
            ToolCallArguments(1, "{"),
            ToolCallArguments(0, ':"Rome"}'),
            ToolCallArguments(1, "}"),
            Finish("tool_calls"),
        )
    )
    assert [(item["call_id"], item["name"], item["arguments"]) for item in final["output"]] == [
        ("call_a", "weather", '{"city":"Rome"}'),
        ("call_b", "time", "{}"),
    ]


def test_calls_without_ids_or_with_the_same_id_get_their_own() -> None:
    calls = [ToolCallStart(number, identity, "f") for number, identity in enumerate(["", "", "same", "same"])]
    final = well_formed(told(*calls, Finish("tool_calls")))
    identities = [item["call_id"] for item in final["output"]]
    assert len(set(identities)) == 4
    assert identities[2] == "same"


def test_a_refusal_is_a_part_of_its_own() -> None:
    final = well_formed(told(Text("Well, "), Refusal("I will"), Refusal(" not."), Finish("stop")))
    (message,) = final["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]
    assert message["content"][1] == {"type": "refusal", "refusal": "I will not."}


@pytest.mark.parametrize(
    "given",
    [
        {"type": "url_citation", "url": "http://x", "title": "X", "start_index": 0, "end_index": 1},
        {
            "type": "url_citation",
            "url_citation": {"url": "http://x", "title": "X", "start_index": 0, "end_index": 1},
        },
    ],
    ids=["as here", "as in chat completions"],
)
def test_a_citation_belongs_to_the_text_that_is_being_said(given: dict[str, Any]) -> None:
    events = told(Text("a"), Annotation(given), Annotation({"type": "char_location"}), Text("b"), Finish("stop"))
    (part,) = well_formed(events)["output"][0]["content"]
    assert part["annotations"] == [
        {"type": "url_citation", "url": "http://x", "title": "X", "start_index": 0, "end_index": 1}
    ]
    assert part["text"] == "ab"
    added = next(event for event in events if event["type"] == "response.content_part.added")
    assert added["part"]["annotations"] == []


@pytest.mark.parametrize(("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_short_is_incomplete_and_says_why(reason: Any, said: str) -> None:
    final = well_formed(told(Text("Hel"), Finish(reason)))
    assert (final["status"], final["incomplete_details"]) == ("incomplete", {"reason": said})
    assert final["output"][0]["status"] == "incomplete"


def test_an_empty_answer_is_an_empty_message() -> None:
    final = well_formed(told(Finish("stop")))
    assert texts_of(final) == [("message", "")]
    assert final["status"] == "completed"


def test_text_after_calls_is_an_item_of_its_own_and_calls_go_on() -> None:
    events = told(
        Text("a"), ToolCallStart(0, "x", "f"), Text("b"), ToolCallArguments(0, "{}"), Reasoning("c"), Finish("stop")
    )
    assert texts_of(well_formed(events)) == [
        ("message", "a"),
        ("function_call", "{}"),
        ("message", "b"),
        ("reasoning", "c"),
    ]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (['{"input":"*** Beg', 'in\\n🎈"}'], "*** Begin\n🎈"),
        (["*** Begin"], "*** Begin"),
        (['{"patch":"x"}'], '{"patch":"x"}'),
        (["[1]"], "[1]"),
        ([], ""),
    ],
    ids=["as it should", "bare text", "another field", "no object", "nothing"],
)
def test_a_custom_tools_call_is_told_as_one_with_its_text(pieces: list[str], text: str) -> None:
    arguments = [ToolCallArguments(0, piece) for piece in pieces]
    start = ToolCallStart(0, "call_a", "apply_patch")
    events = told(start, *arguments, Finish("tool_calls"), asked={"tools": [CUSTOM]})
    (item,) = well_formed(events)["output"]
    assert item == {
        "id": f"ctc_{ID}00",
        "type": "custom_tool_call",
        "status": "completed",
        "call_id": "call_a",
        "name": "apply_patch",
        "input": text,
    }


def test_a_call_of_a_namespaces_function_is_told_in_its_namespace() -> None:
    call = ToolCallStart(0, "call_a", "mcp__github__search")
    final = well_formed(told(call, ToolCallArguments(0, "{}"), Finish("tool_calls"), asked={"tools": [GITHUB]}))
    (item,) = final["output"]
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "mcp__github", "search")


def test_what_was_asked_is_told_back() -> None:
    asked = {
        "instructions": "Be brief.",
        "metadata": {"a": "b"},
        "temperature": 0.5,
        "top_p": 0.9,
        "max_output_tokens": 9,
        "parallel_tool_calls": False,
        "tools": [CUSTOM, GITHUB],
        "tool_choice": {"type": "custom", "name": "apply_patch"},
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "low"},
        "truncation": "auto",
        "user": "me",
    }
    final = well_formed(told(Text("a"), Finish("stop"), asked=asked))
    assert {name: final[name] for name in asked} == asked | {
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": None},
    }
    assert final["store"] is False


def test_the_model_is_the_requests_where_the_upstream_names_none() -> None:
    making = encoder()
    _, (_, payload), *_ = [piece for event in (Start(), Text("a")) for piece in making.add(event)]
    assert payload["response"]["model"] == "asked"  # type: ignore[index]  # decoded JSON


def test_a_heartbeat_is_an_event_with_the_last_number() -> None:
    making = encoder()
    for event in (Start("m"), Text("a")):
        last = making.add(event)[-1]
    beat = making.format("m", "req_1").heartbeat(making.progress(), lively=False)
    assert beat.startswith(b"event: keepalive\ndata: ")
    assert orjson.loads(beat.split(b"data: ")[1]) == {
        "type": "keepalive",
        "sequence_number": last[1]["sequence_number"],
    }


def test_an_error_is_flat_and_has_the_next_number() -> None:
    making = encoder()
    last = [piece for event in (Start("m"), Text("a")) for piece in making.add(event)][-1]
    data = making.format("m", "req_1").error_event(UpstreamCut("it was cut"), making.progress()).split(b"data: ")[1]
    assert orjson.loads(data) == {
        "type": "error",
        "code": "upstream_cut",
        "message": "it was cut",
        "param": None,
        "sequence_number": int(str(last[1]["sequence_number"])) + 1,
    }
    said = UpstreamSaid("it broke", status=500, body={"error": {"message": "it broke", "code": 500}})
    assert b'"message":"it broke"' in making.format("m", "req_1").error_event(said, making.progress())


texts = st.one_of(st.sampled_from(FORGERIES), st.text(min_size=1, max_size=6))
annotations = st.sampled_from([{"type": "char_location"}, {"type": "file_path", "file_id": "f", "index": 0}, {}])
pieces_of_text = st.one_of(
    st.builds(Text, texts),
    st.builds(Reasoning, texts),
    st.builds(Refusal, texts),
    st.builds(Annotation, annotations),
)


@st.composite
def answers(draw: st.DrawFn) -> list[Event]:
    """Anything that an upstream may say, in any order."""
    names = st.sampled_from(["f", "apply_patch", "mcp__github__search"])
    events: list[Event] = []
    calls = 0
    for kind in draw(st.lists(st.sampled_from(["piece", "piece", "call", "arguments", "arguments"]), max_size=20)):
        if kind == "call":
            events.append(ToolCallStart(calls, draw(st.sampled_from(["", "x", "y"])), draw(names)))
            calls += 1
        elif kind == "arguments" and calls:
            events.append(ToolCallArguments(draw(st.integers(0, calls - 1)), draw(texts)))
        else:
            events.append(draw(pieces_of_text))
    return [*events, Finish(draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"])))]


@unhurried
@given(answers())
def test_whatever_is_said_the_stream_is_well_formed_and_says_it(events: list[Event]) -> None:
    stream = told(*events, asked={"tools": [CUSTOM, GITHUB]})
    final = well_formed(stream)
    for kind, part, field in ((Text, "output_text", "text"), (Refusal, "refusal", "refusal")):
        said = "".join(event.text for event in events if isinstance(event, kind))  # type: ignore[attr-defined]
        parts = [one for item in final["output"] if item["type"] == "message" for one in item["content"]]
        assert "".join(one[field] for one in parts if one["type"] == part) == said
    thought = "".join(event.text for event in events if isinstance(event, Reasoning))
    assert "".join(text for kind, text in texts_of(final) if kind == "reasoning") == thought
    calls = [item for item in final["output"] if "call_id" in item]
    for number, call in enumerate(calls):
        written = "".join(
            event.json for event in events if isinstance(event, ToolCallArguments) and event.call == number
        )
        assert call.get("arguments", call.get("input")) == written
    collector = ResponsesCollector()
    for event in stream:
        collector.add(event)
    assert collector.answer() == final
