"""The watchdogs of real coding agents, in front of a model server that is silent for longer than they wait.

Each is first shown to fire where Edge sends no heartbeats.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest
from fakes.answers import messages_events, responses_events
from fakes.model_server import FakeModel, chunk, end, gate, head
from service.agents import WAITS_S, Agent
from support.faults import SURFACES
from support.running import Serve

pytestmark = pytest.mark.service

IDLE_MS = 10_000  # Claude Code allows no less
BEAT_S = 1.0
ENOUGH = 25  # beats, for a silence of more than twice what the watchdogs allow
NEVER = {"heartbeat_s": 9999, "commit_after_s": 0.2}
OFTEN = {"heartbeat_s": BEAT_S, "commit_after_s": 0.2}


def begins(runs: Agent, agent: str, url: str) -> Awaitable[None]:
    """With a short watchdog."""
    if agent == "codex":
        return runs.codex(url, stream_idle_timeout_ms=IDLE_MS)
    return runs.claude(url, CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS=str(IDLE_MS), CLAUDE_ENABLE_BYTE_WATCHDOG="1")


AGENTS = {"codex": responses_events(["Hello"]), "claude": messages_events(["Hello"])}


@pytest.mark.parametrize("agent", AGENTS)
async def test_its_watchdog_fires_where_no_heartbeats_come(
    serve: Serve, fake: FakeModel, tmp_path: Path, agent: str
) -> None:
    for _ in range(4):
        fake.script(head(), gate("content"), *map(chunk, AGENTS[agent]), end())
    edge = await serve(upstream=SURFACES, stream=NEVER)
    runs = Agent(tmp_path / "home")
    await begins(runs, agent, edge.url)
    try:
        record = await edge.record(timeout_s=WAITS_S)  # nobody but the agent ends it
    finally:
        fake.open("content")
        await runs.stop()
    assert (record["outcome"], record["heartbeats"]) == ("client_gone", 0)


@pytest.mark.parametrize("agent", AGENTS)
async def test_heartbeats_keep_it_waiting_for_its_answer(
    serve: Serve, fake: FakeModel, tmp_path: Path, agent: str
) -> None:
    fake.script(head(), gate("content"), *map(chunk, AGENTS[agent]), end())
    edge = await serve(upstream=SURFACES, stream=OFTEN)
    runs = Agent(tmp_path / "home")
    await begins(runs, agent, edge.url)
    try:
        async with asyncio.timeout(WAITS_S):
            await fake.reached("content")
            while not edge.records and next(iter(edge.edge.registry)).reader.heartbeats < ENOUGH:
                await asyncio.sleep(0.05)
            assert edge.records == []  # it is still there
            fake.open("content")
            said = await runs.says()
    finally:
        await runs.stop()
    assert "Hello" in said
    record = await edge.record()
    assert (record["outcome"], len(fake.requests)) == ("complete", 1)
    assert record["heartbeats"] >= ENOUGH
