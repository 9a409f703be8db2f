"""Which of a Responses stream's ``response`` objects is the answer."""

from typing import Any

import pytest

from edge.protocol.responses.collect import ResponsesCollector


def answer(*events: Any) -> Any:
    collector = ResponsesCollector()
    for event in events:
        collector.add(event)
    return collector.answer()


CREATED = {"type": "response.created", "response": {"status": "in_progress"}}


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed"])
def test_the_final_response_is_the_answer(status: str) -> None:
    final = {"type": f"response.{status}", "response": {"status": status}, "timings": {}}
    assert answer(CREATED, final, CREATED) == {"status": status}


def test_before_the_end_it_is_the_last_response_seen() -> None:
    later = {"type": "response.in_progress", "response": {"status": "in_progress", "model": "m"}}
    assert answer(CREATED, later, {"type": "response.output_text.delta", "delta": "a"}) == later["response"]


@pytest.mark.parametrize("event", [None, [], "x", {}, {"type": "response.completed", "response": None}])
def test_what_has_no_response_is_ignored(event: Any) -> None:
    assert answer(event) == {}


def test_a_type_that_is_no_text_ends_nothing() -> None:
    assert answer({"type": [], "response": {"status": "x"}}, CREATED) == CREATED["response"]
