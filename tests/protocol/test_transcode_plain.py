"""A piece of plain text goes the short way through a crossing: what comes out is what the long way would have made."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import orjson
import pytest
from fakes import ollama
from fakes.answers import chat_delta, chat_role, chat_token, messages_block_start, messages_event, messages_start
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, unhurried

from edge.protocol.canonical import Target
from edge.protocol.dialects import DIALECTS
from edge.protocol.ollama import encode as ollama_encode
from edge.protocol.ollama.codec import OllamaCodec
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder, translate
from edge.protocol.transcode_ports import Answering

ASKED: dict[Surface, dict[str, object]] = {
    Surface.CHAT: {"messages": [{"role": "user", "content": "x"}], "stream": True},
    Surface.MESSAGES: {"messages": [{"role": "user", "content": "x"}], "stream": True, "max_tokens": 9},
    Surface.RESPONSES: {"input": "x", "stream": True},
    Surface.OLLAMA_CHAT: {"messages": [{"role": "user", "content": "x"}]},
}


def chat_said(kind: str, text: str) -> bytes:
    return chat_token(text) if kind == "text" else chat_delta({"reasoning_content": text})


def ollama_said(kind: str, text: str) -> bytes:
    return ollama.token(text) if kind == "text" else ollama.said(thinking=text)


def messages_said(kind: str, text: str) -> bytes:
    name = "text" if kind == "text" else "thinking"
    delta = {"type": f"{name}_delta", name: text}
    return messages_event("content_block_delta", index=0, delta=delta)


SPOKEN: dict[Surface, tuple[bytes, Callable[[str, str], bytes]]] = {
    Surface.CHAT: (chat_role(), chat_said),
    Surface.OLLAMA_CHAT: (b"", ollama_said),
    Surface.MESSAGES: (messages_start() + messages_block_start(), messages_said),
}
PAIRS = [(surface, through) for surface in ASKED for through in SPOKEN if surface is not through]


def crossing(surface: Surface, through: Surface, model: str = "m") -> Transcoder:
    prepared = prepare(surface, orjson.dumps({"model": model, **ASKED[surface]}))
    translated = translate(prepared, Target(through))
    source = DIALECTS[through].codec(prepared, 2**20, frozenset())
    return transcoder(source, through, Answering(prepared, "ab" * 16, 1, translated.echo))


def unread(_codec: object, _data: bytes) -> NoReturn:
    raise AssertionError("this read was decoded")


pieces = st.tuples(
    st.sampled_from(["text", "text", "text", "thought"]), (st.text() | st.sampled_from(FORGERIES)).filter(bool)
)


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line that Edge makes is of the same time."""
    monkeypatch.setattr(ollama_encode, "now_text", lambda: "2026-08-01T12:00:00.000000Z")


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(("surface", "through"), PAIRS)
@unhurried
@given(said=st.lists(pieces, max_size=9), model=st.sampled_from(["m", "0c3f1f3e", 'a"b\\']))
def test_the_short_way_says_what_the_long_way_says(
    surface: Surface, through: Surface, said: Sequence[tuple[str, str]], model: str
) -> None:
    short, long = crossing(surface, through, model), crossing(surface, through, model)
    begin, say = SPOKEN[through]
    for read in [begin, *(say(kind, text) for kind, text in said)]:
        if not read:
            continue
        mine, other = short.feed(read), long.walk(read)
        assert (mine.data, mine.events, mine.tokens) == (other.data, other.events, other.tokens)
    mine, other = short.eof(), long.eof()
    assert mine.data == other.data


@pytest.mark.parametrize("kind", ["text", "thought"])
@pytest.mark.parametrize(("surface", "through"), PAIRS)
def test_a_token_of_text_or_thought_is_not_decoded(
    surface: Surface, through: Surface, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = crossing(surface, through)
    begin, say = SPOKEN[through]
    codec.feed(begin + say(kind, "a") if begin else say(kind, "a"))
    monkeypatch.setattr(type(codec), "walk", unread)
    for text in ("b", "\n", '"', "é", "\u2028"):
        assert codec.feed(say(kind, text)).tokens == 1


def test_text_and_thought_of_one_event_are_both_told() -> None:
    """After events of thought alone it looks as if there was only more thought."""
    codec = crossing(Surface.MESSAGES, Surface.CHAT)
    out = codec.feed(chat_role() + chat_said("thought", "a")).data + codec.feed(chat_said("thought", "b")).data
    out += codec.feed(chat_delta({"reasoning_content": "c", "content": "d"})).data
    assert b'"thinking":"c"' in out
    assert b'"text":"d"' in out


def test_a_line_that_was_decoded_after_all_counts_once() -> None:
    """An Ollama stops a model that says the same thirty times; sixteen long lines are fewer."""
    prepared = prepare(Surface.CHAT, orjson.dumps({"model": "m", **ASKED[Surface.CHAT]}))
    source = OllamaCodec(prepared, 2**20)
    codec = transcoder(source, Surface.OLLAMA_CHAT, Answering(prepared, "ab" * 16, 1))
    long = "x" * 20_000
    for _ in range(16):
        codec.feed(ollama.token(long))
    codec.eof()
    assert not codec.finished(clean_eof=True)
