"""No JSON of an upstream's makes a decoder raise, nor an encoder what it is then given."""

from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from fakes import ollama
from hypothesis import given
from hypothesis import strategies as st
from support.canonical import answering
from support.specs import DECODERS, ENCODERS
from support.streams import goldens, unhurried

from edge.protocol.dialect import BadStream
from edge.protocol.events import Event
from edge.protocol.sse import events
from edge.protocol.surface import Surface

_CALL = {"id": "c", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}}
_OLLAMA = [ollama.said(thinking="hm", tool_calls=[_CALL]), ollama.token("a"), ollama.last()]
_GENERATED = [ollama.generated("a"), ollama.generated_last()]
odd = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.text(max_size=3) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def payloads(surface: Surface) -> list[Any]:
    """Of real streams, in their order."""
    if surface in (Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE):
        return [orjson.loads(line) for line in (_OLLAMA if surface is Surface.OLLAMA_CHAT else _GENERATED)]
    recorded = (event.data for path in goldens(str(surface)) for event in events(path.read_bytes()))
    return [orjson.loads(data) for data in recorded if data != b"[DONE]"]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield (*path, key)
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    copy = orjson.loads(orjson.dumps(value))
    held = copy
    for key in path[:-1]:
        held = held[key]
    held[path[-1]] = by
    return copy


KNOWN = {surface: payloads(surface) for surface in DECODERS}


@st.composite
def streams(draw: st.DrawFn, surface: Surface) -> list[Any]:
    """Some payloads of real streams, with something odd in them."""
    start = draw(st.integers(0, len(KNOWN[surface]) - 1))
    told = KNOWN[surface][start : start + draw(st.integers(1, 12))]
    for _ in range(draw(st.integers(1, 4))):
        number = draw(st.integers(0, len(told) - 1))
        if there := list(places(told[number])):
            told = [*told]
            told[number] = replaced(told[number], draw(st.sampled_from(there)), draw(odd))
    return told


def decoded(surface: Surface, told: list[Any], *, whole: bool) -> list[Event]:
    decoder = DECODERS[surface]()
    for payload in told:
        if whole and isinstance(payload, dict):
            decoder.whole(payload)
        else:
            decoder.add(payload)
    return decoder.events


@pytest.mark.parametrize("whole", [False, True], ids=["streamed", "whole"])
@pytest.mark.parametrize("surface", list(DECODERS), ids=str)
@unhurried
@given(st.data())
def test_odd_payloads_are_skipped(surface: Surface, whole: bool, data: st.DataObject) -> None:
    found = decoded(surface, data.draw(streams(surface)), whole=whole)
    for client, make in ENCODERS.items():
        encoder = make(answering(client))
        try:
            told = [piece for event in found for piece in encoder.add(event)] + encoder.end(None)
        except BadStream:  # the one thing it may say: this cannot be told here
            continue
        assert all(isinstance(encoder.frame(piece), bytes) for piece in told)
