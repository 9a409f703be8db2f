"""``edge init``: a file that works as it is, for what is there, and never over another."""

import asyncio
import os
import sys
import tomllib
from pathlib import Path

import pytest
from support.cli import environment, run
from support.lookalikes import ollama, vllm

from edge.config import load, render_example
from edge.config.starter import CHOICES

KEYS = {"EDGE_KEY": "a-key-of-sixteen-characters", "OPENAI_API_KEY": "sk-1", "ANTHROPIC_API_KEY": "sk-2"}


@pytest.mark.parametrize("choice", CHOICES)
async def test_what_it_writes_for_a_server_loads_as_it_is(tmp_path: Path, choice: str) -> None:
    path = tmp_path / "edge.toml"
    done = await run("init", "--for", choice, "-o", str(path))
    assert (done.status, done.err) == (0, "")
    assert f"edge check --config {path}" in done.out
    (upstream,) = load(path, {**os.environ, **KEYS}).settings.upstream
    assert "key" not in upstream.name


async def test_it_never_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    path.write_text("# mine\n")
    done = await run("init", "--for", "ollama", "-o", str(path))
    assert done.status == 1
    assert "is there already" in done.err
    assert path.read_text() == "# mine\n"


async def test_it_writes_what_it_finds(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    async with ollama("smollm2") as one, vllm("qwen") as two:
        ports = f"{one.port},{two.port}"
        done = await run("init", "-o", str(path), EDGE_DISCOVERY_PORTS=ports, EDGE_DISCOVERY_ENABLED="true")
        assert done.status == 0
        assert f"({one.url})" in done.out
        upstreams = load(path, {}).settings.upstream
    assert [(upstream.kind, upstream.url) for upstream in upstreams] == [
        ("ollama", one.url),
        ("openai-compatible", two.url),
    ]


async def test_it_prints_and_has_a_reference(tmp_path: Path) -> None:
    printed = await run("init", "--for", "vllm", "-o", "-")
    assert tomllib.loads(printed.out)["upstream"] == [{"name": "gpu0", "url": "http://127.0.0.1:8000"}]
    assert (await run("init", "--reference", "-o", "-")).out == render_example()
    done = await run("init", "--reference", "--for", "vllm", "-o", "-")
    assert (done.status, "leave --for out" in done.err) == (2, True)


async def test_where_it_cannot_write_it_says_why() -> None:
    done = await run("init", "--for", "vllm", "-o", "/nowhere/edge.toml")
    assert (done.status, done.err.strip()) == (1, "edge init: /nowhere/edge.toml: No such file or directory")


async def test_a_slip_in_a_command_names_the_nearest() -> None:
    assert "Did you mean 'serve'?" in (await run("serv")).err
    assert "edge --help" in (await run("xyzzy")).err


@pytest.mark.parametrize(("shell", "marks"), [("bash", "complete -o"), ("zsh", "compdef"), ("fish", "complete --")])
async def test_a_shell_can_complete(shell: str, marks: str) -> None:
    done = await run("completion", shell)
    assert (done.status, marks in done.out) == (0, True)
    words = {"COMP_WORDS": "edge se", "COMP_CWORD": "se" if shell == "fish" else "1"}
    edge = Path(sys.executable).with_name("edge")
    process = await asyncio.create_subprocess_exec(
        edge, env=environment(_EDGE_COMPLETE=f"{shell}_complete", **words), stdout=asyncio.subprocess.PIPE
    )
    offered, _ = await process.communicate()
    assert b"serve" in offered
