"""Golden streams both ways: what each is in canonical events, and what those are in every client's surface."""

from pathlib import Path

import pytest
from golden.made import (
    GOLDEN,
    decoded,
    encoded_file,
    events_file,
    in_one_body,
    read_events_file,
    streams,
    surface_of,
)
from support.canonical import gist
from support.specs import DECODERS

from edge.protocol.events import Annotation, Event, ToolCallStart

every = pytest.mark.parametrize("path", streams(), ids=lambda path: path.stem)
HOW = "if this is meant, write them anew: PYTHONPATH=.:tests python tests/golden/made.py"


@every
@pytest.mark.parametrize("at_once", [True, False], ids=["in one read", "event by event"])
def test_a_stream_is_these_events(path: Path, at_once: bool) -> None:
    told = path.with_suffix(".events.json").read_bytes()
    assert events_file(*decoded(path, at_once=at_once)) == told, HOW


@every
def test_these_events_are_these_answers(path: Path) -> None:
    events, usage = read_events_file(path.with_suffix(".events.json").read_bytes())
    assert encoded_file(events, usage) == path.with_suffix(".encoded.txt").read_bytes(), HOW


# Where the two answers differ, and why.
DIFFER = {
    "chat_n2": "llama.cpp reports the usage of each choice, and in one body that of the first",
    "completions_without_usage": "vLLM's stream was not asked for its usage",
    "messages_anthropic_cut_input": "what was cut is no JSON, so in one body it stands under another name",
}


def told(events: list[Event], *, ids: bool) -> dict[tuple[object, ...], object]:
    """What the two answers have in common: annotations stand elsewhere, and ids are drawn anew for each answer."""
    plain = (event for event in events if not isinstance(event, Annotation))
    return gist(event._replace(id="") if isinstance(event, ToolCallStart) and not ids else event for event in plain)


@pytest.mark.parametrize("path", [path for path in streams() if path.stem not in DIFFER], ids=lambda path: path.stem)
def test_the_same_answer_in_one_body_comes_to_the_same(path: Path) -> None:
    events, usage = read_events_file(path.with_suffix(".events.json").read_bytes())
    whole, reported = in_one_body(path)
    ids = path.parent.name == "published"
    assert told(whole, ids=ids) == told(events, ids=ids)
    assert reported == usage


def test_every_decoder_has_golden_streams() -> None:
    assert {surface_of(path) for path in streams()} == set(DECODERS)


def test_no_made_file_is_left_over() -> None:
    made = {path.with_suffix("") for path in [*GOLDEN.glob("*/*.events.json"), *GOLDEN.glob("*/*.encoded.txt")]}
    assert {path.with_suffix("").name for path in made} == {path.stem for path in streams()}
