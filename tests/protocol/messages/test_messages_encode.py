"""Canonical events as a Messages stream: to the byte, block after block, and ended as the surface's clients expect."""

import orjson
import pytest
from support.messages import CITED, call, encoder, message, written

from edge.bounds import TOOL_ARGUMENTS_CHARS
from edge.errors import UpstreamCut
from edge.protocol.batch import Usage
from edge.protocol.dialect import BadStream
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

STOP = Finish("stop")
PLAIN = """\
event: message_start
data: {"type":"message_start","message":{"id":"msg_0123456789abcdef0123456789abcdef","type":"message",\
"role":"assistant","model":"q","content":[],"stop_reason":null,"stop_sequence":null,\
"usage":{"input_tokens":0,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"b\\u2028\\n"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},\
"usage":{"input_tokens":2,"output_tokens":3,"cache_read_input_tokens":5,"output_tokens_details":{"thinking_tokens":1}}}

event: message_stop
data: {"type":"message_stop"}

"""


def test_a_plain_answer_to_the_byte() -> None:
    writer = encoder()
    events: list[Event] = [Start("q"), Text("a"), Text("b\u2028\n"), STOP]
    out = b"".join(writer.frame(piece) for event in events for piece in writer.add(event))
    out += b"".join(map(writer.frame, writer.end(Usage(7, 3, 5, 1)))) + writer.format.terminator
    assert out.decode() == PLAIN


def test_an_answer_without_any_content_is_one() -> None:
    answer = message([Start("m"), STOP])
    assert (answer["content"], answer["stop_reason"], answer["model"]) == ([], "end_turn", "m")
    assert answer["usage"] == {"input_tokens": 0, "output_tokens": 0}


def test_thought_is_signed_before_its_block_ends() -> None:
    told = written([Start(), Reasoning("h"), Reasoning("m"), Reasoning("", "c2ln"), Text("a"), STOP])
    kinds = [payload.get("delta", {}).get("type") for payload in told]
    assert kinds[1:6] == [None, "thinking_delta", "thinking_delta", "signature_delta", None]
    answer = message([Start(), Reasoning("", "c2ln"), Reasoning("x", "ZHVv"), Text("a"), Reasoning("z"), STOP])
    assert answer["content"] == [
        {"type": "thinking", "thinking": "", "signature": "c2ln"},
        {"type": "thinking", "thinking": "x", "signature": "ZHVv"},
        {"type": "text", "text": "a"},
        {"type": "thinking", "thinking": "z", "signature": ""},
    ]


def test_calls_one_after_the_other_are_streamed() -> None:
    """The second is not kept back: the first is whole when its JSON is."""
    writer = encoder()
    first = [*call(0, '{"a":"}', '\\"{[', '"}'), ToolCallStart(1, "c1", "f")]
    kinds = [[name for name, _ in writer.add(event)] for event in first]
    start, delta, stop = "content_block_start", "content_block_delta", "content_block_stop"
    assert kinds == [[start], [delta], [delta], [delta], [stop, start]]


@pytest.mark.parametrize(
    "pieces", [('{"a":"\\\\', '"}'), ('{"a":"\\', '"}', 'b"}'), ('{"a":{', "}", "}"), ('{"a":["', "]}", '"]}')]
)
def test_a_call_is_whole_when_its_last_bracket_is_closed(pieces: tuple[str, ...]) -> None:
    """Not at one in a string, nor at a quote that is escaped, even if the network cut it from its backslash."""
    *first, last = pieces
    events = [*call(0, *first), ToolCallStart(1, "c1", "g"), ToolCallArguments(0, last), ToolCallArguments(1, "{}")]
    answer = message([Start(), *events, STOP])
    assert [held["input"] for held in answer["content"]] == [orjson.loads("".join(pieces)), {}]
    writer = encoder()
    told = [[name for name, _ in writer.add(event)] for event in [*call(0, *pieces), ToolCallStart(1, "c1", "g")]]
    assert told[-1] == ["content_block_stop", "content_block_start"]


def test_calls_whose_pieces_come_mixed_are_told_one_after_the_other() -> None:
    events: list[Event] = [
        Start(),
        ToolCallStart(0, "c0", "f"),
        ToolCallStart(1, "c1", "g"),
        ToolCallArguments(0, '{"a":'),
        ToolCallArguments(1, '{"b"'),
        Text("beside"),
        ToolCallArguments(1, ":2}"),
        ToolCallArguments(0, "[1]}"),
        ToolCallArguments(0, "\n"),
        Finish("tool_calls"),
    ]
    assert message(events)["content"] == [
        {"type": "tool_use", "id": "c0", "name": "f", "input": {"a": [1]}},
        {"type": "tool_use", "id": "c1", "name": "g", "input": {"b": 2}},
        {"type": "text", "text": "beside"},
    ]


def test_what_waits_goes_out_as_soon_as_it_can() -> None:
    writer = encoder()
    for event in [*call(0, '{"a":'), *call(1, "{}"), Text("x")]:
        writer.add(event)
    assert [name for name, _ in writer.add(ToolCallArguments(0, "1}"))] == [
        "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta",
    ]  # fmt: skip


def test_calls_without_arguments_without_ids_and_cut_ones() -> None:
    events = [ToolCallStart(0, "", "f"), ToolCallStart(1, "", "g"), *call(2, '{"a": "b')]
    answer = message([Start(), *events, Finish("length")])
    ids = [held["id"] for held in answer["content"]]
    assert len({*ids}) == 3
    assert all(held.replace("_", "").isalnum() for held in ids)
    assert [held["input"] for held in answer["content"]] == [{}, {}, {"INVALID_JSON": '{"a": "b'}]
    assert answer["stop_reason"] == "max_tokens"


def test_more_than_can_wait_is_a_bad_stream() -> None:
    writer = encoder()
    for event in [*call(0, "{"), ToolCallStart(1, "c1", "g")]:
        writer.add(event)
    half = TOOL_ARGUMENTS_CHARS // 2
    writer.add(ToolCallArguments(1, " " * half))
    with pytest.raises(BadStream, match="wait"):
        writer.add(ToolCallArguments(1, " " * half + "}"))


@pytest.mark.parametrize(
    ("events", "reason", "sequence"),
    [
        ([STOP], "end_turn", None),
        ([Finish("stop", "END")], "stop_sequence", "END"),
        ([Finish("length", "END")], "max_tokens", None),
        ([Finish("tool_calls")], "tool_use", None),
        ([Finish("content_filter")], "refusal", None),
        ([*call(0, "{}"), STOP], "tool_use", None),  # as Ollama says it
        ([*call(0, "{}"), Finish("length")], "max_tokens", None),
        ([Refusal("no"), STOP], "refusal", None),
        ([], "end_turn", None),
    ],
)
def test_stop_reasons(events: list[Event], reason: str, sequence: str | None) -> None:
    answer = message([Start(), *events])
    assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)


def test_a_refusal_is_text_and_a_citation_of_another_surface_is_not_shown() -> None:
    url = {"type": "url_citation", "url_citation": {"url": "https://x"}}
    odd = {"type": ["char_location"]}
    shown = [Start(), Annotation(url), Annotation(odd), Text("a"), Annotation(CITED), Refusal("no"), STOP]
    answer = message(shown)
    assert answer["content"] == [{"type": "text", "text": "ano", "citations": [CITED]}]


def test_a_second_choice_is_no_part_of_a_message() -> None:
    others = [Text("x", 1), Reasoning("x", "", 1), ToolCallStart(0, "c", "f", 1), ToolCallArguments(0, "{}", 1)]
    others += [Refusal("x", 1), Annotation(CITED, 1), Finish("length", None, 1)]
    assert message([Start(), Text("a"), *others, STOP])["content"] == [{"type": "text", "text": "a"}]


def test_what_edge_says_on_this_surface() -> None:
    writer = encoder()
    assert (
        writer.format("m", "req_1").heartbeat(writer.progress(), lively=False)
        == b'event: ping\ndata: {"type":"ping"}\n\n'
    )
    told = writer.format("m", "req_1").error_event(UpstreamCut("cut\noff"), writer.progress())
    assert told.startswith(b'event: error\ndata: {"type":"error","error":{"type":"api_error"')


@pytest.mark.parametrize("model", ["m", "0c3f1f3e", 'a"b\\'])
def test_a_plain_piece_is_the_event_it_would_get(model: str) -> None:
    writer = encoder()
    assert writer.plain("text", b"y") is None
    for event in [Start(model), *call(0, "{}"), Text("x")]:
        writer.add(event)
    for said, event in (("text", Text("y")), ("thought", Reasoning("y")), ("text", Text("z"))):
        first = writer.plain(said, event.text.encode())
        (*begun, piece) = writer.add(event)
        assert (first is None) == bool(begun) or first == writer.frame(piece)
        assert writer.plain(said, event.text.encode()) == writer.frame(piece)
