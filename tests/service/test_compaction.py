"""Real coding agents whose conversation has become too long for the model: they shorten it, and go on.

Each is first shown to give up where it reads a model server's own words; Claude Code knows many servers' by itself.
Codex asks for a summary when it reaches ``model_auto_compact_token_limit``, and leaves out its oldest items when the
server refuses that request. Claude Code asks for one when the server refuses a request.
"""

from pathlib import Path
from typing import Any

import pytest
from fakes import ollama
from fakes.model_server import FakeModel
from service.agents import Agent
from service.small_context import LONG, WORDS, SmallContext
from support.faults import SURFACES
from support.running import Serve

pytestmark = pytest.mark.service

TURNS = 3  # each with a long answer
GOES_ON = "The work goes on."
MORE = len(LONG) // 4 // 2  # tokens, half of what the last answer adds


async def one_turn(agent: Agent, name: str, url: str, said: str, **settings: Any) -> str:
    """What the agent says to this, as the next turn of its conversation."""
    await getattr(agent, name)(url, said, goes_on=said != "turn 0", **settings)
    try:
        return await agent.says()
    finally:
        await agent.stop()


async def last_turn(agent: Agent, name: str, url: str, server: SmallContext) -> str:
    """What the agent says when the server refuses what had become of the conversation."""
    for turn in range(TURNS):
        said = await one_turn(agent, name, url, f"turn {turn}")
        assert LONG.strip() in said
    tokens, _ = server.seen[-1]
    server.maximum, server.says = tokens + MORE, GOES_ON
    summary_is_due = {"model_auto_compact_token_limit": tokens} if name == "codex" else {}
    return await one_turn(agent, name, url, "go on", **summary_is_due)


@pytest.mark.parametrize(("name", "words"), [*(("codex", words) for words in WORDS), ("claude", "lm-studio")])
async def test_it_gives_up_at_the_servers_own_words(fake: FakeModel, tmp_path: Path, name: str, words: str) -> None:
    fake.answer = server = SmallContext(words)
    said = await last_turn(Agent(tmp_path / "home"), name, fake.url, server)
    assert GOES_ON not in said
    assert not server.seen[-1][1]


@pytest.mark.parametrize("name", ["codex", "claude"])
@pytest.mark.parametrize("words", WORDS)
@pytest.mark.parametrize("surfaces", ["own", "translated"])
async def test_it_shortens_the_conversation_and_goes_on(
    serve: Serve, fake: FakeModel, tmp_path: Path, name: str, words: str, surfaces: str
) -> None:
    fake.answer = server = SmallContext(words)
    upstream: dict[str, Any] = SURFACES if surfaces == "own" else {"surfaces": ["chat"]}
    if words == "ollama" and surfaces == "translated":
        ollama.be_ollama(fake, "m")
        upstream = {"kind": "ollama", "num_ctx": 32768}
    edge = await serve(upstream=upstream)
    said = await last_turn(Agent(tmp_path / "home"), name, edge.url, server)
    refused = [tokens for tokens, fit in server.seen if not fit]
    assert refused
    assert GOES_ON in said
    assert server.seen[-1][0] < min(refused)
    assert "context_length_exceeded" in [record.get("error") for record in edge.records]
