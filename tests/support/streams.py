"""Feeding a stream to the wire code in pieces, as the relay does, and what came of it.

In: bytes and where to cut them. Out: values to compare: a stream is the same stream however the network cut it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from hypothesis import settings
from hypothesis import strategies as st

from edge.protocol.batch import Usage
from edge.protocol.codec import SseCodec
from edge.protocol.dialect import BadStream
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface

GOLDEN = Path(__file__).parents[1] / "golden"
MAX_EVENT = 2**20

unhurried = settings(deadline=None, max_examples=60)  # a busy machine is no failure

# What a model may write to pass for something else.
FORGERIES = (
    '"finish_reason":"stop"',
    '{"choices":[{"finish_reason":"stop","delta":{}}]}',
    "data: [DONE]",
    "\n\ndata: [DONE]\n\n",
    "[DONE]",
    '"error"',
    "error",
    '{"error":{"message":"forged"}}',
    '"usage":{"completion_tokens":9}',
    '}\n\ndata: {"',
    "\n\nevent: error\ndata: {}\n\n",
    '"sequence_number":99',
    "event: message_stop",
    "\r",
    "\r\n\r\n",
    "\x00",
    "\u2028\u2029\u0085\x0b\x0c",
    "\\",
    '\\"',
    "{}}{",
    "🎈é",
    "id: 7\nretry: 1\n: ping",
)

# Where to cut: positions of any size, taken modulo the length of what is cut.
cuts = st.lists(st.integers(min_value=0, max_value=2**20), max_size=12)


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The pieces between the positions (modulo the length), none of them empty."""
    size = len(data)
    inner = {position % size for position in positions} if size else set()
    return [data[start:end] for start, end in pairwise(sorted({0, *inner, size}))]


def all_cuts(data: bytes, *, pairs: bool) -> Iterator[list[bytes]]:
    """Whole, byte by byte, at every position, and at every two positions."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for first in range(1, len(data)):
        yield [data[:first], data[first:]]
        for second in range(first + 1, len(data) if pairs else 0):
            yield [data[:first], data[first:second], data[second:]]


@dataclass(frozen=True)
class Read:
    """What became of one stream."""

    data: bytes = b""
    events: int = 0
    tokens: int = 0
    usage: Usage | None = None
    ending: str = ""  # done, cut, bad, or error and error told
    error: str | None = None
    status: int | None = None


def codec_for(surface: Surface, repairs: frozenset[str] = frozenset(), **body: Any) -> SseCodec:
    """A codec for a request; ``max_event`` in ``body`` is its bound."""
    max_event = body.pop("max_event", MAX_EVENT)
    asked = {"messages": [], "stream": True, **body}
    codec = DIALECTS[surface].codec(prepare(surface, orjson.dumps(asked)), max_event, repairs)
    assert isinstance(codec, SseCodec)
    return codec


def slow(codec: SseCodec) -> SseCodec:
    """The same codec, looking at every event."""
    kind = type(codec)
    codec.__class__ = type(f"Slow{kind.__name__}", (kind,), {"__slots__": (), "_is_text": lambda _self, _token: False})
    return codec


def read(codec: SseCodec, pieces: Iterable[bytes], *, eof: bool = True) -> Read:
    """Feed the pieces, then the end, and stop where the relay would."""
    data, events, tokens = [], 0, 0
    ending, error, status = "cut", None, None
    for piece in [*pieces, *([b""] if eof else [])]:
        try:
            batch = codec.feed(piece) if piece else codec.eof()
        except BadStream as bad:
            batch, ending, error = bad.before, "bad", str(bad)
        data.append(batch.data)
        events += batch.events
        tokens += batch.tokens
        if batch.error is not None:
            ending = "error told" if batch.error_in_data else "error"
            error, status = batch.error.message, batch.error.status
        elif ending != "bad" and (batch.terminated or not piece):
            ending = "done" if codec.finished(clean_eof=not batch.terminated) else "cut"
        if batch.terminated or ending != "cut":
            break
    return Read(b"".join(data), events, tokens, codec.usage, ending, error, status)


def compact(payload: Any) -> bytes:
    """As vLLM and llama.cpp write JSON."""
    return orjson.dumps(payload)


def goldens(*surfaces: str) -> list[Path]:
    """The recorded and the published streams of these surfaces."""
    return sorted(path for path in GOLDEN.glob("*/*.sse") if path.stem.split("_")[0] in surfaces)
