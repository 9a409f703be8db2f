"""Crossing surfaces is the same stream however it was cut, whichever path a piece of text takes."""

from collections.abc import Iterable

import orjson
import pytest
from fakes import ollama
from fakes.answers import chat_delta, chat_finish, chat_role, chat_token, chat_usage
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, cut, cuts, unhurried

from edge.protocol.dialects import DIALECTS
from edge.protocol.events import Finish, Reasoning, Start, Text, ToolCallArguments, ToolCallStart
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder
from edge.protocol.transcode_ports import Answering

texts = st.text() | st.sampled_from(FORGERIES)


def crossing(through: Surface = Surface.OLLAMA_CHAT, model: str = "m") -> Transcoder:
    """A chat client's answers, read from an upstream that speaks ``through``."""
    prepared = prepare(Surface.CHAT, orjson.dumps({"model": model, "messages": [], "stream": True}))
    source = DIALECTS[through].codec(prepared, 2**20, frozenset())
    return transcoder(source, through, Answering(prepared, "ab" * 16, 1))


def said(codec: Transcoder, pieces: Iterable[bytes]) -> tuple[str, int]:
    """All the text, and the number of tokens that were counted."""
    out, tokens = b"", 0
    for piece in pieces:
        batch = codec.feed(piece)
        out += batch.data
        tokens += batch.tokens
    chunks = [orjson.loads(event[6:]) for event in out.split(b"\n\n")[:-2]]
    assert out.endswith(b"data: [DONE]\n\n")
    return "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c["choices"]), tokens


@unhurried
@given(st.lists(texts.filter(bool), min_size=1, max_size=8), cuts)
def test_text_from_an_ollama_is_the_same_however_it_was_cut(words: list[str], at: list[int]) -> None:
    whole = b"".join(map(ollama.token, words)) + ollama.last()
    assert said(crossing(), cut(whole, at)) == ("".join(words), len(words))
    lines = [*map(ollama.token, words), ollama.last()]
    assert said(crossing(), lines) == ("".join(words), len(words))


@pytest.mark.parametrize("model", ["m", "0c3f1f3e", 'a"b\\', "0c3f1f3e 0c3f1f3e"])
def test_the_model_can_be_called_anything(model: str) -> None:
    lines = [orjson.dumps({**orjson.loads(ollama.token(word)), "model": model}) + b"\n" for word in "abc"]
    codec = crossing(model=model)
    out = b"".join(codec.feed(line).data for line in lines)
    chunks = [orjson.loads(event[6:]) for event in out.split(b"\n\n")[:-1]]
    assert {chunk["model"] for chunk in chunks} == {model}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "abc"


def test_text_after_thinking_and_calls_is_still_text() -> None:
    call = [{"function": {"name": "f", "arguments": {}}}]
    lines = [
        ollama.token("a"), ollama.token("b"), ollama.said(thinking="hm"), ollama.token("c"),
        ollama.said(tool_calls=call), ollama.token("d"), ollama.token("e"), ollama.last(),
    ]  # fmt: skip
    assert said(crossing(), lines)[0] == "abcde"


def test_chat_chunks_as_canonical_events() -> None:
    """Through the codec that reads them anyway, runs from one mould included."""
    from edge.protocol.chat.decode import ChatDecoder  # noqa: PLC0415 - the subject of this test alone

    prepared = prepare(Surface.CHAT, orjson.dumps({"model": "m", "messages": [], "stream": True}))
    codec, decoder = DIALECTS[Surface.CHAT].codec(prepared, 2**20, frozenset()), ChatDecoder()
    codec.collect(decoder)
    begun = {"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}
    stream = [
        chat_role(), chat_delta({"reasoning": "hm"}), *map(chat_token, "abc"),
        chat_delta({"tool_calls": [begun]}),
        chat_delta({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}),
        chat_finish("tool_calls"), chat_usage(),
    ]  # fmt: skip
    codec.feed(b"".join(stream))
    expected = [
        Start("m"), Reasoning("hm"), Text("a"), Text("bc"), ToolCallStart(0, "c", "f"), ToolCallArguments(0, "{}"),
        Finish("tool_calls"),
    ]  # fmt: skip
    assert decoder.events == expected


def test_what_is_too_long_for_one_line_comes_in_several() -> None:
    """Clients that read by lines fail on long ones: an Ollama's tool calls, or many tokens of one read."""
    text = "é🎈\n" * 30_000
    call = [{"function": {"name": "f", "arguments": {"text": text}}}]
    codec, out = crossing(), b""
    for line in (
        ollama.token(text),
        ollama.token("x"),
        ollama.token(text),
        ollama.said(tool_calls=call),
        ollama.last(),
    ):
        out += codec.feed(line).data
    events = out.split(b"\n\n")[:-2]
    assert max(map(len, events)) < 49_152
    deltas = [orjson.loads(event[6:])["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content") or "" for delta in deltas) == f"{text}x{text}"
    arguments = "".join(c["function"]["arguments"] for delta in deltas for c in delta.get("tool_calls", ()))
    assert orjson.loads(arguments) == {"text": text}
