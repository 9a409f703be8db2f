"""The demo: a real model server, Edge in front of it, and one answer streamed through both.

In: a port. Out: what a newcomer reads on the terminal, and the exit status.
Must not: reach into Edge, which runs as ``edge serve`` in a process of its own; or leave a process behind.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress

from edge.cli.child import Child, Died, Unavailable
from edge.cli.llama_server import MODEL_NAME, START_S, LlamaServer
from edge.cli.model_file import cache_folder, model_path

PORT = 11435
EDGE_START_S = 30.0
PROBE = aiohttp.ClientTimeout(total=5.0)
POLL_S = 0.05
WATCH_S = 0.25
DEATH_S = 1.0  # a broken answer may be seen this long before the end of the process that broke it
ANSWER_S = 300.0
QUESTION = "Why is the sky blue? Answer in three sentences."
_SERVE = [sys.executable, "-m", "edge", "serve"]
INTERRUPTED = 130  # what a shell says of a program that ended by Ctrl-C

HOW_TO = """
Edge listens on {url} and relays to a llama.cpp server on {upstream}
Logs: {logs}

curl:
  curl -N {url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'

Python (pip install openai):
  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="unused")
  messages = [{{"role": "user", "content": "{question}"}}]
  for chunk in client.chat.completions.create(model="{model}", messages=messages, stream=True):
      print(chunk.choices[0].delta.content or "", end="", flush=True)
"""


def main(port: int | None, *, once: bool) -> int:
    """Run the demo until Ctrl-C, SIGTERM or SIGHUP, or with ``once`` until it has answered.

    Returns:
        The exit status.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # before the event loop there is only one way out
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    console = Console(highlight=False)
    try:
        LlamaServer.need()
        model = _fetch_model(console)
        return asyncio.run(_demo(console, model, port, once=once))
    except (Unavailable, Died) as error:
        click.echo(f"edge demo: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _fetch_model(console: Console) -> Path:
    with ExitStack() as display:
        bar: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                console.print(f"Fetching the model, once, into {cache_folder()}", soft_wrap=True)
                bar = display.enter_context(Progress(BarColumn(), DownloadColumn(), console=console))
                bar.add_task("", total=total)
            bar.update(bar.task_ids[0], completed=done)

        return model_path(show)


async def _demo(console: Console, model: Path, port: int | None, *, once: bool) -> int:
    loop, this = asyncio.get_running_loop(), asyncio.current_task()
    assert this is not None  # noqa: S101 - a coroutine that runs is in a task
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, this.cancel)
    up = False
    try:
        with ExitStack() as running:
            logs = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="edge-demo-")))
            llama = running.enter_context(LlamaServer(model, logs / "llama.log"))
            with console.status("loading the model"):
                await _until(llama.is_ready, START_S, llama)
            address = f"127.0.0.1:{_free_port(port)}"
            edge = running.enter_context(Child("Edge", _SERVE, logs / "edge.log", _serve_env(address, llama)))
            client = aiohttp.ClientSession(f"http://{address}", timeout=aiohttp.ClientTimeout(total=ANSWER_S))
            async with client:
                await _until_edge_is_ready(client, edge)
                click.echo(_how_to(f"http://{address}", llama.url, logs))
                up = not once
                await _unless_dead(_answer(client), llama, edge)
            if once:
                return 0
            click.echo("\nCtrl-C ends the demo.")
            while True:
                llama.check()
                edge.check()
                await asyncio.sleep(WATCH_S)
    except asyncio.CancelledError:
        return 0 if up else INTERRUPTED


def _free_port(wanted: int | None) -> int:
    """Return the port that is wanted; the usual one may give way to a free one, one that was asked for may not."""
    for port in (PORT if wanted is None else wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if wanted is not None:
                    raise Unavailable(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from error
                click.echo(f"Port {port} is taken; Edge takes a free one.")
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise Unavailable("no free port on 127.0.0.1")


def _serve_env(address: str, llama: LlamaServer) -> dict[str, str]:
    # Edge's own variables may configure another Edge; this one serves the demo alone.
    env = {name: value for name, value in os.environ.items() if not name.startswith("EDGE_")}
    ours = {
        "EDGE_UPSTREAM_URL": llama.url,
        "EDGE_UPSTREAM_NAME": MODEL_NAME,
        "EDGE_SERVER_LISTEN": address,
        "EDGE_SERVER_DRAIN_S": "1",  # Ctrl-C does not wait for long answers
        "EDGE_STORE_URL": "memory:",  # a demo leaves nothing behind
    }
    return env | ours


def _how_to(url: str, upstream: str, logs: Path) -> str:
    body = json.dumps(_request(), separators=(",", ":"))
    return HOW_TO.format(url=url, upstream=upstream, logs=logs, body=body, question=QUESTION, model=MODEL_NAME)


def _request() -> dict[str, object]:
    return {"model": MODEL_NAME, "stream": True, "messages": [{"role": "user", "content": QUESTION}]}


async def _until(ready: Callable[[], bool], within_s: float, child: Child) -> None:
    deadline = time.monotonic() + within_s
    while not ready():
        if time.monotonic() > deadline:
            raise Unavailable(f"{child.name} was not ready within {within_s:.0f} s. It said:\n{child.tail()}")
        await asyncio.sleep(POLL_S)


async def _until_edge_is_ready(client: aiohttp.ClientSession, edge: Child) -> None:
    deadline = time.monotonic() + EDGE_START_S
    said = "nothing"
    while time.monotonic() < deadline:
        edge.check()
        try:
            async with client.get("/ready", timeout=PROBE) as response:
                said = await response.text()
                if response.status == 200:
                    return
        except (aiohttp.ClientError, TimeoutError):
            pass  # it does not listen yet
        await asyncio.sleep(POLL_S)
    raise Unavailable(f"Edge was not ready within {EDGE_START_S:.0f} s; /ready says {said}. Its log:\n{edge.tail()}")


async def _unless_dead(answer: Awaitable[None], *children: Child) -> None:
    """Await the answer; if it fails because a process died, say that instead."""
    try:
        await answer
    except (aiohttp.ClientError, TimeoutError, Unavailable) as error:
        deadline = time.monotonic() + DEATH_S
        while time.monotonic() < deadline:
            for child in children:
                child.check()
            await asyncio.sleep(POLL_S)
        raise Unavailable(f"the answer broke: {error or type(error).__name__}") from error


async def _answer(client: aiohttp.ClientSession) -> None:
    """Stream one answer to the terminal, then its figures."""
    click.echo(f"> {QUESTION}")
    body = {**_request(), "max_tokens": 200, "temperature": 0.2, "stream_options": {"include_usage": True}}
    asked = time.monotonic()
    first = last = 0.0
    tokens = 0
    async with client.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise Unavailable(f"Edge answered {response.status}: {await response.text()}")
        async for event in _events(response):
            if "error" in event:
                raise Unavailable(f"Edge said: {event['error']}")
            if text := "".join(choice["delta"].get("content") or "" for choice in event["choices"]):
                last = time.monotonic()
                first = first or last
                tokens += 1
                click.echo(text, nl=False)
            if usage := event.get("usage"):
                tokens = usage["completion_tokens"]
    rate = (tokens - 1) / (last - first) if last > first else 0.0
    click.echo(f"\n\n{tokens} tokens, the first after {(first - asked) * 1000:.0f} ms, then {rate:.0f} tokens/s")


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        name, _, data = line.strip().partition(b": ")
        if data == b"[DONE]":
            return
        if name == b"data":
            yield json.loads(data)
    raise Unavailable("the answer ended without [DONE]")
