"""The simulator keeps the promises of an upstream, as far as there is no network in them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from contract.recorder import Recorder, turns
from support.virtual import VirtualLoop, run_virtual

from edge.errors import EdgeError
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.settings import Upstream as UpstreamSettings
from edge.upstream.ports import Call, Source
from edge.upstream.simulator.simulator import Simulator

WORDS = 50
MANY = WORDS * 4  # turns: more than such an answer takes


def call(model: str = "lorem", **extra: Any) -> Call:
    """A chat request for so many words."""
    raw = {"model": model, "messages": [{"role": "user", "content": "a b"}], "max_tokens": WORDS, **extra}
    prepared = prepare(Surface.CHAT, orjson.dumps(raw))
    codec = DIALECTS[Surface.CHAT].codec(prepared, 100_000, frozenset()) if prepared.streamed else None
    return Call(Surface.CHAT, prepared.body, codec, {}, 10_000, takes_body=True)


def unstreamed(model: str = "lorem") -> Call:
    return call(model, best_of=2)


def made(pace_s: float = 0.0) -> Simulator:
    return Simulator(UpstreamSettings(name="sim", kind="simulator", pace_s=pace_s))


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    one = made()
    yield one
    await one.close()


@pytest.fixture
def sink() -> Recorder:
    return Recorder()


async def test_pushes_come_in_order(simulator: Simulator, sink: Recorder) -> None:
    simulator.open(call(), sink)
    await sink.until_call("end")
    await turns()
    assert sink.calls[:2] == ["connected", "answered"]
    assert set(sink.calls[2:-1]) == {"feed"}
    assert (sink.calls[-1], sink.happened, sink.error) == ("end", LifecycleEvent.DONE, None)
    assert sink.token_count == WORDS


async def test_open_returns_before_anything_is_pushed(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call(), sink)
    assert sink.calls == []
    await aborted(source, sink)


async def test_each_turn_of_the_loop_brings_a_word_at_most(simulator: Simulator, sink: Recorder) -> None:
    """Without a pace it is as fast as it can be, and still leaves room for the others."""
    simulator.open(call(), sink)
    await sink.until_call("feed")
    assert sink.token_count == 1
    await asyncio.sleep(0)
    assert sink.token_count <= 2


async def test_one_json_body_is_pushed_whole(simulator: Simulator, sink: Recorder) -> None:
    simulator.open(unstreamed(), sink)
    await sink.until_call("end")
    assert sink.calls == ["connected", "answered", "body", "end"]
    assert orjson.loads(sink.whole or b"")["usage"]["completion_tokens"] == WORDS
    assert sink.happened is LifecycleEvent.DONE


@pytest.mark.parametrize(("model", "extra"), [("error", {}), ("nobody", {}), ("echo", {"temperature": "hot"})])
@pytest.mark.parametrize("make", [call, lambda model, **extra: call(model, best_of=2, **extra)])
async def test_without_an_answer_it_ends_once(
    simulator: Simulator, sink: Recorder, model: str, extra: dict[str, Any], make: Callable[..., Call]
) -> None:
    simulator.open(make(model, **extra), sink)
    await ended(sink, LifecycleEvent.ERROR)
    assert sink.calls == ["connected", "end"]


@pytest.mark.parametrize(("model", "happened"), [("error-mid", LifecycleEvent.ERROR), ("cut", LifecycleEvent.CUT)])
async def test_in_the_middle_of_an_answer_it_ends_once(
    simulator: Simulator, sink: Recorder, model: str, happened: LifecycleEvent
) -> None:
    simulator.open(call(model), sink)
    await ended(sink, happened)
    assert sink.token_count == 3
    assert sink.calls[:3] == ["connected", "answered", "feed"]


@pytest.mark.parametrize(("model", "happened"), [("error-mid", LifecycleEvent.ERROR), ("cut", LifecycleEvent.CUT)])
async def test_in_one_piece_too(simulator: Simulator, sink: Recorder, model: str, happened: LifecycleEvent) -> None:
    simulator.open(unstreamed(model), sink)
    await ended(sink, happened)
    assert sink.calls == ["connected", "answered", "end"]


async def test_one_that_stalls_says_no_more_and_holds_no_timer(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call("stall"), sink)
    await sink.until(lambda: sink.token_count == 3)
    await turns(MANY)
    source.pause()
    source.resume()
    await turns(MANY)
    assert (sink.token_count, sink.happened) == (3, None)
    assert repr(source) == "<SimulatorSource sim flowing>"
    await aborted(source, sink)


# Abort: nothing is pushed after it.


@pytest.mark.parametrize("push", ["connected", "answered", "feed"])
@pytest.mark.parametrize("model", ["lorem", "cut", "stall", "error-mid"])
async def test_abort_from_within_a_push(simulator: Simulator, sink: Recorder, push: str, model: str) -> None:
    source = simulator.open(call(model), sink)
    sink.when[push] = source.abort
    await sink.until_call(push)
    await turns(MANY)
    assert sink.calls[-1] == push
    await aborted(source, sink)


@pytest.mark.parametrize("words", [1, 2, 3, WORDS])
async def test_abort_after_any_word(simulator: Simulator, sink: Recorder, words: int) -> None:
    source = simulator.open(call(), sink)
    await sink.until(lambda: sink.token_count >= words)
    await aborted(source, sink)
    assert repr(source) == "<SimulatorSource sim over>"


async def test_resume_after_abort_pushes_nothing(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call(), sink)
    sink.when["feed"] = source.pause
    await sink.until_call("feed")
    source.abort()
    source.resume()
    await aborted(source, sink)


async def test_abort_after_the_end_is_harmless(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call(), sink)
    await sink.until_call("end")
    await aborted(source, sink)


async def test_aborts_do_not_hurt_other_calls(simulator: Simulator, sink: Recorder) -> None:
    lost = Recorder()
    simulator.open(call(), sink)
    other = simulator.open(call(), lost)
    await lost.until_call("feed")
    other.abort()
    await sink.until_call("end")
    assert (sink.happened, sink.token_count) == (LifecycleEvent.DONE, WORDS)


# Flow control.


async def test_paused_it_is_silent_and_resumed_it_loses_nothing(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call(), sink)
    sink.when["feed"] = lambda: (source.pause(), source.pause(), None)[-1]
    await sink.until_call("feed")
    await turns(MANY)
    assert sink.token_count == 1
    assert repr(source) == "<SimulatorSource sim paused>"
    source.resume()
    source.resume()
    await sink.until_call("end")
    assert (sink.happened, sink.token_count) == (LifecycleEvent.DONE, WORDS)


async def test_a_pause_within_a_push_that_ends_within_it_is_none(simulator: Simulator, sink: Recorder) -> None:
    """And each word still comes once."""
    source = simulator.open(call(), sink)
    sink.when["feed"] = lambda: (source.pause(), source.resume(), None)[-1]
    await sink.until_call("end")
    assert (sink.happened, sink.token_count) == (LifecycleEvent.DONE, WORDS)


async def test_paused_before_the_answer_nothing_is_fed(simulator: Simulator, sink: Recorder) -> None:
    source = simulator.open(call(), sink)
    source.pause()
    await turns(MANY)
    assert sink.calls == ["connected", "answered"]
    source.resume()
    await sink.until_call("end")
    assert (sink.happened, sink.token_count) == (LifecycleEvent.DONE, WORDS)


# Time, on a clock that nobody waits for.


@pytest.mark.parametrize("pace_s", [0.05, 10.0])
def test_a_word_comes_each_pace(pace_s: float) -> None:
    async def main(loop: VirtualLoop) -> None:
        sink, came = Recorder(), []
        made(pace_s).open(call(max_tokens=5), sink)
        while sink.happened is None:
            seen = sink.token_count
            await sink.until(lambda seen=seen: sink.token_count > seen or sink.happened is not None, 1000)
            came.append(loop.time())
        assert came[:5] == pytest.approx([pace_s * number for number in (1, 2, 3, 4, 5)])
        assert sink.happened is LifecycleEvent.DONE

    run_virtual(main)


def test_a_pause_does_not_save_up_words() -> None:
    async def main(_: VirtualLoop) -> None:
        sink = Recorder()
        source = made(1.0).open(call(), sink)
        await asyncio.sleep(1.5)
        source.pause()
        await asyncio.sleep(100)
        source.resume()
        await asyncio.sleep(1.5)
        assert sink.token_count == 2
        source.abort()

    run_virtual(main)


# Close.


async def test_close_leaves_nothing(simulator: Simulator) -> None:
    """Whatever was going on: about to begin, streaming, paused, silent or over."""
    before = asyncio.all_tasks()
    sinks = {model: Recorder() for model in ("lorem", "echo", "stall", "think")}
    sources = {model: simulator.open(call(model), sink) for model, sink in sinks.items()}
    await sinks["think"].until_call("feed")
    sources["think"].pause()
    await sinks["echo"].until_call("end")
    sinks["new"] = Recorder()
    simulator.open(call(), sinks["new"])
    await simulator.close()
    calls = {model: list(sink.calls) for model, sink in sinks.items()}
    await turns(MANY)
    assert {model: sink.calls for model, sink in sinks.items()} == calls
    assert sinks["new"].calls == []
    assert asyncio.all_tasks() == before


async def ended(sink: Recorder, happened: LifecycleEvent) -> None:
    await sink.until_call("end")
    await turns()
    assert (sink.happened, sink.calls.count("end"), sink.calls[-1]) == (happened, 1, "end")
    assert isinstance(sink.error, EdgeError)


async def aborted(source: Source, sink: Recorder) -> None:
    source.abort()
    source.abort()
    calls = list(sink.calls)
    await turns(MANY)
    assert sink.calls == calls
