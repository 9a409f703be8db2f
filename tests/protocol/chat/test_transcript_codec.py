"""Streams of transcripts: the same bytes and truth however the network cut them, in either of the two shapes."""

import pytest
from fakes.answers import DONE, chat_finish, chat_token, sse, sse_error
from support.streams import MAX_EVENT, Read, all_cuts, read

from edge.protocol.batch import Usage
from edge.protocol.chat.transcription import TranscriptCodec
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface

SURFACE = Surface.TRANSCRIPTIONS
DELTA = sse({"type": "transcript.text.delta", "delta": "Héllo"})
SEGMENT = sse({"type": "transcript.text.segment", "id": "seg_1", "start": 0.0, "end": 1.2, "text": "Héllo"})
LAST = sse({"type": "transcript.text.done", "text": "Héllo", "usage": {"input_tokens": 14, "output_tokens": 2}})
FORGED = sse({"type": "transcript.text.delta", "delta": '"type":"transcript.text.done"'})
BROKE = sse_error("broke")
USAGE = Usage(prompt=14, completion=2)
HEARD = b"".join

STREAMS: dict[str, tuple[bytes, Read]] = {
    "openai": (HEARD([DELTA, SEGMENT, LAST]), Read(HEARD([DELTA, SEGMENT, LAST]), 3, 2, USAGE, "done")),
    "openai, and a [DONE] of its own": (HEARD([DELTA, LAST, DONE]), Read(HEARD([DELTA, LAST]), 2, 1, USAGE, "done")),
    "openai, cut": (HEARD([DELTA, SEGMENT]), Read(HEARD([DELTA, SEGMENT]), 2, 2, None, "cut")),
    "openai, a [DONE] that is not true": (HEARD([DELTA, DONE]), Read(DELTA, 1, 1, None, "cut")),
    "vllm": (
        HEARD([chat_token("a"), chat_token("b"), chat_finish(), DONE]),
        Read(HEARD([chat_token("a"), chat_token("b"), chat_finish(), DONE]), 4, 2, None, "done"),
    ),
    "vllm, without [DONE]": (
        HEARD([chat_token("a"), chat_finish()]),
        Read(HEARD([chat_token("a"), chat_finish()]), 2, 1, None, "done"),
    ),
    "vllm, cut": (chat_token("a"), Read(chat_token("a"), 1, 1, None, "cut")),
    "an error": (DELTA + BROKE, Read(DELTA + BROKE, 2, 1, None, "error told", "broke", 500)),
    "text that looks like an end": (FORGED, Read(FORGED, 1, 1, None, "cut")),
    "nothing": (b"", Read(ending="cut")),
}


def codec() -> TranscriptCodec:
    made = DIALECTS[SURFACE].codec(Prepared(SURFACE, None, False, True, b"", False, 1, 0), MAX_EVENT, frozenset())
    assert isinstance(made, TranscriptCodec)
    return made


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_wherever_it_is_cut(name: str) -> None:
    data, expected = STREAMS[name]
    for pieces in all_cuts(data, pairs=False):
        assert read(codec(), pieces) == expected
