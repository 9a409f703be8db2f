"""A canonical request survives being written for a surface and read again, as far as that surface can say it."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import unhurried

from edge.protocol.canonical import (
    Ask,
    Format,
    ImagePart,
    Message,
    Target,
    TextPart,
    Tool,
    ToolChoice,
    ToolResultPart,
    ToolUsePart,
)
from edge.protocol.dialects import SPECS
from edge.protocol.surface import Surface

texts = st.text(min_size=1).filter(str.strip)
names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)
schemas = st.just({"type": "object", "properties": {}}) | st.just({"type": "object", "required": ["a"]})
images = st.sampled_from(["QUJD", "iVBORw0KGgo="]).map(lambda data: ImagePart("image/png", data))


@st.composite
def messages(draw: st.DrawFn) -> list[Message]:
    """A conversation as all surfaces know them: turns that alternate, and a result for each call."""
    told: list[Message] = []
    if draw(st.booleans()):
        told.append(Message("system", (TextPart(draw(texts)),)))
    number = 0
    for _ in range(draw(st.integers(0, 3))):
        told.append(Message("user", (TextPart(draw(texts)), *draw(st.lists(images, max_size=2)))))
        uses = []
        for name in draw(st.lists(names, max_size=2, unique=True)):
            given = orjson.dumps(draw(st.dictionaries(names, texts | st.integers(-9, 9) | st.none(), max_size=2)))
            uses.append(ToolUsePart(f"call_{number}", name, given.decode()))
            number += 1
        said = (TextPart(draw(texts)),) if not uses or draw(st.booleans()) else ()
        told.append(Message("assistant", (*said, *uses)))
        told += [Message("tool", (ToolResultPart(use.id, (TextPart(draw(texts)),), name=use.name),)) for use in uses]
        if uses:
            told.append(Message("assistant", (TextPart(draw(texts)),)))
    told.append(Message("user", (TextPart(draw(texts)),)))
    return told


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    """What all these surfaces have a word for."""
    tempered = draw(st.booleans())  # newer models of Anthropic's take either of the two, so the other is dropped there
    tools = draw(st.lists(st.builds(Tool, names, texts, schemas), max_size=2))
    return Ask(
        model="m",
        messages=draw(messages()),
        tools=tools,
        tool_choice=draw(st.none() | st.just(ToolChoice("auto"))) if tools else None,
        format=draw(st.none() | st.builds(Format, schemas)),
        max_tokens=draw(st.integers(1, 2**31)),
        temperature=draw(st.floats(0, 1)) if tempered else None,
        top_p=None if tempered else draw(st.floats(0, 1)),
        top_k=draw(st.none() | st.integers(0, 100)),
        stop=draw(st.lists(texts, max_size=3)),
    )


def comparable(ask: Ask) -> dict[str, Any]:
    """What was asked, without where each surface keeps it, and what only some can say."""
    told = []
    for message in ask.messages:
        parts = [replace(part, name="") if isinstance(part, ToolResultPart) else part for part in message.parts]
        told.append((message.role, tuple(parts)))
    compared = ("model", "tools", "format", "max_tokens", "temperature", "top_p", "top_k", "stop")
    return {"messages": told, **{name: getattr(ask, name) for name in compared}}


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.MESSAGES, Surface.OLLAMA_CHAT], ids=str)
@unhurried
@given(asks())
def test_what_is_asked_is_what_is_read(surface: Surface, ask: Ask) -> None:
    rendering = SPECS[surface].render(ask, Target(surface))
    read = SPECS[surface].parse(orjson.loads(orjson.dumps(rendering.body)))
    assert comparable(read) == comparable(ask)
    assert rendering.dropped == []
    assert read.ignored == []
    assert read.extra == {}
