"""Heartbeats that clients' own watchdogs count: what goes out in a long silence, and what follows has to agree."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from fakes.answers import messages_events, responses_body, responses_event, responses_events
from support.scene import Scene
from support.streams import codec_for

from edge.errors import UpstreamCut
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.dialect import Dialect
from edge.protocol.dialects import DIALECTS
from edge.protocol.sse import events
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Opened

Json = dict[str, Any]
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
RESPONSES, MESSAGES = Surface.RESPONSES, Surface.MESSAGES
WORDS = ["tok"]


def beat(dialect: Dialect, before: bytes, *, lively: bool) -> bytes:
    own = dialect.format("m", "req_1")
    own.before = before
    return own.heartbeat(lively=lively)


@pytest.fixture
async def play() -> AsyncIterator[Callable[..., Any]]:
    """Begin a scene."""
    scenes: list[Scene] = []

    async def begin(surface: Surface, **more: Any) -> Scene:
        scene = Scene(surface=surface, heartbeat_s=20, first_token_s=10_000, inter_token_s=10_000, **more)
        scenes.append(scene)
        await scene.begin()
        return scene

    yield begin
    for scene in scenes:
        scene.task.cancel()


def told(scene: Scene) -> list[Json]:
    """Payloads of all that went out; comments have none."""
    return [orjson.loads(event.data) for event in events(b"".join(scene.connection.written))]


def kinds(scene: Scene) -> list[str]:
    return [payload["type"] for payload in told(scene)]


async def silence(scene: Scene, seconds: int) -> None:
    """The ticker looks every ten seconds."""
    for _ in range(seconds // 10):
        await scene.after(10)


# --- Responses --------------------------------------------------------------------------------------------------------


async def test_edges_own_response_begins_with_the_status_and_is_kept_alive(play: Callable[..., Any]) -> None:
    scene = await play(RESPONSES)
    await silence(scene, 60)
    created, *beats = told(scene)
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert (created["response"]["id"], created["response"]["status"]) == ("resp_1", "in_progress")
    assert beats == [{"type": "keepalive", "sequence_number": 0}] * 2


async def test_the_upstreams_own_goes_out_if_it_has_come(play: Callable[..., Any]) -> None:
    scene = await play(RESPONSES)
    stream = responses_events(WORDS)
    await scene.token(b"".join(stream[:2]))
    await silence(scene, 10)
    assert scene.connection.written == [stream[0]]
    await silence(scene, 30)
    later = b"".join(stream[1:])
    await scene.token(b"".join(stream[2:]))
    await scene.end()
    assert kinds(scene) == ["response.created", "keepalive", *[event.event for event in events(later)]]
    assert b"".join(scene.connection.written).endswith(later)  # its bytes


async def test_what_comes_later_is_merged_into_edges_own(play: Callable[..., Any]) -> None:
    scene = await play(RESPONSES)
    await silence(scene, 10)
    stream = responses_events(WORDS)
    for event in stream:
        await scene.token(event)
    await scene.end()
    sent = told(scene)
    assert [payload["sequence_number"] for payload in sent] == list(range(len(stream)))
    assert {payload["response"]["id"] for payload in sent if "response" in payload} == {"resp_1"}
    assert len({payload["response"]["created_at"] for payload in sent if "response" in payload}) == 1
    assert kinds(scene)[-1] == "response.completed"
    assert stream[4] in b"".join(scene.connection.written)  # a token keeps its bytes


async def test_the_first_identity_holds_over_failover(play: Callable[..., Any]) -> None:
    scene = await play(RESPONSES)
    scene.others = 1
    first, second = responses_events(["a"]), responses_events(["b"])
    await scene.token(first[0])
    await silence(scene, 10)
    await scene.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    other = b"".join(second).replace(b"resp_fake", b"resp_other").replace(b'"created_at":', b'"created_at":1')
    await scene.token(other)
    await scene.end()
    sent = told(scene)
    theirs = orjson.loads(next(events(first[0])).data)["response"]
    assert [payload["sequence_number"] for payload in sent] == list(range(len(second)))
    named = {(p["response"]["id"], p["response"]["created_at"]) for p in sent if "response" in p}
    assert named == {(theirs["id"], theirs["created_at"])}


async def test_a_failure_after_it_has_the_numbers_that_follow(play: Callable[..., Any]) -> None:
    scene = await play(RESPONSES, closes=True)
    await silence(scene, 40)
    await scene.token(b"".join(responses_events(WORDS)[:3]))  # held, and never seen by the client
    await scene.end(LifecycleEvent.CUT, UpstreamCut("it was cut"))
    *_, beat, error, failed = told(scene)
    assert (beat["type"], error["type"], failed["type"]) == ("keepalive", "error", "response.failed")
    assert (error["sequence_number"], failed["sequence_number"]) == (1, 2)
    assert failed["response"] | {"created_at": 0} == {
        **told(scene)[0]["response"],
        "created_at": 0,
        "status": "failed",
        "error": {"code": "server_error", "message": "it was cut"},
    }
    assert scene.connection.ended == "finished"


def test_a_server_that_begins_with_another_number_is_numbered_anew() -> None:
    codec = codec_for(RESPONSES)
    codec.begun(Opened("resp_1", 7, "m"))
    plan = [
        ("response.created", {"response": responses_body(None)}),
        ("response.in_progress", {"response": responses_body(None)}),
        ("response.output_text.delta", {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "a"}),
        ("response.output_text.delta", {"item_id": "i", "output_index": 0, "content_index": 0, "delta": "b"}),
        ("response.completed", {"response": responses_body("ab")}),
    ]
    data = b"".join(codec.feed(responses_event(kind, 5 + n, **more)).data for n, (kind, more) in enumerate(plan))
    sent = [orjson.loads(event.data) for event in events(data)]
    assert [payload["sequence_number"] for payload in sent] == [1, 2, 3, 4]
    assert [payload.get("delta") for payload in sent] == [None, "a", "b", None]
    assert {payload["response"]["id"] for payload in sent if "response" in payload} == {"resp_1"}


# --- Messages ---------------------------------------------------------------------------------------------------------


def no_change(payload: Json) -> bool:
    return payload["type"] == "message_delta" and payload["delta"] == {"stop_reason": None, "stop_sequence": None}


async def test_before_the_answer_a_message_begins_after_100_s_and_then_shows_work(play: Callable[..., Any]) -> None:
    scene = await play(MESSAGES)
    await silence(scene, 10 + 90)
    assert set(kinds(scene)) == {"ping"}
    await silence(scene, 20)
    *pings, start = told(scene)
    assert (start["type"], start["message"]["id"], start["message"]["content"]) == ("message_start", "msg_1", [])
    await silence(scene, 400)
    later = told(scene)[len(pings) + 1 :]
    assert [no_change(payload) for payload in later] == [False, False, False, False, True] * 4
    assert all(payload["type"] == "ping" or no_change(payload) for payload in later)


async def test_the_upstreams_message_start_is_merged_into_edges_own(play: Callable[..., Any]) -> None:
    scene = await play(MESSAGES)
    await silence(scene, 120)
    stream = messages_events(WORDS)
    usage = orjson.loads(next(events(stream[0])).data)["message"]["usage"]
    before = len(told(scene))
    await scene.token(b"".join(stream))
    await scene.end()
    merged, *rest = told(scene)[before:]
    assert no_change(merged)
    assert merged["usage"] == usage  # what the prompt took is not lost
    assert [payload["type"] for payload in rest] == [
        orjson.loads(event.data)["type"] for event in events(b"".join(stream[1:])) if event.event != "ping"
    ]
    assert kinds(scene).count("message_start") == 1


DELTAS = {
    "text": {"type": "text_delta", "text": ""},
    "thinking": {"type": "thinking_delta", "thinking": ""},
    "tool_use": {"type": "input_json_delta", "partial_json": ""},
}
FULL = {
    "text": {"type": "text_delta", "text": "tok"},
    "thinking": {"type": "thinking_delta", "thinking": "hm"},
    "tool_use": {"type": "input_json_delta", "partial_json": "{"},
}


def message_event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **fields}))


@pytest.mark.parametrize("block", DELTAS)
async def test_in_an_open_block_its_own_empty_delta_goes_out(play: Callable[..., Any], block: str) -> None:
    scene = await play(MESSAGES)
    start = messages_events(WORDS)[0]
    opened = message_event("content_block_start", index=3, content_block={"type": block})
    await scene.token(start + opened + message_event("content_block_delta", index=3, delta=FULL[block]))
    await silence(scene, 220)
    beats = [payload for payload in told(scene)[3:] if payload["type"] != "ping"]
    assert beats == [{"type": "content_block_delta", "index": 3, "delta": DELTAS[block]}] * 2
    await scene.token(message_event("content_block_stop", index=3))
    await silence(scene, 110)
    assert no_change(told(scene)[-1]) or no_change(told(scene)[-2])


@pytest.mark.parametrize("block", DELTAS)
def test_a_resumed_reader_gets_the_same_from_the_last_event_it_has(block: str) -> None:
    dialect = DIALECTS[MESSAGES]
    assert beat(dialect, b"", lively=True) == PING
    begun = message_event("content_block_start", index=3, content_block={"type": block})
    delta = message_event("content_block_delta", index=3, delta=FULL[block])
    for before in (begun, begun + delta):
        assert beat(dialect, before, lively=False) == PING
        (event,) = events(beat(dialect, before, lively=True))
        assert orjson.loads(event.data) == {"type": "content_block_delta", "index": 3, "delta": DELTAS[block]}
    (event,) = events(beat(dialect, begun + message_event("content_block_stop", index=3), lively=True))
    assert no_change(orjson.loads(event.data))


# --- the others -------------------------------------------------------------------------------------------------------


async def test_chat_gets_comments_however_long(play: Callable[..., Any]) -> None:
    scene = await play(Surface.CHAT)
    await silence(scene, 600)
    assert set(scene.connection.written) == {b": ping\n\n"}


# --- after an error ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closes", [True, False])
async def test_a_clean_end_follows_only_where_the_client_may_have_one(
    play: Callable[..., Any], *, closes: bool
) -> None:
    scene = await play(Surface.CHAT, closes=closes)
    await scene.token()
    await scene.end(LifecycleEvent.CUT, UpstreamCut("it was cut"))
    assert b"it was cut" in scene.connection.written[-1]
    assert b"[DONE]" not in b"".join(scene.connection.written)
    assert scene.connection.ended == ("finished" if closes else "aborted")


async def test_no_clean_end_before_the_error_has_left(play: Callable[..., Any]) -> None:
    scene = await play(Surface.CHAT, closes=True)
    await scene.token()
    scene.connection.acknowledges = False
    await scene.end(LifecycleEvent.CUT, UpstreamCut("it was cut"))
    await scene.task
    assert scene.connection.ended == "aborted"


async def test_nor_over_http_10(play: Callable[..., Any]) -> None:
    scene = await play(Surface.CHAT, closes=True)
    scene.connection.http10 = True
    await scene.token()
    await scene.end(LifecycleEvent.CUT, UpstreamCut("it was cut"))
    assert scene.connection.ended == "aborted"
