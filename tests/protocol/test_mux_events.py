"""Events of several streams in one, and the cursor over all of them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.eventsource import parsed
from support.streams import unhurried

from edge.errors import Gone
from edge.protocol.mux_events import ENDED, Marks, MuxFormat, parse_marks
from edge.protocol.sse import SSE_TYPE

A, B, C = (f"st_{letter * 32}" for letter in "abc")
NDJSON = "application/x-ndjson"
EVERYTHING = 10**9


def test_each_event_says_whose_it_is_and_what_it_was_called() -> None:
    tags = MuxFormat([A, B, C], {A: 4, C: ENDED})
    tagged = tags.events(B, b"retry: 1\nevent: ping\ndata: 1\ndata: 2\n\ndata: [DONE]\r\n\r\n", SSE_TYPE, EVERYTHING)
    first, second = parsed(tagged.data).events
    assert first.json == {"stream": B, "seq": 1, "event": "ping", "data": "1\n2"}
    assert second.json == {"stream": B, "seq": 2, "event": None, "data": "[DONE]"}
    assert (first.type, first.id) == ("message", f"{A}:4,{B}:1,{C}:end")
    assert second.id == f"{A}:4,{B}:2,{C}:end"
    assert tagged.count == 2


def test_of_lines_each_is_an_event() -> None:
    run = b'{"a":1}\n{"b":"\\n"}\r\n'
    tagged = MuxFormat([A], {}).events(A, run, NDJSON, EVERYTHING)
    assert [event.json["data"] for event in parsed(tagged.data).events] == ['{"a":1}', '{"b":"\\n"}']
    assert (tagged.count, tagged.used) == (2, len(run))


def test_what_is_no_text_still_comes() -> None:
    tagged = MuxFormat([A], {}).events(A, b"data: \xff\n\n", SSE_TYPE, EVERYTHING)
    assert parsed(tagged.data).events[0].json["data"] == "\ufffd"


@unhurried
@given(
    st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])), min_size=1),
    st.integers(1, 2000),
)
def test_a_run_that_is_taken_by_slices_is_the_same(texts: list[str], most: int) -> None:
    run = b"".join(f"data: {text}\n\n".encode() for text in texts)
    whole = MuxFormat([A, B], {B: 7}).events(A, run, SSE_TYPE, EVERYTHING)
    tags, rest, data = MuxFormat([A, B], {B: 7}), run, b""
    while rest:
        tagged = tags.events(A, rest, SSE_TYPE, most)
        assert tagged.count >= 1
        rest, data = rest[tagged.used :], data + tagged.data
    assert data == whole.data
    assert [event.json["data"] for event in parsed(data).events] == texts


@unhurried
@given(
    st.dictionaries(st.from_regex(r"st_[0-9a-f]{32}", fullmatch=True), st.integers(-1, 10**15), min_size=1),
    st.booleans(),
)
def test_a_cursor_says_where_the_reader_is(seen: dict[str, int], done: bool) -> None:
    tags = MuxFormat(list(seen), seen)
    told = tags.done() if done else tags.lost(next(iter(seen)), Gone("gone"), final=False)
    assert parse_marks(parsed(told).last_id) == Marks(seen, done)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "done",
        ",done",
        "end",
        A,
        f"{A}:",
        f"{A}:01",
        f"{A}:-1",
        f"{A}:1,",
        f"{A}:1,{A}:2",
        f"done,{A}:1",
        f"{A}:1;{B}:2",
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert parse_marks(text) is None


def test_how_a_stream_ended_is_in_the_cursor_from_then_on() -> None:
    tags = MuxFormat([A, B, C], {})
    end = parsed(tags.end(A, "complete", None)).events[0]
    assert (end.type, end.json, end.id) == ("end", {"stream": A, "outcome": "complete"}, f"{A}:end,{B}:0,{C}:0")
    lost = parsed(tags.lost(B, Gone("it is gone", code="stream_gone"), final=True)).events[0]
    told = {"message": "it is gone", "type": "invalid_request_error", "param": None, "code": "stream_gone"}
    assert (lost.type, lost.json, lost.id) == ("error", {"stream": B, "error": told}, f"{A}:end,{B}:end,{C}:0")
    again = parsed(tags.lost(C, Gone("not now"), final=False)).events[0]
    assert again.id == f"{A}:end,{B}:end,{C}:0"
    assert parsed(tags.done()).events[0].id.endswith(",done")


def test_every_event_is_one_line_of_json() -> None:
    tagged = MuxFormat([A], {}).events(A, "data: a\u2028b\ndata: c\n\n".encode(), SSE_TYPE, EVERYTHING)
    (line,) = [line for line in tagged.data.split(b"\n") if line.startswith(b"data: ")]
    assert orjson.loads(line.removeprefix(b"data: "))["data"].endswith("\nc")
