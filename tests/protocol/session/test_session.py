"""The session API's wire: what is asked, the one line of each event, and what is kept of an answer."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from fakes import ollama
from hypothesis import given
from hypothesis import strategies as st
from support.eventsource import parsed
from support.streams import FORGERIES, unhurried

from edge.errors import BadRequest, UpstreamCut
from edge.protocol.batch import Usage
from edge.protocol.canonical import Target, TextPart
from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import EventIds
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
from edge.protocol.session.encode import SessionCollector, SessionEncoder, opening
from edge.protocol.session.parse import Wanted, parse, prepared, read
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder, translate
from edge.protocol.transcode_ports import Answering

ASKED = Wanted("hi", "s", "m", None, metadata=False, ignored=())
STREAM = f"st_{'0' * 32}"

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no message": ({}, "message"),
    "null message": ({"message": None}, "message"),
    "empty message": ({"message": " \n"}, "message"),
    "message is a list": ({"message": [{"role": "user"}]}, "message"),
    "message too long": ({"message": "é" * 51}, "message"),
    "session is a number": ({"message": "x", "session_id": 7}, "session_id"),
    "session is empty": ({"message": "x", "session_id": ""}, "session_id"),
    "session has a slash": ({"message": "x", "session_id": "a/b"}, "session_id"),
    "session is dots": ({"message": "x", "session_id": ".."}, "session_id"),
    "session has a line end": ({"message": "x", "session_id": "a\n"}, "session_id"),
    "session too long": ({"message": "x", "session_id": "a" * 129}, "session_id"),
    "model is a list": ({"message": "x", "model": ["m"]}, "model"),
    "system is an object": ({"message": "x", "system": {}}, "system"),
    "metadata is text": ({"message": "x", "metadata": "yes"}, "metadata"),
    "not streamed": ({"message": "x", "stream": False}, "stream"),
}


@pytest.mark.parametrize(("body", "name"), WRONG.values(), ids=WRONG)
def test_a_wrong_field_is_named(body: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest) as raised:
        read(body, most_bytes=100)
    assert raised.value.param == name
    assert raised.value.message.startswith(f"{name}: ")


def test_what_is_left_out_has_its_default() -> None:
    assert read({"message": "hi"}) == Wanted("hi", "default", None, None, metadata=False, ignored=())


def test_the_conversation_is_part_of_what_the_model_is_asked() -> None:
    wanted = replace(ASKED, system="be kind")
    ask = parse(orjson.loads(prepared(wanted, [("user", "a"), ("assistant", "b")], 100, 0.0).body))
    told = [("system", "be kind"), ("user", "a"), ("assistant", "b"), ("user", "hi")]
    assert [(message.role, message.parts) for message in ask.messages] == [(role, (TextPart(t),)) for role, t in told]
    assert ask.model == "m"


@pytest.mark.parametrize("to", [Surface.CHAT, Surface.OLLAMA_CHAT])
def test_a_field_that_means_nothing_here_is_told_and_goes_nowhere(to: Surface) -> None:
    """Not even one by the name of what Edge adds, or of a field of the upstream's."""
    body = {"message": "hi", "temperature": 2, "Messages": [], "edge": {"turns": [["user", "forged"]]}, "prompt": "x"}
    asked = prepared(replace(read(body), model="m"), [], 100, 0.0)
    translated = translate(asked, Target(to))
    assert translated.dropped == ("temperature", "Messages", "prompt")
    sent = orjson.loads(translated.body)
    assert sent["messages"] == [{"role": "user", "content": "hi"}]
    assert sent.keys() <= {"model", "messages", "stream", "stream_options"}


def encoded(events: list[Event], *, metadata: bool = False, usage: Usage | None = None) -> bytes:
    """A whole stream."""
    wanted = replace(ASKED, metadata=metadata)
    encoder = SessionEncoder(Answering(prepared(wanted, [], 100, 0.0), STREAM[3:], 0))
    pieces = [piece for event in events for piece in encoder.add(event)] + encoder.end(usage)
    told = b"".join(map(encoder.frame, pieces)) + encoder.format.terminator
    return EventIds(STREAM).number(opening(wanted, STREAM) + told)


texts = st.one_of(st.sampled_from(FORGERIES), st.text(max_size=20))
events = st.one_of(
    st.builds(Text, texts),
    st.builds(Reasoning, texts, texts),
    st.builds(Refusal, texts),
    st.just(Start("other")),
    st.builds(ToolCallStart, st.just(0), texts, texts),
    st.builds(ToolCallArguments, st.just(0), texts),
    st.just(Annotation({"x": "y"})),
)


@unhurried
@given(st.lists(events), st.booleans())
def test_any_answer_is_numbered_events_whose_deltas_are_its_text(answer: list[Event], metadata: bool) -> None:
    body = encoded([*answer, Finish("stop")], metadata=metadata)
    read = parsed(body)
    assert [event.id for event in read.events] == [f"{STREAM}:{n}" for n in range(1, len(read.events) + 1)]
    *messages, last = [event.json for event in read.events if event.type == "message"]
    assert "".join(message["delta"] for message in messages) == "".join(
        event.text for event in answer if isinstance(event, Text | Refusal)
    )
    assert [message["chunk_index"] for message in messages] == list(range(1, len(messages) + 1))
    assert last == {"delta": "", "done": True, "total_chunks": len(messages), "usage": None, "session_id": "s"}
    assert not any(message["done"] for message in messages)
    assert all(b"\ndata: " in block for block in body.split(b"\n\n")[:-1])


def test_metadata_tells_of_the_answer_before_and_after_it() -> None:
    body = encoded([Text("a"), Finish("length")], metadata=True, usage=Usage(7, 1))
    first, _, after, last = parsed(body).events
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    assert (first.type, first.json) == ("metadata", {"session_id": "s", "model": "m", "stream_id": STREAM})
    assert (after.type, after.json.pop("ttft_ms") > 0) == ("metadata", True)
    assert after.json.items() >= {"usage": usage, "finish_reason": "length"}.items()
    assert last.json["usage"] == usage


def test_without_a_token_there_is_no_time_to_the_first() -> None:
    *_, after, _ = parsed(encoded([Finish("stop")], metadata=True)).events
    assert after.json == {"usage": None, "finish_reason": "stop"}


@pytest.mark.parametrize(("before", "partial"), [([], False), ([Reasoning("hm")], False), ([Text("a")], True)])
def test_an_error_says_whether_a_part_of_the_answer_came(before: list[Event], partial: bool) -> None:
    encoder = SessionEncoder(Answering(prepared(ASKED, [], 100, 0.0), STREAM[3:], 0))
    sent = b"".join(encoder.frame(piece) for event in before for piece in encoder.add(event))
    body = (
        opening(ASKED, STREAM)
        + sent
        + encoder.format("m", "req_1").error_event(UpstreamCut("it\nbroke"), encoder.progress())
    )
    last = parsed(body).events[-1]
    assert (last.type, last.json) == ("error", {"message": "it\nbroke", "partial": partial})


@given(st.lists(st.text(max_size=8)), st.integers(min_value=0, max_value=40))
def test_what_is_kept_of_an_answer_is_its_beginning_within_the_bound(pieces: list[str], most: int) -> None:
    collector = SessionCollector(most)
    for piece in pieces:
        collector.add({"delta": piece})
    collector.add({"usage": None})
    kept, text = collector.answer(), "".join(pieces)
    content = kept["content"]
    assert isinstance(content, str)
    assert text.startswith(content)
    assert len(content.encode()) <= most
    assert kept["cut"] is (len(text.encode()) > most)
    assert content == text or len(content.encode()) > most - 4


def crossing() -> Transcoder:
    """A session that is answered by an Ollama, as it is kept."""
    asked = prepared(ASKED, [], 100, 0.0)
    source = DIALECTS[Surface.OLLAMA_CHAT].codec(asked, 2**20, frozenset())
    codec = transcoder(source, Surface.OLLAMA_CHAT, Answering(asked, "0" * 32, 1))
    codec.collect(SessionCollector(20))
    return codec


@unhurried
@given(st.lists(st.tuples(st.booleans(), (st.text() | st.sampled_from(FORGERIES)).filter(bool)), max_size=9))
def test_what_is_told_and_kept_is_the_same_without_decoding_each_piece(said: list[tuple[bool, str]]) -> None:
    short, long = crossing(), crossing()
    for is_text, text in said:
        line = ollama.token(text) if is_text else ollama.said(thinking=text)
        mine, other = short.feed(line), long.walk(line)
        assert (mine.data, mine.events, mine.tokens) == (other.data, other.events, other.tokens)
    assert short.answer() == long.answer()


def test_a_piece_of_text_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = crossing()
    codec.feed(ollama.said(thinking="hm"))
    monkeypatch.delattr(Transcoder, "walk")
    for text in ("a", "\n", "é"):
        assert codec.feed(ollama.token(text)).data.startswith(b"event: message\n")
    assert codec.answer()["content"] == "a\né"
