"""Every client in front of the simulator, which nobody scripts: its models each do one thing."""

import pytest
from cross.matrix.said import Want
from cross.matrix.speakers import Speaker
from cross.matrix.table import CELLS
from fakes.model_server import FakeModel
from support.faults import ended_by_error
from support.raw import Answer, RawClient, ask
from support.running import Running, Serve
from support.simulated import serve_simulator

every = pytest.mark.parametrize("speaker", CELLS, ids=lambda speaker: speaker.name)


async def answered(edge: Running, speaker: Speaker, model: str, *, stream: bool = True) -> Answer:
    want = Want(stream=stream, tools="tools" in speaker.takes)
    return await ask(edge.port, speaker.path, {**speaker.body(want), "model": model})


@every
async def test_every_client_is_answered(serve: Serve, fake: FakeModel, speaker: Speaker) -> None:
    edge = await serve_simulator(serve)
    for stream in (True, False) if speaker.whole else (True,):
        told = speaker.told(await answered(edge, speaker, "echo", stream=stream))
        assert (told.status, told.text, told.done, told.error) == (200, "hi", True, None)
        if "calls" in speaker.shows and "tools" in speaker.takes:
            told = speaker.told(await answered(edge, speaker, "tools", stream=stream))
            ((name, _),) = told.calls
            assert (name, told.finish, told.done) == ("clock", "tool_calls", True)
    assert fake.requests == []


@every
async def test_every_client_can_try_how_it_takes_failures(serve: Serve, speaker: Speaker) -> None:
    edge = await serve_simulator(serve)
    for model in ("error-mid", "cut"):
        answer = await answered(edge, speaker, model)
        told = speaker.told(answer)
        assert (answer.status, answer.clean, told.done) == (200, ended_by_error(speaker.path), False)
        assert told.error
        assert told.text
    refused = speaker.told(await answered(edge, speaker, "error"))
    assert refused.error
    assert not refused.done


@every
async def test_every_client_may_leave(serve: Serve, speaker: Speaker) -> None:
    edge = await serve_simulator(serve, stream={"grace_s": 0.05})
    async with RawClient(edge.port) as client:
        await client.post(speaker.path, {**speaker.body(Want()), "model": "stall"})
        await client.until(b"ipsum")
    assert (await edge.record())["outcome"] == "client_gone"
