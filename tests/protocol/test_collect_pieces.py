"""However a server cuts its text into deltas, and whatever else it sends, the answer is the same."""

import json
from collections.abc import Iterable
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.protocol.chat.collect import ChatCollector, CompletionsCollector
from edge.protocol.dialect import Collector
from edge.protocol.messages.collect import MessagesCollector
from edge.protocol.responses.collect import ResponsesCollector
from edge.protocol.tool_calls import no_arguments

COLLECTORS = (ChatCollector, CompletionsCollector, MessagesCollector, ResponsesCollector)
unhurried = settings(deadline=None)  # a busy machine is no failure
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")

# Few letters, so that equal pieces in a row are common: they must not be taken for a repeated label.
pieces = st.lists(st.text(alphabet='ab"\\é🎈 ', max_size=3), max_size=8)


def answer(collector: Collector, events: Iterable[Any]) -> Any:
    for event in events:
        collector.add(event)
    return collector.answer()


def delta(index: int, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": fields}]}


@unhurried
@given(st.sampled_from(TEXTS), pieces)
def test_chat_text(field: str, cut: list[str]) -> None:
    whole = answer(ChatCollector(), [delta(0, **{field: "".join(cut)})])
    assert whole == answer(ChatCollector(), [delta(0, **{field: piece}) for piece in cut or [""]])
    assert whole["choices"][0]["message"][field] in ("".join(cut), None)


@unhurried
@given(pieces, pieces, st.randoms(use_true_random=False))
def test_chat_tool_calls_interleaved(first: list[str], second: list[str], order: Any) -> None:
    queues = [list(first), list(second)]
    heads = [{"index": i, "id": f"call_{i}", "type": "function", "function": {"name": "f"}} for i in (1, 0)]
    events = [delta(0, tool_calls=[head]) for head in heads]
    while any(queues):
        i = order.choice([i for i, queue in enumerate(queues) if queue])
        events.append(delta(0, tool_calls=[{"index": i, "function": {"arguments": queues[i].pop(0)}}]))
    calls = answer(ChatCollector(), events)["choices"][0]["message"]["tool_calls"]
    told = ["{}" if no_arguments("".join(pieces)) else "".join(pieces) for pieces in (first, second)]
    assert list(zip(("call_0", "call_1"), told, strict=True)) == [
        (call["id"], call["function"]["arguments"]) for call in calls
    ]


@unhurried
@given(pieces, pieces)
def test_completions_text(first: list[str], second: list[str]) -> None:
    events = [{"choices": [{"index": 1, "text": piece}]} for piece in second or [""]]
    events += [{"choices": [{"index": 0, "text": piece}]} for piece in first or [""]]
    choices = answer(CompletionsCollector(), events)["choices"]
    assert ["".join(first), "".join(second)] == [choice["text"] for choice in choices]


@unhurried
@given(st.sampled_from(["text", "thinking"]), pieces)
def test_messages_text(field: str, cut: list[str]) -> None:
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": field, field: ""}}
    deltas = [{"type": "content_block_delta", "index": 0, "delta": {"type": f"{field}_delta", field: p}} for p in cut]
    assert answer(MessagesCollector(), [start, *deltas])["content"] == [{"type": field, field: "".join(cut)}]


@unhurried
@given(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3), st.integers(1, 5))
def test_messages_input(tool_input: dict[str, str], step: int) -> None:
    text = json.dumps(tool_input)
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "t", "name": "f"}}
    cut = [text[i : i + step] for i in range(0, len(text), step)]
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
        for piece in cut
    ]
    assert answer(MessagesCollector(), [start, *deltas])["content"][0]["input"] == tool_input


NAMES = [
    "choices",
    "index",
    "delta",
    "message",
    "content",
    "tool_calls",
    "function",
    "arguments",
    "logprobs",
    "usage",
    "text",
    "type",
    "response",
    "timings",
    "content_block",
    "partial_json",
    "citation",
    "citations",
    "input",
]
TYPES = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "response.completed",
    "tool_use",
]
garbage = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.floats(allow_nan=False) | st.sampled_from([*TYPES, "", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=20,
)


@unhurried
@given(st.lists(garbage, max_size=6))
def test_any_json_is_survived(events: list[Any]) -> None:
    """An upstream can send anything: no event is a crash, and the answer can be written as JSON."""
    for make in COLLECTORS:
        assert isinstance(orjson.loads(orjson.dumps(answer(make(), events))), dict)


def test_endless_nesting_is_survived() -> None:
    """JSON as deep as the parser takes does not exhaust the stack."""
    deep = orjson.loads(b'{"a":' * 500 + b"[" * 500 + b"]" * 500 + b"}" * 500)
    events = [
        {"type": "message_start", "message": deep},
        {"type": "content_block_start", "index": 0, "content_block": deep, "choices": [{"delta": deep}]},
        {"type": "content_block_delta", "index": 0, "delta": deep, "choices": [{"delta": deep, "logprobs": [deep]}]},
    ]
    for make in COLLECTORS:
        assert isinstance(answer(make(), events), dict)


def test_asking_twice_gives_the_same_answer() -> None:
    collector = ChatCollector()
    collector.add(delta(0, content="a"))
    assert collector.answer() == collector.answer()
    collector.add(delta(0, content="b"))
    assert collector.answer()["choices"][0]["message"]["content"] == "ab"  # type: ignore[index]
