"""What Messages servers leave out or add, and what the client gets for it."""

from typing import Any

import pytest

from edge.protocol.messages.collect import MessagesCollector


def answer(*events: Any) -> Any:
    collector = MessagesCollector()
    for event in events:
        collector.add(event)
    return collector.answer()


def block(kind: str, *deltas: Any, **fields: Any) -> Any:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": kind, **fields}}
    return answer(start, *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas))["content"]


def test_a_tool_without_arguments_has_an_empty_input() -> None:
    """Anthropic sends one empty piece, llama.cpp not even an ``input`` to start from."""
    assert block("tool_use", {"type": "input_json_delta", "partial_json": ""}, name="f") == [
        {"type": "tool_use", "name": "f", "input": {}}
    ]


def test_an_input_given_whole_is_kept() -> None:
    assert block("tool_use", input={"a": [1]}) == [{"type": "tool_use", "input": {"a": [1]}}]


@pytest.mark.parametrize("partial", ['{"a": 1', "{", "nonsense"])
def test_an_input_that_was_cut_is_kept_as_text(partial: str) -> None:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in partial]
    assert block("tool_use", *deltas, input={}) == [{"type": "tool_use", "input": {"INVALID_JSON": partial}}]


def test_blank_input_is_empty() -> None:
    assert block("tool_use", {"type": "input_json_delta", "partial_json": " "})[0]["input"] == {}


def test_an_empty_signature_is_kept() -> None:
    """llama.cpp has no signatures and says so with an empty one, as its non-stream answer does."""
    assert block("thinking", {"type": "signature_delta", "signature": ""}, thinking="a") == [
        {"type": "thinking", "thinking": "a", "signature": ""}
    ]


def test_a_signature_is_whole_in_each_delta() -> None:
    deltas = [{"type": "signature_delta", "signature": signature} for signature in ("Eq", "EqQB")]
    assert block("thinking", *deltas, thinking="a", signature="")[0]["signature"] == "EqQB"


def test_an_unknown_delta_lengthens_the_field_it_names() -> None:
    deltas = [{"type": "compaction_delta", "content": piece} for piece in ("Sum", "mary")]
    assert block("compaction", *deltas, content=None) == [{"type": "compaction", "content": "Summary"}]


def test_a_block_with_its_number_skipped_is_in_order() -> None:
    events = [
        {"type": "content_block_start", "index": i, "content_block": {"type": "text", "text": t}}
        for i, t in ((4, "b"), (1, "a"))
    ]
    assert [found["text"] for found in answer(*events)["content"]] == ["a", "b"]


def test_usage_is_cumulative_field_by_field() -> None:
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 9, "output_tokens": 1}}}
    later = [{"type": "message_delta", "usage": {"output_tokens": n, "input_tokens": None}} for n in (4, 7)]
    assert answer(start, *later)["usage"] == {"input_tokens": 9, "output_tokens": 7}


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"type": "ping"},
        {"type": ["message_start"]},
        {"type": "message_start", "message": "x"},
        {"type": "content_block_start", "index": "0", "content_block": {}},
        {"type": "content_block_start", "index": 0, "content_block": None},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "text_delta", "text": "lost"}},
        {"type": "message_delta", "delta": None, "usage": 3},
        {"type": "message_stop"},
    ],
)
def test_what_is_no_part_of_a_message_is_ignored(event: Any) -> None:
    assert answer(event) == {"type": "message", "role": "assistant", "content": []}
