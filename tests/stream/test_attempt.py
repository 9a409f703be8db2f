"""An attempt by itself: what it holds back, what it hands over, and who hears of its end."""

import pytest
from fakes.answers import chat_finish, chat_role, chat_token
from support.makers import At
from support.scene import Model, Scene

from edge.errors import InternalError, UpstreamCut
from edge.policy.lifecycle import AttemptState, LifecycleEvent, Outcome, State
from edge.protocol.sse import DONE


@pytest.fixture
def scene() -> Scene:
    one = Scene()
    one.others = 1
    one.reader = At()  # type: ignore[assignment]  # no connection is needed
    one.generation.attach(one.reader)
    one.attempt()
    return one


def got(scene: Scene) -> bytes:
    reader = scene.reader
    assert isinstance(reader, At)
    reader.catch_up(scene.generation)
    return reader.got


async def test_nothing_goes_out_before_the_first_content_and_then_all_of_it(scene: Scene) -> None:
    await scene.token(chat_role())
    assert (scene.sink.state, scene.generation.state) == (AttemptState.WAITING, State.ASKING)
    assert got(scene) == b""
    await scene.token(chat_token("a"))
    assert (scene.sink.state, scene.generation.state) == (AttemptState.STREAMING, State.STREAMING)
    assert got(scene) == chat_role() + chat_token("a")


async def test_what_an_attempt_sent_that_another_follows_reaches_nobody(scene: Scene) -> None:
    await scene.token(chat_role())
    first, model = scene.sink, scene.model
    await scene.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    assert scene.sink is not first
    assert scene.generation.state is State.ASKING
    await scene.token(chat_role() + chat_token("b") + chat_finish() + DONE)
    await scene.end()
    assert got(scene) == chat_role() + chat_token("b") + chat_finish() + DONE
    assert (scene.generation.outcome, scene.generation.events) == (Outcome.COMPLETE, 4)
    assert not model.aborted


async def test_after_content_no_other_attempt_follows(scene: Scene) -> None:
    await scene.token(chat_role() + chat_token("a"))
    await scene.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    assert scene.generation.outcome is Outcome.UPSTREAM_CUT
    assert scene.others == 1


async def test_an_empty_answer_is_its_prelude(scene: Scene) -> None:
    await scene.token(chat_role() + chat_finish() + DONE)
    await scene.end()
    assert scene.generation.outcome is Outcome.COMPLETE
    assert got(scene) == chat_role() + chat_finish() + DONE


@pytest.mark.parametrize("again", [LifecycleEvent.DONE, LifecycleEvent.CUT, LifecycleEvent.ERROR])
async def test_only_its_first_end_counts(scene: Scene, again: LifecycleEvent) -> None:
    await scene.token(chat_role() + chat_token("a") + chat_finish() + DONE)
    await scene.end()
    await scene.end(again, None if again is LifecycleEvent.DONE else UpstreamCut("late"))
    assert (scene.generation.outcome, scene.generation.error) == (Outcome.COMPLETE, None)


async def test_the_late_end_of_an_attempt_is_not_the_end_of_the_next_one(scene: Scene) -> None:
    first = scene.sink
    await scene.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    first.end(LifecycleEvent.CUT, UpstreamCut("late"))
    assert scene.generation.state is State.ASKING
    await scene.token(chat_token("b") + chat_finish() + DONE)
    await scene.end()
    assert scene.generation.outcome is Outcome.COMPLETE


async def test_a_stop_breaks_it_off_and_the_server_may_still_be_at_work(scene: Scene) -> None:
    await scene.token(chat_token("a"))
    scene.generation.stop(LifecycleEvent.STOP)
    assert scene.model.aborted
    assert (scene.sink.state, scene.sink.sent, scene.sink.cut_off) == (AttemptState.ENDED, True, True)


async def test_an_answer_that_ended_by_itself_leaves_no_server_at_work(scene: Scene) -> None:
    await scene.token(chat_token("a") + chat_finish() + DONE)
    await scene.end()
    assert (scene.sink.sent, scene.sink.cut_off) == (True, False)


async def test_readers_that_lag_pause_the_server_and_let_it_go_on(scene: Scene) -> None:
    scene.generation.pause_source()
    assert scene.model.paused
    scene.generation.resume_source()
    assert not scene.model.paused


async def test_a_bug_in_a_reader_ends_the_answer_and_the_call(scene: Scene) -> None:
    class Broken(At):
        def write(self, data: bytes) -> bool:
            raise ZeroDivisionError

    await scene.token(chat_token("a"))
    scene.generation.attach(Broken(scene.generation.journal.end))
    scene.generation.detach(scene.reader)
    await scene.token(chat_token("b"))
    assert scene.generation.outcome is Outcome.INTERNAL_ERROR
    assert isinstance(scene.generation.error, InternalError)
    assert isinstance(scene.model, Model)
    assert scene.model.aborted


async def test_the_clients_turn_is_over_with_the_attempt(scene: Scene) -> None:
    scene.sink.uploading(clients_turn=True)
    assert scene.generation.clients_turn
    await scene.after_all(100_000)
    assert scene.generation.outcome is None  # while the client is to bring more, no clock of the server's runs
    scene.generation.stop(LifecycleEvent.STOP)
    assert not scene.generation.clients_turn
