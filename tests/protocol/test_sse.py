"""The splitter loses, adds and cuts nothing, however the network cuts the stream; a too large event is refused."""

import re
from collections.abc import Iterable, Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.streams import all_cuts, cut, cuts, unhurried

from edge.protocol.sse import BOUNDARY, COMMENT_HEARTBEAT, DONE, Event, EventTooLarge, SseSplitter, encode, events

INPUTS = {
    "LF": b"data: a\n\ndata: b\n\n",
    "CRLF": b"data: a\r\n\r\ndata: b\r\n\r\n",
    "CR": b"data: a\r\rdata: b\r\r",
    "mixed": b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\ndata: d\n\n",
    "comments": b": hi\n\ndata: a\n\n:\n\n: more\ndata: b\n\n",
    "multi-line": b"data: a\ndata: b\ndata:\ndata:c\n\n",
    "CRLF multi-line": b"event: e\r\ndata: a\r\ndata: b\r\n\r\n",
    "fields": b"event:x\nid: 1\nretry: 2\ndata:y\n\nevent: z\n\ndata\n\n",
    "blank lines": b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n\n",
    "UTF-8": 'data: "é🎈\u2028"\n\n'.encode(),
    "BOM": b"\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    "unfinished": b"data: a\n\ndata: b\n",
    "tiny": b"\n\r\n\r\r",
    "empty": b"",
}
KNOWN = {
    "CRLF": [("", b"a"), ("", b"b")],
    "mixed": [("", b"a"), ("", b"b"), ("", b"c"), ("", b"d")],
    "comments": [("", b"a"), ("", b"b")],
    "multi-line": [("", b"a\nb\n\nc")],
    "fields": [("x", b"y"), ("", b"")],
    "BOM": [("", b"a"), ("", b"b")],
    "unfinished": [("", b"a")],
    "tiny": [],
}


def standard(stream: bytes) -> list[tuple[str, bytes]]:
    """The events of a stream, after the letter of the standard and without any of Edge's code."""
    lines = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    found: list[tuple[str, bytes]] = []
    name, data = "", list[bytes]()
    for line in lines[:-1]:  # the last one has not ended
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if not line:
            if data:
                found.append((name, b"\n".join(data)))
            name, data = "", []
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode()
    return found


def runs(pieces: Iterable[bytes], limit: int = 2**20) -> tuple[list[bytes], bytes]:
    """The runs of whole events, and what is left at the end."""
    splitter = SseSplitter(limit)
    found = [run for piece in pieces if (run := splitter.feed(piece))]
    return found, splitter.rest()


def parsed(stream: bytes) -> list[tuple[str, bytes]]:
    return [(event.event, event.data) for event in events(stream)]


def assert_split(stream: bytes, pieces: list[bytes]) -> None:
    found, rest = runs(pieces)
    assert b"".join(found) + rest == stream.removeprefix(b"\xef\xbb\xbf"), "the same bytes, in order"
    assert [event for run in found for event in parsed(run)] + standard(rest) == standard(stream), pieces
    if b"\r" not in stream:
        assert standard(rest) == [], "no whole event is kept back"


@pytest.mark.parametrize("stream", INPUTS.values(), ids=INPUTS)
def test_every_cut(stream: bytes) -> None:
    for pieces in all_cuts(stream, pairs=True):
        assert_split(stream, pieces)


@pytest.mark.parametrize(("name", "expected"), KNOWN.items())
def test_known_events(name: str, expected: list[tuple[str, bytes]]) -> None:
    """The reference above is right about these."""
    assert standard(INPUTS[name]) == expected


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.one_of(
    st.sampled_from([b"", b"", b": c", b"data", b"data:", b"id: 3", b"retry: 1", b"event: e", b"event:f", b"x: y"]),
    st.text(alphabet='a:"{}é🎈 \u2028\x00', max_size=5).map(lambda text: b"data: " + text.encode()),
)
streams = st.lists(st.tuples(lines, line_ends).map(b"".join), max_size=20).map(b"".join)


@unhurried
@given(streams, cuts)
def test_any_stream_and_any_cut(stream: bytes, positions: list[int]) -> None:
    assert_split(stream, cut(stream, positions))


@unhurried
@given(streams, cuts)
def test_what_is_relayed_does_not_depend_on_the_cuts(stream: bytes, positions: list[int]) -> None:
    """Stray blank lines belong to no event, so that they are not relayed after one cut and dropped after another."""

    def relayed(pieces: list[bytes]) -> bytes:
        found, rest = runs(pieces)
        return b"".join(event.raw for run in [*found, rest] for event in events(run))

    assert relayed([stream]) == relayed(cut(stream, positions))


def test_a_crlf_that_is_cut_makes_no_stray_line() -> None:
    stream = INPUTS["CRLF"] * 2
    for pieces in all_cuts(stream, pairs=True):
        for run in runs(pieces)[0]:
            assert run.startswith(b"data")
            assert run.endswith(b"\r\n\r\n")


def test_whole_events_are_handed_on_at_once() -> None:
    """An event leaves with its last byte, and nothing waits for the next one."""
    splitter = SseSplitter(100)
    assert splitter.feed(b"data: a\n\ndata: ") == b"data: a\n\n"
    assert len(splitter.held) == len(b"data: ")
    assert splitter.feed(b"b\n\n") == b"data: b\n\n"
    assert len(splitter.held) == 0
    assert splitter.feed(b"data: c\r\n\r") == b""
    assert splitter.feed(b"\n") == b"data: c\r\n\r\n"


def test_an_event_over_the_bound_is_refused_while_it_is_unfinished() -> None:
    splitter = SseSplitter(100)
    for size in range(10, 101, 10):
        splitter.feed(b"data: 4567")
        assert len(splitter.held) == size
    with pytest.raises(EventTooLarge, match="over 100 bytes"):
        splitter.feed(b"data: 4567")
    assert len(splitter.held) == 110, "the bound and one read are the most that is ever held"


@pytest.mark.parametrize("noise", [b"\r", b"\n", b"\r\n", b"\n\r", b": x\n\r", b"\x00", b"\xef\xbb\xbf"])
def test_no_endless_noise_is_held(noise: bytes) -> None:
    splitter = SseSplitter(100)
    for _ in range(1000):
        try:
            splitter.feed(noise)
        except EventTooLarge:
            break
        assert len(splitter.held) <= 100


@unhurried
@given(st.lists(st.integers(min_value=1, max_value=60), min_size=1, max_size=6), cuts)
def test_the_bound_is_the_same_for_every_cut(sizes: list[int], positions: list[int]) -> None:
    """Whether an event is refused depends on its size alone, and the events before it are not lost with it."""
    all_events = [b"data: " + b"x" * size + b"\n\n" for size in sizes]
    limit = 48
    expected = b""
    for event in all_events:
        if len(event) > limit:
            break
        expected += event
    splitter = SseSplitter(limit)
    out = b""
    try:
        for piece in cut(b"".join(all_events), positions):
            out += splitter.feed(piece)
    except EventTooLarge as error:
        assert max(map(len, all_events)) > limit
        out += error.before
    else:
        assert max(map(len, all_events)) <= limit
    assert out == expected


@pytest.mark.parametrize("filler", [b"x" * 50, b"data: x\n" * 6, b"x" * 49 + b"\r", b"data: x\r\n" * 5 + b"data\r"])
def test_a_large_event_in_small_reads_costs_no_more_than_its_size(
    filler: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte is looked at about once; looking at everything again with each read would be 1200 times as much."""
    looked = 0

    class Counting:
        """What looks for boundaries, and how much of the buffer it looks at."""

        def finditer(self, buffer: bytearray, start: int) -> Iterator[re.Match[bytes]]:
            nonlocal looked
            looked += len(buffer) - start
            return BOUNDARY.finditer(buffer, start)

    monkeypatch.setattr("edge.protocol.sse.BOUNDARY", Counting())
    splitter = SseSplitter(2**30)
    for _ in range(2400):
        splitter.feed(filler)
    assert len(splitter.held) == 2400 * len(filler)
    assert 2400 * len(filler) <= looked < 2 * 2400 * len(filler)


def only(stream: bytes) -> Event:
    (event,) = events(stream)
    return event


@pytest.mark.parametrize(
    "stream",
    [
        b"data: a\n\n",
        b"data:a\r\n\r\n",
        b"event: e\rdata: a\r\r",
        b"event:e\ndata: a\ndata: b\n\n",
        b"x: y\ndata: a\n\n",
    ],
)
def test_an_event_keeps_its_bytes(stream: bytes) -> None:
    assert only(stream).raw == stream


@pytest.mark.parametrize(
    ("stream", "raw"),
    [
        (b": c\ndata: a\n\n", b"data: a\n\n"),
        (b"id: 1\nevent: e\ndata: a\n\n", b"event: e\ndata: a\n\n"),
        (b"event: e\r\nretry: 5\r\ndata: a\r\nid\r\n\r\n", b"event: e\ndata: a\n\n"),
        (b"\n\ndata: a\n\n\n\n", b"data: a\n\n"),
        (b"data: a\r\n\r\n\n", b"data: a\r\n\r\n"),
        (b"data: a", b"data: a\n\n"),
        (b"data: a\n", b"data: a\n\n"),
    ],
)
def test_what_is_dropped_from_an_event(stream: bytes, raw: bytes) -> None:
    """Comments, ids, retry times and stray blank lines; nothing else."""
    assert only(stream).raw == raw


@pytest.mark.parametrize(
    "stream", [b"", b"\n\n", b": ping\n\n", b"event: e\n\n", b"id: 1\nretry: 2\n\n", b"datax: 1\n\n"]
)
def test_blocks_without_data_vanish(stream: bytes) -> None:
    """The official OpenAI client would take some of them for an event with empty data."""
    assert list(events(stream)) == []


def test_the_space_after_the_colon_is_optional_and_only_one() -> None:
    assert [only(b"event:e\ndata:a\n\n"), only(b"event:  e\ndata:  a\n\n")] == [
        Event("e", b"a", b"event:e\ndata:a\n\n", 16),
        Event(" e", b" a", b"event:  e\ndata:  a\n\n", 20),
    ]


@unhurried
@given(st.text())
def test_an_encoded_event_is_one_line(text: str) -> None:
    encoded = encode({"text": text}, "e")
    assert (encoded.count(b"\n"), encoded.count(b"\r")) == (3, 0)
    assert orjson.loads(only(encoded).data) == {"text": text}


def test_the_heartbeat_is_no_event_and_done_is_one() -> None:
    assert list(events(COMMENT_HEARTBEAT)) == []
    assert only(DONE).data == b"[DONE]"
