"""A reader's clocks and its one end, with a clock and a connection that the test moves by hand."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from support.scene import DONE, PING, TOKEN, Breaks, Keeps, Scene

from edge.errors import InternalError, UpstreamCut, UpstreamSaid
from edge.policy.lifecycle import LifecycleEvent, Outcome, ReaderState
from edge.protocol.batch import Batch


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    await scene.begin()
    yield scene
    scene.task.cancel()
    await asyncio.wait([scene.task])


# The status


async def test_the_status_is_held_until_a_token(scene: Scene) -> None:
    scene.sink.feed(Batch(b"data: prelude\n\n", 1, 0))
    await scene.after(9.9)
    assert scene.reader.state is ReaderState.HELD
    await scene.token()
    assert (scene.reader.state, scene.reader.status) == (ReaderState.OPEN, 200)
    assert b"".join(scene.connection.written) == b"data: prelude\n\n" + TOKEN


async def test_the_status_goes_out_at_the_deadline_and_then_only_heartbeats(scene: Scene) -> None:
    scene.sink.feed(Batch(b"data: prelude\n\n", 1, 0))
    await scene.after(10)
    assert (scene.reader.state, scene.connection.written) == (ReaderState.OPEN, [])
    await scene.after(10)
    assert scene.connection.written == [PING]
    assert not scene.generation.handed_over


async def test_a_failure_before_the_status_is_raised_for_the_caller_to_answer(scene: Scene) -> None:
    await scene.end(LifecycleEvent.CUT, UpstreamCut("gone"))
    with pytest.raises(UpstreamCut):
        await scene.task
    assert (scene.reader.state, scene.reader.status, scene.reader.gone) == (ReaderState.CLOSED, 502, False)
    assert (scene.connection.written, scene.connection.ended) == ([], None)


# Heartbeats


async def test_a_heartbeat_goes_out_in_every_silence_of_that_length(scene: Scene) -> None:
    await scene.token()
    await scene.after(0)
    for expected in (0, 1, 1, 2):
        await scene.after(5)
        assert scene.reader.heartbeats == expected
    assert scene.connection.written == [TOKEN, PING, PING]


async def test_bytes_put_the_heartbeat_off(scene: Scene) -> None:
    for _ in range(5):
        await scene.token()
        await scene.after(9)
    assert scene.reader.heartbeats == 0


async def test_no_heartbeat_while_bytes_are_pending(scene: Scene) -> None:
    scene.connection.window = 10
    await scene.token()
    await scene.after(30)
    assert scene.connection.written == [TOKEN]
    scene.connection.take(len(TOKEN))
    await scene.settle()
    await scene.after(10)
    await scene.after(10)
    assert scene.connection.written[:2] == [TOKEN, PING]


# The stall clock


async def test_a_reader_that_takes_nothing_is_cut_after_the_limit_and_not_before(scene: Scene) -> None:
    scene.connection.window = 10
    await scene.token()
    await scene.after(1)  # from here on nothing moves
    await scene.after(60)
    assert not scene.reader.stalled
    await scene.after(0.1)
    assert (scene.reader.stalled, scene.reader.closed, scene.connection.ended) == (True, True, "aborted")
    assert (scene.generation.outcome, scene.model.aborted) == (Outcome.CLIENT_STALL, True)


async def test_every_byte_taken_puts_the_cut_off(scene: Scene) -> None:
    scene.connection.window = 10
    await scene.token()
    for _ in range(20):
        await scene.after(59)
        scene.connection.take(1)
    assert scene.reader.state is ReaderState.OPEN


async def test_a_reader_with_nothing_pending_has_all_the_time(scene: Scene) -> None:
    await scene.token()
    await scene.after(1000)
    scene.connection.window = scene.connection.bytes_out
    await scene.token()
    await scene.after(59)
    assert scene.reader.state is ReaderState.OPEN


async def test_the_last_bytes_are_under_the_same_clock(scene: Scene) -> None:
    await scene.token()
    scene.connection.window = scene.connection.bytes_out
    await scene.end()
    assert scene.reader.blocked
    await scene.after(1)
    await scene.after(61)
    assert (scene.reader.state, scene.reader.stalled) == (ReaderState.CLOSED, True)
    assert scene.generation.outcome is Outcome.COMPLETE


async def test_its_lag_is_reported_at_its_peak(scene: Scene) -> None:
    scene.connection.window = 10
    for _ in range(5):
        await scene.token()
    scene.connection.take(1 << 30)
    await scene.settle()
    assert scene.reader.peak_pending == 5 * len(TOKEN) - 10
    assert not scene.reader.blocked


# The end


async def test_a_finished_answer_ends_with_the_terminator_once(scene: Scene) -> None:
    await scene.token()
    await scene.end()
    await scene.end()
    await scene.task
    assert (scene.connection.written, scene.connection.ended) == ([TOKEN, DONE], "finished")
    assert scene.reader.closed


async def test_a_failure_after_the_status_is_told_in_band_then_reset(scene: Scene) -> None:
    await scene.token()
    await scene.end(LifecycleEvent.CUT, UpstreamCut("gone"))
    await scene.task
    first, second = scene.connection.written
    assert (first, scene.connection.ended) == (TOKEN, "aborted")
    assert b'"upstream_cut"' in second


@pytest.mark.parametrize("stream", [True, False])
async def test_the_end_is_told_when_the_answer_is_kept(stream: bool) -> None:
    """Whatever tells of it: here the event before the terminator too, which ends the surface's regular way."""
    owner = Keeps()
    scene = Scene(owner)
    await scene.begin(stream=stream)
    await scene.token()
    scene.sink.feed(scene.codec.feed(b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n' + DONE))
    await scene.end()
    assert scene.generation.outcome is None
    assert scene.connection.written == ([TOKEN] if stream else [])
    assert not scene.reader.closed
    owner.announce()
    owner.announce()
    await scene.task
    assert scene.generation.outcome is Outcome.COMPLETE
    assert b"".join(scene.connection.written).count(DONE) == int(stream)
    assert scene.connection.ended == "finished" if stream else scene.reader.closed


async def test_a_failure_is_told_when_the_part_that_came_is_kept() -> None:
    owner = Keeps()
    scene = Scene(owner)
    await scene.begin()
    await scene.token()
    await scene.end(LifecycleEvent.CUT, UpstreamCut("gone"))
    await scene.after(5)
    assert scene.connection.written == [TOKEN]
    owner.announce()
    await scene.task
    assert b'"upstream_cut"' in scene.connection.written[-1]
    assert scene.connection.ended == "aborted"


async def test_a_bug_where_the_answer_is_kept_is_told() -> None:
    scene = Scene(Breaks())
    await scene.begin()
    await scene.token()
    await scene.end()
    await scene.task
    assert isinstance(scene.generation.error, InternalError)
    assert b"Edge failed while relaying" in scene.connection.written[-1]
    assert scene.connection.ended == "aborted"


async def test_an_error_that_the_upstream_told_is_not_told_again(scene: Scene) -> None:
    await scene.token()
    said = UpstreamSaid("broke", status=502)
    scene.sink.feed(Batch(b'data: {"error":{}}\n\n', 1, 0, error=said, error_in_data=True))
    await scene.end(LifecycleEvent.ERROR, said)
    await scene.task
    assert scene.connection.written == [TOKEN, b'data: {"error":{}}\n\n']
    assert scene.connection.ended == "aborted"


async def test_a_reader_that_leaves_stops_the_model_once(scene: Scene) -> None:
    await scene.token()
    scene.reader.leave()
    scene.reader.leave()
    assert (scene.reader.gone, scene.connection.ended) == (True, "aborted")
    assert (scene.generation.outcome, scene.model.aborted) == (Outcome.CLIENT_GONE, True)


async def test_a_half_closed_connection_counts_as_left_at_the_next_tick(scene: Scene) -> None:
    scene.connection.window = 10
    await scene.token()
    scene.connection.closing = True
    await scene.after(0.1)
    assert (scene.reader.gone, scene.reader.stalled, scene.generation.outcome) == (True, False, Outcome.CLIENT_GONE)


async def test_leaving_before_the_status_does_not_cut_the_connection(scene: Scene) -> None:
    """Something of ours failed: the caller still answers on it."""
    scene.reader.leave()
    assert (scene.connection.ended, scene.generation.outcome) == (None, Outcome.CLIENT_GONE)


async def test_leaving_after_the_end_changes_nothing(scene: Scene) -> None:
    await scene.token()
    await scene.end()
    await scene.task
    scene.reader.leave()
    assert (scene.reader.gone, scene.generation.outcome) == (False, Outcome.COMPLETE)


async def test_its_repr_tells_where_it_is(scene: Scene) -> None:
    assert repr(scene.reader) == "<Subscriber held at 0>"
    scene.connection.window = 10
    await scene.token()
    assert repr(scene.reader) == f"<Subscriber open at {len(TOKEN)} blocked>"
    scene.reader.leave()
    assert repr(scene.reader) == f"<Subscriber closed at {len(TOKEN)} gone>"


# A whole answer


async def test_a_whole_answer_waits_whatever_the_clocks_say() -> None:
    scene = Scene()
    await scene.begin(stream=False)
    await scene.token()
    await scene.after(1000)
    assert (scene.reader.state, scene.connection.written) == (ReaderState.HELD, [])
    assert not scene.model.paused
    await scene.end()
    assert (await scene.task).content_type == "application/json"
    assert b'"content":"tok"' in scene.connection.written[0]
    assert scene.connection.ended == "finished"


async def test_a_whole_answer_is_cut_when_nobody_takes_it() -> None:
    scene = Scene()
    await scene.begin(stream=False)
    scene.connection.window = 10
    await scene.token()
    await scene.end()
    await scene.after(1)
    assert (scene.reader.state, scene.reader.blocked) == (ReaderState.ENDING, True)
    await scene.after(61)
    assert (scene.reader.stalled, scene.connection.ended) == (True, "aborted")
    with pytest.raises(ConnectionError):
        await scene.task
