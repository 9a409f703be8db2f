"""Canonical events survive encoding and decoding in each dialect that both clients and upstreams speak.

What a dialect cannot carry is not asked of it, and said below. The stream is cut anywhere on its way, and put together
into one body too: that is what a client gets which wants no stream.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.canonical import answering, gist, joined
from support.specs import DECODERS, ENCODERS
from support.streams import FORGERIES, MAX_EVENT, cut, cuts, unhurried

from edge.protocol.batch import Usage
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
from edge.protocol.surface import OLLAMA, Surface
from edge.protocol.transcode_ports import Answering

texts = st.text(min_size=1) | st.sampled_from(FORGERIES)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, values, max_size=3)
counts = st.integers(0, 10**9)  # more is no count


@dataclass(frozen=True)
class Dialect:
    """What a surface can carry.

    Attributes:
        parts: The kinds of an answer's parts.
        reasons: The ways in which it can end.
        choices: The most choices that it has.
    """

    surface: Surface
    parts: frozenset[str]
    reasons: tuple[str, ...] = ("stop", "length", "tool_calls", "content_filter")
    choices: int = 1
    stop_sequence: bool = False
    usage: tuple[str, ...] = ("prompt", "completion")

    def __str__(self) -> str:
        return str(self.surface)


DIALECT = (
    # Signatures and stop sequences have no place in chunks.
    Dialect(
        Surface.CHAT,
        frozenset({"text", "reasoning", "refusal", "annotation", "call"}),
        choices=3,
        usage=("prompt", "completion", "cached", "reasoning"),
    ),
    Dialect(
        Surface.COMPLETIONS,
        frozenset({"text"}),
        ("stop", "length", "content_filter"),
        choices=3,
        usage=("prompt", "completion", "cached", "reasoning"),
    ),
    # A refusal is text there, and citations belong to documents that only Anthropic knows.
    Dialect(
        Surface.MESSAGES,
        frozenset({"text", "reasoning", "signature", "call"}),
        stop_sequence=True,
        usage=("prompt", "completion", "cached"),
    ),
    # It has no word for tool calls or filters as an end, and tells calls last.
    Dialect(Surface.OLLAMA_CHAT, frozenset({"text", "reasoning", "call"}), ("stop", "length")),
    Dialect(Surface.OLLAMA_GENERATE, frozenset({"text", "reasoning", "call"}), ("stop", "length")),
)
every = pytest.mark.parametrize("dialect", DIALECT, ids=str)


@st.composite
def answers(draw: st.DrawFn, dialect: Dialect, *, mixed: bool) -> list[Event]:
    """A whole answer; ``mixed``: a call's pieces may be anywhere after its start, and so may other choices' parts."""
    choices = [draw(_choice(dialect, number)) for number in range(draw(st.integers(1, dialect.choices)))]
    told = [
        _renumbered(draw(_merged(parts)) if mixed else [event for part in parts for event in part]) for parts in choices
    ]
    ended = [
        [*line, draw(_finish(dialect, number, called=any(isinstance(event, ToolCallStart) for event in line)))]
        for number, line in enumerate(told)
    ]
    return [Start(draw(names)), *draw(_merged(ended))]


@st.composite
def _choice(draw: st.DrawFn, dialect: Dialect, choice: int) -> list[list[Event]]:
    """Its parts, each a list of events that stay in their order."""
    parts: list[list[Event]] = []
    for number, kind in enumerate(draw(st.lists(st.sampled_from(sorted(dialect.parts)), max_size=5))):
        match kind:
            case "text":
                parts.append([Text(draw(texts), choice)])
            case "reasoning":
                parts.append([Reasoning(draw(texts), "", choice)])
            case "signature":
                parts.append([Reasoning(draw(texts), "", choice), Reasoning("", draw(names), choice)])
            case "refusal":
                parts.append([Refusal(draw(texts), choice)])
            case "annotation":
                parts.append([Annotation({"type": "url_citation", "title": draw(texts)}, choice)])
            case "call":
                json = orjson.dumps(draw(arguments)).decode()
                edges = sorted({0, len(json), *(at % len(json) for at in draw(cuts))})
                pieces = [ToolCallArguments(number, json[a:b], choice) for a, b in pairwise(edges)]
                parts.append([ToolCallStart(number, f"id_{choice}_{number}", draw(names), choice), *pieces])
    return parts


@st.composite
def _finish(draw: st.DrawFn, dialect: Dialect, choice: int, *, called: bool) -> Finish:
    reason: Any = draw(st.sampled_from(dialect.reasons))
    if called and reason == "stop" and "tool_calls" in dialect.reasons:
        reason = "tool_calls"  # that is what "stop" comes to mean after calls
    if not called and reason == "tool_calls":
        reason = "stop"  # and the other way round: nobody is to wait for a call that does not come
    named = dialect.stop_sequence and reason == "stop" and draw(st.booleans())
    return Finish(reason, draw(names) if named else None, choice)


@st.composite
def _merged(draw: st.DrawFn, lines: list[list[Event]]) -> list[Event]:
    """All events, each line's in its order."""
    turns = draw(st.permutations([number for number, line in enumerate(lines) for _ in line]))
    left = [iter(line) for line in lines]
    return [next(left[number]) for number in turns]


def _renumbered(line: list[Event]) -> list[Event]:
    """Calls are counted in the order in which they begin."""
    order = [event.call for event in line if isinstance(event, ToolCallStart)]
    return [
        event._replace(call=order.index(event.call)) if isinstance(event, ToolCallStart | ToolCallArguments) else event
        for event in line
    ]


def _answering(dialect: Dialect, events: list[Event]) -> Answering:
    return answering(dialect.surface, sum(isinstance(event, Finish) for event in events))


def streamed(dialect: Dialect, events: list[Event], usage: Usage, at: list[int]) -> tuple[list[Event], Usage | None]:
    """Encoded, cut, and decoded again."""
    told = _answering(dialect, events)
    encoder = ENCODERS[dialect.surface](told)
    pieces = [piece for event in events for piece in encoder.add(event)] + encoder.end(usage)
    whole = b"".join(map(encoder.frame, pieces)) + encoder.format.terminator
    codec, decoder = (
        DIALECTS[dialect.surface].codec(told.prepared, MAX_EVENT, frozenset()),
        DECODERS[dialect.surface](),
    )
    codec.collect(decoder)
    *_, last = [codec.feed(piece) for piece in cut(whole, at)]
    assert last.terminated
    assert codec.finished(clean_eof=False)
    return decoder.events, codec.usage


def in_one_body(dialect: Dialect, events: list[Event], usage: Usage) -> tuple[list[Event], Usage | None]:
    """Encoded, collected, and decoded again."""
    told = _answering(dialect, events)
    encoder = ENCODERS[dialect.surface](told)
    collector, decoder = DIALECTS[dialect.surface].collector(told.prepared), DECODERS[dialect.surface]()
    for _, payload in [piece for event in events for piece in encoder.add(event)] + encoder.end(usage):
        collector.add(orjson.loads(orjson.dumps(payload)))
    reported = decoder.whole(orjson.loads(orjson.dumps(collector.answer())))
    return decoder.events, reported


@st.composite
def usages(draw: st.DrawFn, dialect: Dialect) -> Usage:
    """Counts; those from the cache and of thought are part of the others, and no cache is used where they are none."""
    prompt, completion = draw(counts), draw(counts)
    cached = draw(st.none() | st.integers(1, prompt)) if "cached" in dialect.usage and prompt else None
    reasoning = draw(st.none() | st.integers(0, completion)) if "reasoning" in dialect.usage else None
    return Usage(prompt, completion, cached, reasoning)


@every
@unhurried
@given(st.data(), cuts)
def test_nothing_is_lost_in_a_stream(dialect: Dialect, data: st.DataObject, at: list[int]) -> None:
    events, usage = data.draw(answers(dialect, mixed=True)), data.draw(usages(dialect))
    decoded, reported = streamed(dialect, events, usage, at)
    assert gist(decoded) == gist(events)
    assert reported == usage


@every
@unhurried
@given(st.data())
def test_nothing_is_lost_in_one_body(dialect: Dialect, data: st.DataObject) -> None:
    events, usage = data.draw(answers(dialect, mixed=True)), data.draw(usages(dialect))
    decoded, reported = in_one_body(dialect, events, usage)
    assert gist(decoded) == gist(events)
    assert reported == usage


@pytest.mark.parametrize("dialect", [one for one in DIALECT if one.surface not in OLLAMA], ids=str)
@unhurried
@given(st.data(), cuts)
def test_the_order_is_kept(dialect: Dialect, data: st.DataObject, at: list[int]) -> None:
    """But for Ollama, where calls come last, and for mixed pieces in Messages, whose blocks do not overlap."""
    events = data.draw(answers(dialect, mixed=dialect.surface is Surface.CHAT))
    decoded, _ = streamed(dialect, events, Usage(1, 1), at)
    assert joined(decoded) == joined(events)
