"""Numbers on events: each gets its own, wherever a run was cut; and where the first so many end is where they end."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.eventsource import parsed
from support.streams import FORGERIES, codec_for, cut, cuts, goldens, read, unhurried

from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import EventIds, LineCount, is_stream, numbering, parse_cursor
from edge.protocol.ollama.ndjson import encode_line
from edge.protocol.sse import COMMENT_HEARTBEAT, SSE_TYPE, SseSplitter, encode
from edge.protocol.surface import Surface

STREAM = "st_" + "0f" * 16
_IDS = re.compile(rb"^id: st_[0-9a-f]{32}:[0-9]+\n", re.MULTILINE)

texts = st.one_of(st.text(max_size=20), st.sampled_from(FORGERIES))
names = st.sampled_from([None, "message", "error", "response.output_text.delta"])
blocks = st.builds(lambda text, name: encode({"t": text}, name), texts, names)
mixed = st.lists(st.tuples(blocks, st.booleans()), min_size=1, max_size=8).map(
    lambda found: [block.replace(b"\n", b"\r\n") if crlf else block for block, crlf in found]
)
ndjson = st.lists(st.builds(lambda text: encode_line({"t": text}), texts), min_size=1, max_size=8)


def runs(events: list[bytes], edges: list[int]) -> Iterator[list[bytes]]:
    """The events, cut into runs of whole ones."""
    inner = sorted({0, *(edge % len(events) for edge in edges), len(events)})
    return (events[start:end] for start, end in pairwise(inner))


@unhurried
@given(events=mixed, edges=cuts, last=st.integers(0, 1000))
def test_each_event_has_its_number_however_they_come(events: list[bytes], edges: list[int], last: int) -> None:
    ids = EventIds(STREAM, last)
    told = b"".join(ids.number(b"".join(run)) for run in runs(events, edges))
    assert [event.id for event in parsed(told).events] == [f"{STREAM}:{last + n + 1}" for n in range(len(events))]
    assert _IDS.sub(b"", told) == b"".join(events)


@unhurried
@given(events=st.one_of(mixed), count=st.integers(0, 10))
def test_the_first_of_them_end_where_they_end(events: list[bytes], count: int) -> None:
    assert EventIds.cut(b"".join(events), count) == len(b"".join(events[:count]))


@unhurried
@given(events=ndjson, count=st.integers(0, 10), edges=cuts)
def test_lines_keep_their_bytes_and_are_counted(events: list[bytes], count: int, edges: list[int]) -> None:
    lines = LineCount()
    assert b"".join(lines.number(b"".join(run)) for run in runs(events, edges)) == b"".join(events)
    assert LineCount.cut(b"".join(events), count) == len(b"".join(events[:count]))


@unhurried
@given(events=mixed, positions=cuts)
def test_cut_by_the_network_they_are_numbered_alike(events: list[bytes], positions: list[int]) -> None:
    splitter, ids = SseSplitter(2**20), EventIds(STREAM)
    told = b"".join(ids.number(run) for piece in cut(b"".join(events), positions) if (run := splitter.feed(piece)))
    assert splitter.rest() == b""
    assert _IDS.sub(b"", told) == b"".join(events)
    assert len(parsed(told).events) == len(events)
    assert parsed(told).last_id == f"{STREAM}:{len(events)}"


@pytest.mark.parametrize("path", goldens("chat", "completions", "messages", "responses"), ids=lambda path: path.stem)
@pytest.mark.parametrize("every", [1, 7, 100, 10**9])
def test_what_a_codec_counts_is_what_is_numbered(path: Path, every: int) -> None:
    """Of recorded streams, on their own surface and on those that they are translated to."""
    surface = Surface(path.stem.split("_")[0])
    data = path.read_bytes()
    done = read(codec_for(surface), [data[at : at + every] for at in range(0, len(data), every)])
    told = EventIds(STREAM).number(done.data) if done.data else b""
    assert len(parsed(told).events) == len(_IDS.findall(told)) == done.events


def test_heartbeats_have_no_number_and_no_blank_line_after_a_comment() -> None:
    ids, lines = EventIds(STREAM), LineCount()
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    assert ids.safe(COMMENT_HEARTBEAT) == b": ping\n"
    assert ids.safe(ping) == ping
    assert lines.safe(b'{"done":false}\n') == b'{"done":false,"heartbeat":true}\n'
    assert lines.safe(b"") == ids.safe(b"") == b""
    event = encode({"error": "x"}, "error")
    assert ids.aside(event) == event
    assert lines.aside(b'{"error":"x"}\n') == b""


@pytest.mark.parametrize(
    "text",
    [
        "",
        STREAM,
        f"{STREAM}:",
        f"{STREAM}:x",
        f"{STREAM}:01",
        f"{STREAM}:-1",
        f"{STREAM}:1\n",
        f"{STREAM}: 1",
        f"{STREAM}:{10**17}",
        f"ST_{STREAM[3:]}:1",
        f"{STREAM}:1:1",
        f"{STREAM}:\u0661",
    ],
)
def test_what_is_no_cursor_is_none(text: str) -> None:
    assert parse_cursor(text) is None


@given(sequence=st.integers(0, 10**16 - 1))
def test_a_number_is_read_as_it_is_written(sequence: int) -> None:
    assert parse_cursor(f"{STREAM}:{sequence}") == (STREAM, sequence)


def test_an_id_is_recognised() -> None:
    assert is_stream(STREAM)
    assert not any(map(is_stream, ("", "st_", STREAM + "0", STREAM[:-1], STREAM.upper(), f"{STREAM}\n")))


def test_each_surface_is_numbered_in_its_way() -> None:
    for surface, dialect in DIALECTS.items():
        lines = dialect.stream_type == "application/x-ndjson"
        assert lines == surface.startswith("ollama")
        assert isinstance(numbering(dialect.stream_type, STREAM), LineCount if lines else EventIds)
    assert isinstance(numbering(SSE_TYPE, STREAM), EventIds)
