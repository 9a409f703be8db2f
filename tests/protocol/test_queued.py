"""The heartbeat of a request that waits, on each surface."""

import json

import pytest

from edge.protocol.numbering import numbering
from edge.protocol.queued import comment, heartbeat
from edge.protocol.sse import SSE_TYPE, events
from edge.protocol.surface import GENERATING, UPLOADS, Surface


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.COMPLETIONS, Surface.RESPONSES, Surface.TRANSCRIPTIONS])
def test_where_heartbeats_are_comments_it_tells_the_place(surface: Surface) -> None:
    assert heartbeat(surface, "m", 3, 11.2) == b": queued 3, about 12 s\n\n"
    assert heartbeat(surface, "m", 3, None) == b": queued 3\n\n"


def test_it_is_one_line_where_events_have_ids() -> None:
    ids = numbering(SSE_TYPE, "st_" + "0" * 32)
    assert ids.safe(heartbeat(Surface.SESSION, "m", 1, 0.0)) == b": queued 1, about 1 s\n"
    assert ids.safe(heartbeat(Surface.MESSAGES, "m", 2, None)) == heartbeat(Surface.MESSAGES, "m", 2, None)


def test_messages_and_ollama_have_their_own() -> None:
    assert heartbeat(Surface.MESSAGES, "m", 3, 1.0) == b'event: ping\ndata: {"type":"ping"}\n\n'
    for surface, field in ((Surface.OLLAMA_CHAT, "message"), (Surface.OLLAMA_GENERATE, "response")):
        line = heartbeat(surface, "m", 3, 1.0)
        told = json.loads(line)
        assert line.endswith(b"\n")
        assert (told["model"], told["done"], field in told) == ("m", False, True)


@pytest.mark.parametrize("surface", sorted((GENERATING | UPLOADS) - {Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE}))
def test_it_is_never_a_piece_of_the_answer(surface: Surface) -> None:
    told = [event.event for event in events(heartbeat(surface, None, 3, 1.0) + b"\n")]
    assert told == (["ping"] if surface is Surface.MESSAGES else [])


def test_a_number_is_all_it_takes() -> None:
    assert comment(10_000, 86_400.4) == b": queued 10000, about 86401 s\n\n"
