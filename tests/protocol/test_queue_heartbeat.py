"""The heartbeat of a request that waits, on each surface."""

import pytest

from edge.protocol.dialects import DIALECTS
from edge.protocol.event_ids import numbering
from edge.protocol.queue_heartbeat import comment, heartbeat
from edge.protocol.responses.format import created_event, keepalive
from edge.protocol.sse import SSE_TYPE, events
from edge.protocol.surface import GENERATING, OLLAMA, UPLOADS, Surface
from edge.protocol.surface_format import Opened

CREATED = created_event(Opened("resp_1", 1, "m"))


def beat(surface: Surface, before: bytes = b"") -> bytes:
    """What would go out without a queue."""
    own = DIALECTS[surface].format("m", "req_1")
    own.before = before
    return own.heartbeat(lively=False)


@pytest.mark.parametrize("surface", [Surface.CHAT, Surface.COMPLETIONS, Surface.RESPONSES, Surface.TRANSCRIPTIONS])
def test_where_heartbeats_are_comments_it_tells_the_place(surface: Surface) -> None:
    assert heartbeat(beat(surface), 3, 11.2) == b": queued 3, about 12 s\n\n"
    assert heartbeat(beat(surface), 3, None) == b": queued 3\n\n"


def test_an_event_that_clients_count_has_the_place_in_it() -> None:
    told = heartbeat(beat(Surface.RESPONSES, CREATED), 3, 11.2)
    assert told == keepalive(0)[:-1] + b": queued 3, about 12 s\n\n"
    (event,) = events(told)
    assert (event.event, event.data) == ("keepalive", b'{"type":"keepalive","sequence_number":0}')
    assert numbering(SSE_TYPE, "st_" + "0" * 32).safe(told) == told


def test_it_is_one_line_where_events_have_ids() -> None:
    ids = numbering(SSE_TYPE, "st_" + "0" * 32)
    assert ids.safe(heartbeat(beat(Surface.SESSION), 1, 0.0)) == b": queued 1, about 1 s\n"
    ping = heartbeat(beat(Surface.MESSAGES), 2, None)
    assert ids.safe(ping) == ping


@pytest.mark.parametrize("surface", [Surface.MESSAGES, *sorted(OLLAMA)])
def test_messages_and_ollama_have_their_own(surface: Surface) -> None:
    mine = beat(surface)
    assert heartbeat(mine, 3, 1.0) == mine


@pytest.mark.parametrize("surface", sorted((GENERATING | UPLOADS) - {Surface.OLLAMA_CHAT, Surface.OLLAMA_GENERATE}))
def test_it_is_never_a_piece_of_the_answer(surface: Surface) -> None:
    told = [event.event for event in events(heartbeat(beat(surface), 3, 1.0) + b"\n")]
    assert told == (["ping"] if surface is Surface.MESSAGES else [])


def test_a_number_is_all_it_takes() -> None:
    assert comment(10_000, 86_400.4) == b": queued 10000, about 86401 s\n\n"
