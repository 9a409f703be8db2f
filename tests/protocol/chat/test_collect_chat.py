"""What servers leave out, repeat or add in chat and completion chunks, and what the client gets for it."""

from typing import Any

import pytest

from edge.protocol.chat.collect import ChatCollector, CompletionsCollector


def answer(*events: Any) -> Any:
    collector = ChatCollector()
    for event in events:
        collector.add(event)
    return collector.answer()


def message(*deltas: Any, **head: Any) -> Any:
    events = [{**head, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    return answer(*events)["choices"][0]["message"]


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("content", [None, ""])
def test_no_content_beside_a_tool_call_is_null(content: str | None) -> None:
    assert message({"content": content}, {"tool_calls": [CALL]})["content"] is None


def test_no_content_beside_a_tool_call_of_llama_cpp_is_empty() -> None:
    assert message({"content": None}, {"tool_calls": [CALL]}, timings={"prompt_n": 1})["content"] == ""


def test_no_content_and_nothing_else_is_empty() -> None:
    assert message({"role": "assistant", "content": None}, {}) == {"role": "assistant", "content": ""}


def test_content_beside_a_tool_call_is_kept() -> None:
    assert message({"content": "Let me look."}, {"tool_calls": [CALL]})["content"] == "Let me look."


def test_a_whole_tool_call_loses_only_its_index() -> None:
    assert message({"tool_calls": [CALL]})["tool_calls"] == [{k: v for k, v in CALL.items() if k != "index"}]


def test_whole_tool_calls_without_an_index_stay_apart() -> None:
    """Some servers send whole calls, each in a chunk of its own, and number none."""
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": "{}"}} for i in "ab"]
    assert message(*({"tool_calls": [call]} for call in calls))["tool_calls"] == calls


def test_an_id_and_a_name_on_every_chunk_are_not_joined() -> None:
    deltas = [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": a}} for a in "{}"]
    calls = message(*({"tool_calls": [delta]} for delta in deltas))["tool_calls"]
    assert calls == [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


def test_an_empty_id_or_name_later_does_not_wipe_the_first() -> None:
    later = {"index": 0, "id": "", "function": {"name": "", "arguments": "!"}}
    call = message({"tool_calls": [CALL]}, {"tool_calls": [later]})["tool_calls"][0]
    assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("c", "f", "{}!")


def test_unknown_fields_are_kept() -> None:
    """Text is joined, a label repeated on every chunk is not, lists grow, objects merge, else the last wins."""
    first = {"notes": "a", "channel": "final", "ids": [1], "meta": {"x": 1}, "score": 1}
    second = {"notes": "b", "channel": "final", "ids": [2], "meta": {"y": 2}, "score": 2}
    expected = {"notes": "ab", "channel": "final", "ids": [1, 2], "meta": {"x": 1, "y": 2}, "score": 2}
    assert message({"content": "hi", **first}, second) == {"role": "assistant", "content": "hi", **expected}


def test_unknown_head_fields_are_kept_and_null_does_not_wipe_them() -> None:
    whole = answer({"x_vendor": {"a": 1}, "tier": None}, {"x_vendor": None, "citations": ["u"]})
    assert whole == {
        "x_vendor": {"a": 1},
        "tier": None,
        "citations": ["u"],
        "object": "chat.completion",
        "choices": [],
    }


def test_a_choice_that_never_finished_says_null() -> None:
    assert answer({"choices": [{"delta": {"content": "a"}}]})["choices"][0] == {
        "index": 0,
        "finish_reason": None,
        "message": {"role": "assistant", "content": "a"},
    }


def test_usage_on_every_chunk_is_cumulative() -> None:
    choice = {"index": 0, "delta": {"content": "a"}}
    chunks = [{"choices": [choice], "usage": {"completion_tokens": n}} for n in (1, 2)]
    assert answer(*chunks)["usage"] == {"completion_tokens": 2}


def test_the_usage_of_the_whole_beats_that_of_a_choice() -> None:
    """vLLM with continuous usage: each chunk counts its own choice, the chunk without choices counts all."""
    chunks = [{"choices": [{"index": i, "delta": {}}], "usage": {"completion_tokens": 3}} for i in (0, 1)]
    assert answer(*chunks, {"choices": [], "usage": {"completion_tokens": 6}})["usage"] == {"completion_tokens": 6}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_usage_per_choice_is_that_of_the_first_choice(order: tuple[int, int]) -> None:
    """llama.cpp reports usage after each choice; its non-stream answer reports the first choice's."""
    events: list[Any] = []
    for i in order:
        events.append({"choices": [{"index": i, "delta": {}, "finish_reason": "stop"}]})
        events.append({"choices": [], "usage": {"completion_tokens": 10 + i}, "timings": {"predicted_n": 10 + i}})
    whole = answer(*events)
    assert (whole["usage"], whole["timings"]) == ({"completion_tokens": 10}, {"predicted_n": 10})


@pytest.mark.parametrize(
    "event", [None, [], "x", 7, {}, {"choices": None}, {"choices": [None, 3, "x"]}, {"choices": {"index": 0}}]
)
def test_what_is_not_a_chunk_is_ignored(event: Any) -> None:
    assert answer(event)["choices"] == []


def test_a_completion_without_text_is_empty_text() -> None:
    collector = CompletionsCollector()
    collector.add({"choices": [{"index": 0, "finish_reason": "stop"}]})
    assert collector.answer() == {
        "object": "text_completion",
        "choices": [{"text": "", "finish_reason": "stop", "index": 0}],
    }
