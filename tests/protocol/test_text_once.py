"""What a chat server said arrives once, whichever way the answer takes and however it was spread over events and reads.

An answer is relayed, collected, translated, and translated and collected. Servers differ in which event they put the
finish reason, the usage and the last piece of text or of a call into, and in whether they send ``[DONE]``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from fakes.answers import DONE
from hypothesis import given
from hypothesis import strategies as st
from support.streams import FORGERIES, codec_for, cut, cuts, read, unhurried

from edge.protocol.canonical import Target
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder, translate
from edge.protocol.transcode_ports import Answering

USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}


@dataclass(frozen=True)
class Spread:
    """How a server spreads an answer over its events.

    Attributes:
        words: Pieces of text.
        arguments: Pieces of one call's arguments, after the text; none without a call.
        role: It begins with an event that has the role alone.
        finish: The finish reason comes with the last piece, else in an event of its own.
        usage: In no event, in the one with the finish reason, or in one of its own.
        done: It sends ``[DONE]``.
    """

    words: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    role: bool = True
    finish: bool = True
    usage: str = "none"
    done: bool = True

    def events(self) -> list[bytes]:
        """What it sends."""
        deltas: list[dict[str, Any]] = [{"content": word} for word in self.words]
        for number, piece in enumerate(self.arguments):
            begun = {"id": "call_1", "type": "function"} if number == 0 else {}
            function = {"name": "f", "arguments": piece} if number == 0 else {"arguments": piece}
            deltas.append({"tool_calls": [{"index": 0, **begun, "function": function}]})
        if not self.role:
            deltas[0] = {"role": "assistant", **deltas[0]}
        else:
            deltas.insert(0, {"role": "assistant", "content": ""})
        if not self.finish:
            deltas.append({})
        reason = "tool_calls" if self.arguments else "stop"
        chunks = [_chunk(delta) for delta in deltas[:-1]] + [_chunk(deltas[-1], reason)]
        if self.usage == "with the finish":
            chunks[-1]["usage"] = USAGE
        elif self.usage == "alone":
            chunks.append({**HEAD, "choices": [], "usage": USAGE})
        return [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks] + [DONE] * self.done


def _chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {**HEAD, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


texts = st.text(min_size=1, max_size=12) | st.sampled_from([text for text in FORGERIES if text])
objects = st.dictionaries(texts, texts, max_size=3)


@st.composite
def spreads(draw: st.DrawFn) -> Spread:
    words = tuple(draw(st.lists(texts, max_size=4)))
    json = orjson.dumps(draw(objects)).decode() if not words or draw(st.booleans()) else ""
    at = draw(st.integers(0, len(json)))
    return Spread(
        words,
        tuple(piece for piece in (json[:at], json[at:]) if piece),
        role=draw(st.booleans()),
        finish=draw(st.booleans()),
        usage=draw(st.sampled_from(["none", "with the finish", "alone"])),
        done=draw(st.booleans()),
    )


def collected(surface: Surface, codec: Any, pieces: Iterable[bytes]) -> tuple[str, object]:
    """Text and arguments of the answer that is collected on the way."""
    prepared = prepare(surface, orjson.dumps(BODIES[surface]))
    codec.collect(DIALECTS[surface].collector(prepared))
    for piece in pieces:
        codec.feed(piece)
    codec.eof()
    return SAID[surface](codec.answer())


def crossing(surface: Surface) -> Transcoder:
    """A codec for a client of this surface, in front of a server that speaks chat completions."""
    prepared = prepare(surface, orjson.dumps(BODIES[surface]))
    source = DIALECTS[Surface.CHAT].codec(prepared, 2**20, frozenset())
    asked = translate(prepared, Target(Surface.CHAT, "u"))
    return transcoder(source, Surface.CHAT, Answering(prepared, "ab" * 16, 1, echo=asked.echo))


def translated(surface: Surface, pieces: Iterable[bytes]) -> tuple[str, object]:
    """Text and arguments of the stream that a client of this surface gets, as its own collector reads it."""
    codec = crossing(surface)
    out = b"".join([*(codec.feed(piece).data for piece in pieces), codec.eof().data])
    prepared = prepare(surface, orjson.dumps(BODIES[surface]))
    return collected(surface, DIALECTS[surface].codec(prepared, 2**20, frozenset()), [out])


def _chat(answer: dict[str, Any]) -> tuple[str, object]:
    message = answer["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    return message["content"] or "", [orjson.loads(call["function"]["arguments"]) for call in calls]


def _messages(answer: dict[str, Any]) -> tuple[str, object]:
    blocks = answer["content"]
    calls = [block["input"] for block in blocks if block["type"] == "tool_use"]
    return "".join(block.get("text", "") for block in blocks), calls


def _responses(answer: dict[str, Any]) -> tuple[str, object]:
    items = answer["output"]
    parts = [part for item in items if item["type"] == "message" for part in item["content"]]
    calls = [orjson.loads(item["arguments"]) for item in items if item["type"] == "function_call"]
    return "".join(part["text"] for part in parts), calls


def _ollama(answer: dict[str, Any]) -> tuple[str, object]:
    message = answer["message"]
    return message["content"], [call["function"]["arguments"] for call in message.get("tool_calls") or []]


ASKED = [{"role": "user", "content": "hi"}]
BODIES: dict[Surface, dict[str, object]] = {
    Surface.CHAT: {"model": "m", "messages": ASKED, "stream": True},
    Surface.MESSAGES: {"model": "m", "messages": ASKED, "stream": True, "max_tokens": 9},
    Surface.RESPONSES: {"model": "m", "input": "hi", "stream": True},
    Surface.OLLAMA_CHAT: {"model": "m", "messages": ASKED},
}
SAID = {
    Surface.CHAT: _chat,
    Surface.MESSAGES: _messages,
    Surface.RESPONSES: _responses,
    Surface.OLLAMA_CHAT: _ollama,
}
OTHERS = [surface for surface in BODIES if surface is not Surface.CHAT]


@unhurried
@given(spreads(), cuts)
def test_the_relayed_the_collected_and_the_translated_answer_say_the_same(spread: Spread, at: list[int]) -> None:
    pieces = cut(b"".join(spread.events()), at)
    arguments = [orjson.loads("".join(spread.arguments))] if spread.arguments else []
    expected = ("".join(spread.words), arguments)

    relayed = read(codec_for(Surface.CHAT), pieces).data
    assert collected(Surface.CHAT, codec_for(Surface.CHAT), [relayed]) == expected
    assert collected(Surface.CHAT, codec_for(Surface.CHAT), pieces) == expected
    for surface in OTHERS:
        assert translated(surface, pieces) == expected, f"{surface}, streamed"
        assert collected(surface, crossing(surface), pieces) == expected, f"{surface}, collected"


@pytest.mark.parametrize("usage", ["none", "with the finish", "alone"])
@pytest.mark.parametrize("surface", BODIES, ids=str)
def test_the_last_word_that_comes_with_the_finish_reason_is_told_once(surface: Surface, usage: str) -> None:
    events = Spread((" blue", " sky"), usage=usage).events()
    codec = codec_for(Surface.CHAT) if surface is Surface.CHAT else crossing(surface)
    assert collected(surface, codec, events) == (" blue sky", [])
