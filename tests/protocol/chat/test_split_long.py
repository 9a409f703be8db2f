"""The repair ``split-long``: no line of text is too long for a client that reads by lines, and none of it is lost."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from fakes import answers as say
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, codec_for, cut, read, slow, unhurried

from edge.protocol.chat.collect import ChatCollector
from edge.protocol.chat.repairs import BOTH_REASONING, LONG_LINE, MENDED, SPLIT_LONG
from edge.protocol.sse import events
from edge.protocol.surface import Surface

CHAT = Surface.CHAT
ROLE, TOKEN, FINISH, DONE = say.chat_role(), say.chat_token("a"), say.chat_finish(), say.DONE
ON = frozenset({SPLIT_LONG})

TEXTS = {
    "letters": "lorem ipsum " * 9000,
    "CJK": "汉字かな" * 9000,
    "emoji": "a👩‍👩‍👧🎈é" * 7000,
    "escapes": '"\\\n\r\t' * 20_000,
    "control": "\x00\x1f\x7f\u2028" * 9000,
    "forgeries": "".join(FORGERIES) * 300,
}
every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
DELTAS: dict[str, Callable[[str], Any]] = {
    "content": lambda text: {"content": text},
    "content with the role": lambda text: {"role": "assistant", "content": text},
    "refusal": lambda text: {"refusal": text},
    "reasoning": lambda text: {"reasoning": text},
    "reasoning under both names": lambda text: {"content": None, "reasoning": text, "reasoning_content": text},
    "reasoning, then content": lambda text: {"content": text + "!", "reasoning_content": text},
    "a whole call": lambda text: {
        "tool_calls": [{"index": 1, "id": "c", "type": "function", "function": {"name": "f", "arguments": text}}]
    },
    "arguments": lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]},
    "two calls": lambda text: {
        "tool_calls": [
            {"index": i, "id": f"c{i}", "function": {"name": "f", "arguments": f"{i}{text}"}} for i in (0, 1)
        ]
    },
}
every_delta = pytest.mark.parametrize("delta", DELTAS.values(), ids=DELTAS)


def folded(stream: bytes) -> Any:
    """The answer that a client makes of the stream."""
    collector = ChatCollector()
    for event in events(stream):
        if event.data != b"[DONE]":
            collector.add(orjson.loads(event.data))
    return collector.answer()


def longest(stream: bytes) -> int:
    return max(map(len, stream.split(b"\n")))


@every_text
@every_delta
def test_a_long_text_goes_out_in_lines_that_clients_can_read(text: str, delta: Callable[[str], Any]) -> None:
    long = say.chat_delta(delta(text), system_fingerprint="fp")
    stream = [ROLE, TOKEN, TOKEN, long, TOKEN, FINISH, DONE]
    for repairs in (ON, MENDED):
        seen = read(codec_for(CHAT, repairs), stream)
        assert longest(long) > LONG_LINE >= longest(seen.data)
        assert (seen.tokens, seen.ending) == (4, "done")
        assert seen.events == seen.data.count(b"\n\n") > len(stream)
        assert seen.data.startswith(ROLE + TOKEN + TOKEN)
        assert seen.data.endswith(TOKEN + FINISH + DONE)
        if repairs is ON:
            assert folded(seen.data) == folded(b"".join(stream))
    assert read(codec_for(CHAT), stream).data == b"".join(stream)


@every_text
def test_the_pieces_have_the_shape_of_what_was_cut(text: str) -> None:
    seen = read(codec_for(CHAT, ON), [ROLE + say.chat_token(text, system_fingerprint="fp")])
    _, *pieces = [orjson.loads(event.data) for event in events(seen.data)]
    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    for piece in pieces:
        (choice,) = piece.pop("choices")
        assert piece == {**head, "system_fingerprint": "fp"}
        assert {**choice, "delta": list(choice["delta"])} == {"index": 0, "delta": ["content"], "finish_reason": None}


@pytest.mark.parametrize("step", [1, 100, 60_000])
def test_it_does_not_matter_how_the_network_cut_it(step: int) -> None:
    stream = (
        ROLE + TOKEN + say.chat_token("é" * LONG_LINE) + TOKEN * 9 + say.chat_token("b" * LONG_LINE) + FINISH + DONE
    )
    expected = read(codec_for(CHAT, ON), [stream])
    assert longest(expected.data) <= LONG_LINE
    assert read(codec_for(CHAT, ON), cut(stream, range(0, len(stream), step))) == expected


def test_one_cut_anywhere_around_its_ends_does_not_matter() -> None:
    before, long = ROLE + TOKEN, say.chat_token("é" * LONG_LINE)
    stream = before + long + TOKEN + FINISH + DONE
    expected = read(codec_for(CHAT, ON), [stream])
    for edge in (len(before), len(before + long), LONG_LINE):
        for at in range(edge - 20, edge + 20):
            assert read(codec_for(CHAT, ON), [stream[:at], stream[at:]]) == expected


@unhurried
@given(
    st.lists(st.sampled_from([TOKEN, say.chat_token("x" * 50_000), say.chat_token('"' * 30_000), ROLE]), max_size=9),
    st.lists(st.integers(0, 500_000), max_size=5),
    st.booleans(),
)
def test_long_and_short_ones_in_any_order(stream: list[bytes], positions: list[int], repeated: bool) -> None:
    stream = [*stream, TOKEN * 50, FINISH, DONE] if repeated else [*stream, FINISH, DONE]
    expected = read(slow(codec_for(CHAT, ON)), stream)
    assert read(codec_for(CHAT, ON), cut(b"".join(stream), positions)) == expected
    assert folded(expected.data) == folded(b"".join(stream))


@pytest.mark.parametrize(("size", "parts"), [(LONG_LINE, 1), (LONG_LINE + 1, 4)])
def test_it_begins_where_the_line_is_too_long(size: int, parts: int) -> None:
    frame = len(say.chat_token("")) - len(b"\n\n")
    event = say.chat_token("x" * (size - frame))
    for before in (ROLE, ROLE + TOKEN):
        seen = read(codec_for(CHAT, ON), [before, event])
        assert seen.events - before.count(b"\n\n") == parts
        assert (seen.data == before + event) is (parts == 1)


def test_a_read_that_is_long_but_has_no_long_line_is_still_taken_as_it_is() -> None:
    codec = codec_for(CHAT, ON)
    codec.feed(ROLE + TOKEN)
    many = TOKEN * (2 * LONG_LINE // len(TOKEN))
    assert codec.plain(many) == 0
    batch = codec.feed(many)
    assert batch.data is many
    assert batch.events == batch.tokens == many.count(b"\n\n")


def test_what_comes_once_comes_once() -> None:
    """How the choice ends and what was used come last; the rest comes first."""
    usage = say.usage_body(7, 9)
    choice = {
        "index": 0,
        "delta": {"content": "é" * LONG_LINE},
        "logprobs": {"content": [1]},
        "finish_reason": "length",
    }
    stream = say.chat_chunk([{**choice, "stop_reason": 7}], usage=usage, timings={"n": 1})
    codec = codec_for(CHAT, ON)
    relayed = read(codec, [ROLE, stream, DONE]).data.removeprefix(ROLE).removesuffix(DONE)
    first, *middle, last = [orjson.loads(event.data) for event in events(relayed)]
    assert codec.finished(clean_eof=False)
    assert (first["timings"], first["choices"][0]["logprobs"]) == ({"n": 1}, {"content": [1]})
    assert (last["usage"], last["choices"][0]["finish_reason"]) == (usage, "length")
    assert last["choices"][0]["stop_reason"] == 7
    for piece in (first, *middle):
        assert piece["choices"][0]["finish_reason"] is None
        assert "usage" not in piece
    for piece in (*middle, last):
        assert not {"logprobs", "timings"} & {*piece, *piece["choices"][0]}


def test_several_choices_in_one_chunk_are_told_one_after_the_other() -> None:
    both = say.chat_chunk(
        [{"index": i, "delta": {"content": str(i) * LONG_LINE}, "finish_reason": "stop"} for i in (0, 1)]
    )
    seen = read(codec_for(CHAT, ON, n=2), [both, DONE])
    assert seen.ending == "done"
    assert folded(seen.data) == folded(both)


def test_reasoning_that_is_told_under_both_names_is_short_enough_too() -> None:
    thought = say.chat_delta({"reasoning": '"' * 20_000})
    assert longest(thought) < LONG_LINE
    seen = read(codec_for(CHAT, frozenset({BOTH_REASONING, SPLIT_LONG})), [thought])
    assert longest(seen.data) <= LONG_LINE
    message = folded(seen.data)["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"] == '"' * 20_000
    for event in events(seen.data):
        delta = orjson.loads(event.data)["choices"][0]["delta"]
        assert delta["reasoning"] == delta["reasoning_content"]


def test_what_is_long_only_by_its_spelling_is_one_event_still() -> None:
    text = "é" * 10_000
    spelt = b"data: " + json.dumps(orjson.loads(say.chat_token(text)[6:])).encode() + b"\n\n"
    seen = read(codec_for(CHAT, ON), [spelt])
    assert (longest(spelt) > LONG_LINE, seen.data) == (True, say.chat_token(text))


def test_many_lines_of_one_event_are_none_too_long() -> None:
    event = TOKEN[:-2].replace(b',"', b'\ndata: ,"').replace(b'"a"', b'\ndata: "a"') + b"\ndata: " * 9000 + b"\n\n"
    assert len(event) > LONG_LINE
    assert read(codec_for(CHAT, ON), [event]).data == event


@pytest.mark.parametrize(
    "whole",
    [
        say.chat_delta({"images": [{"type": "image_url", "image_url": {"url": "data:," + "x" * LONG_LINE}}]}),
        b"data: " + json.dumps({"choices": [{"delta": {"images": ["x" * LONG_LINE]}}]}).encode() + b"\n\n",
        say.chat_delta({"audio": {"data": "x" * LONG_LINE}}),
        say.sse_error("x" * LONG_LINE),
        say.sse({"type": "something.new", "text": "x" * LONG_LINE}, "something.new"),
        say.chat_delta({"tool_calls": ["x" * LONG_LINE, {"function": {"arguments": 7}}]}),
        say.chat_chunk(["x" * LONG_LINE]),  # type: ignore[list-item]
    ],
    ids=["image", "image, spaced", "audio", "error", "other event", "odd call", "odd choice"],
)
def test_what_is_no_text_stays_whole(whole: bytes) -> None:
    assert read(codec_for(CHAT, ON), [ROLE, TOKEN, whole]).data == ROLE + TOKEN + whole


def test_a_whole_answer_is_the_same_either_way() -> None:
    stream = [ROLE, say.chat_token("é" * LONG_LINE), FINISH, DONE]
    answers = []
    for repairs in (ON, frozenset[str]()):
        codec = codec_for(CHAT, repairs)
        codec.collect(ChatCollector())
        read(codec, stream)
        answers.append(codec.answer())
    assert answers[0] == answers[1] == folded(b"".join(stream))
