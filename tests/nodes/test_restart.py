"""An Edge that is killed, restarted or replaced: its streams are there, as far as they came, and say how they ended."""

import os
import signal
from pathlib import Path

import pytest
from fakes.answers import chat_events
from fakes.model_server import FakeModel
from fakes.steps import chunk, end, gate, head, stall
from support.edge_process import EdgeProcess
from support.eventsource import parsed
from support.raw import CHAT, RawClient, chat_body
from support.shapes import get

RESUME = {"x-edge-resume": "1"}
WORDS = ["one", " two", " three", " four"]
EVENTS = [event for event in chat_events(WORDS) if b'"choices":[]' not in event]
DATAS = [event.removeprefix(b"data: ").strip().decode() for event in EVENTS]

Store = dict[str, str]


async def begun(client: RawClient) -> str:
    """A stream whose first three events have come; its id."""
    await client.post(CHAT, chat_body(), RESUME)
    await client.until(b" two")
    return client.buffer.partition(b"\nid: ")[2].partition(b":")[0].decode()


async def test_after_a_kill_a_stream_is_there_as_far_as_it_was_written_and_says_so(
    fake: FakeModel, store: Store, tmp_path: Path
) -> None:
    """At the latest when the lease of the process has lapsed; meanwhile its reader waits."""
    fake.script(head(), chunk(b"".join(EVENTS[:3])), gate("held"), stall())
    async with EdgeProcess(tmp_path, fake.url, store=store) as first:
        await first.ready()
        async with RawClient(first.port) as client:
            stream = await begun(client)
            async with EdgeProcess(tmp_path, fake.url, store=store) as second:
                async with RawClient(second.port) as follower:
                    await follower.get(f"/v1/streams/{stream}")
                    await follower.until(b" two")
                    first.send_signal(signal.SIGKILL)
                    answer = await follower.answer()
                *whole, last = parsed(answer.body).events
                assert [event.data for event in whole] == [
                    e.removeprefix(b"data: ").strip().decode() for e in EVENTS[:3]
                ]
                assert (answer.ending, last.json["error"]["code"]) == ("reset", "shutdown")
                (told,) = (await get(second.port, "/v1/streams")).json["data"]
                assert (told["state"], told["outcome"]) == ("ended", "shutdown")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="NO UPGRADES HERE")
async def test_after_an_upgrade_the_new_process_gives_the_streams_of_the_old_one(
    fake: FakeModel, store: Store, tmp_path: Path
) -> None:
    fake.script(head(), chunk(b"".join(EVENTS[:3])), gate("more"), chunk(b"".join(EVENTS[3:])), end())
    async with EdgeProcess(tmp_path, fake.url, store=store) as edge:
        await edge.ready()
        async with RawClient(edge.port) as client:
            stream = await begun(client)
            edge.send_signal(signal.SIGUSR2)
            await edge.lines.wait("replaced")
            async with RawClient(edge.port) as follower:
                await follower.get(f"/v1/streams/{stream}", {"Last-Event-ID": f"{stream}:2"})
                await follower.until(b" two")
                fake.open("more")
                rest = await follower.answer()
            whole = await client.answer()
    assert (whole.clean, rest.clean) == (True, True)
    assert [e.data for e in parsed(rest.body).events] == [e.data for e in parsed(whole.body).events][2:]
    assert len(fake.requests) == 1


async def test_a_stop_says_so_to_whoever_comes_back_later(fake: FakeModel, store: Store, tmp_path: Path) -> None:
    fake.script(head(), chunk(b"".join(EVENTS[:3])), gate("held"), stall())
    async with EdgeProcess(tmp_path, fake.url, store=store, server={"drain_s": 0.1}) as edge:
        await edge.ready()
        async with RawClient(edge.port) as client:
            stream = await begun(client)
            edge.send_signal(signal.SIGTERM)
            answer = await client.answer()
            await edge.wait()
    async with EdgeProcess(tmp_path, fake.url, store=store) as edge:
        again = await get(edge.port, f"/v1/streams/{stream}")
    assert (again.ending, again.body) == ("reset", answer.body)
    assert parsed(again.body).events[-1].json["error"]["code"] == "shutting_down"
