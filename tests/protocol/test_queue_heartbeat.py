"""The heartbeat of a request that waits, on each surface."""

import pytest

from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import numbering
from edge.protocol.responses.format import created_event, keepalive
from edge.protocol.sse import SSE_TYPE, events
from edge.protocol.surface import GENERATING, OLLAMA, UPLOADS, Surface
from edge.protocol.surface_format import Opened, SurfaceFormat

CREATED = created_event(Opened("resp_1", 1, "m"))


def format_of(surface: Surface, before: bytes = b"") -> SurfaceFormat:
    own = DIALECTS[surface].format("m", "req_1")
    own.before = before
    return own


def queued(surface: Surface, position: int, estimate_s: float | None, before: bytes = b"") -> bytes:
    return format_of(surface, before).queued_heartbeat(position, estimate_s, lively=False)


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.COMPLETIONS, Surface.RESPONSES, Surface.TRANSCRIPTIONS])
def test_where_heartbeats_are_comments_it_tells_the_place(surface: Surface) -> None:
    assert queued(surface, 3, 11.2) == b": queued 3, about 12 s\n\n"
    assert queued(surface, 3, None) == b": queued 3\n\n"


def test_an_event_that_clients_count_has_the_place_in_it() -> None:
    beat = queued(Surface.RESPONSES, 3, 11.2, CREATED)
    assert beat == keepalive(0)[:-1] + b": queued 3, about 12 s\n\n"
    (event,) = events(beat)
    assert (event.event, event.data) == ("keepalive", b'{"type":"keepalive","sequence_number":0}')
    assert numbering(SSE_TYPE, "st_" + "0" * 32).safe(beat) == beat


def test_it_is_one_line_where_events_have_ids() -> None:
    ids = numbering(SSE_TYPE, "st_" + "0" * 32)
    assert ids.safe(queued(Surface.SESSION, 1, 0.0)) == b": queued 1, about 1 s\n"
    ping = queued(Surface.MESSAGES, 2, None)
    assert ids.safe(ping) == ping


@pytest.mark.parametrize("surface", [Surface.MESSAGES, *sorted(OLLAMA)])
def test_messages_and_ollama_have_their_own(surface: Surface) -> None:
    own = format_of(surface)
    beat = own.heartbeat(lively=False)
    assert own.queued(beat, b": queued 3\n\n") == beat


@pytest.mark.parametrize("surface", sorted((GENERATING | UPLOADS) - {Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE}))
def test_it_is_never_a_piece_of_the_answer(surface: Surface) -> None:
    names = [event.event for event in events(queued(surface, 3, 1.0) + b"\n")]
    assert names == (["ping"] if surface is Surface.MESSAGES else [])


def test_a_number_is_all_it_takes() -> None:
    assert queued(Surface.CHAT, 10_000, 86_400.4) == b": queued 10000, about 86401 s\n\n"
