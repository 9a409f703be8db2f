"""A look at a real llama.cpp server from the side: what it is working on, and how much it has ever generated.

In: a ``LlamaServer``. Out: what its /slots, /metrics and answers say. Must not: go through Edge.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import orjson

from edge.cli.llama_server import MODEL_NAME, LlamaServer
from support.hanging import HANG_S, hang_limit
from support.raw import Answer, RawClient, ask

SLOW_S = HANG_S
_POLL_S = 0.02
# The same text each time, and no help from what was asked before.
FIXED: dict[str, Any] = {"model": MODEL_NAME, "temperature": 0, "seed": 7, "cache_prompt": False}
LONG = "Write down the numbers from 1 to 1000 in words, one after the other, without a break."

_VOLATILE = [
    (re.compile(rb'"(id|item_id)":"(chatcmpl|resp|msg|cmpl)[-_][A-Za-z0-9]+"'), rb'"\1":"ID"'),
    (re.compile(rb'"(created|created_at|completed_at)":\d+'), rb'"\1":0'),
    (re.compile(rb'"(\w+_(?:ms|per_second))":[\d.e+-]+'), rb'"\1":0'),
]


def port_of(llama: LlamaServer) -> int:
    return int(llama.url.rsplit(":", 1)[1])


def steady(body: bytes) -> bytes:
    """An answer or a stream without its ids, times and measurements, which differ each time."""
    for volatile, constant in _VOLATILE:
        body = volatile.sub(constant, body)
    return body


async def direct(llama: LlamaServer, path: str, body: dict[str, Any]) -> Answer:
    """The server's own answer."""
    return await ask(port_of(llama), path, body)


async def generating(llama: LlamaServer) -> None:
    """Wait until it has generated something of an answer that is not yet whole."""
    await _until(llama, lambda slots: any(_decoded(slot) for slot in slots), SLOW_S)


async def prefilling(llama: LlamaServer) -> None:
    """Wait until it works on a prompt."""
    await _until(llama, lambda slots: any(slot["is_processing"] and not _decoded(slot) for slot in slots), SLOW_S)


async def idle(llama: LlamaServer, within_s: float = SLOW_S) -> None:
    """Wait until no slot works on anything."""
    await _until(llama, lambda slots: not any(slot["is_processing"] for slot in slots), within_s)


async def predicted(llama: LlamaServer) -> int:
    """How many tokens it has ever generated."""
    return await _metric(llama, "tokens_predicted_total")


async def is_still(llama: LlamaServer) -> bool:
    """Whether it computes nothing at all for a moment."""
    before = await _metric(llama, "n_decode_total")
    await asyncio.sleep(0.3)  # only time can show that nothing happens
    return before == await _metric(llama, "n_decode_total")


async def settled(llama: LlamaServer) -> None:
    """Wait until it computes nothing any more, whatever it had still to find out before."""
    async with hang_limit():
        while not await is_still(llama):
            pass


async def _get(llama: LlamaServer, path: str) -> bytes:
    async with RawClient(port_of(llama)) as client:
        await client.get(path)
        return (await client.answer()).body


async def _metric(llama: LlamaServer, name: str) -> int:
    text = (await _get(llama, "/metrics")).decode()
    return int(re.findall(rf"^llamacpp:{name} (\d+)$", text, re.MULTILINE)[0])


async def _until(llama: LlamaServer, met: Callable[[list[dict[str, Any]]], bool], within_s: float) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not met(slots := orjson.loads(await _get(llama, "/slots"))):
        if loop.time() > deadline:
            raise AssertionError(f"not within {within_s} s: {slots}")
        await asyncio.sleep(_POLL_S)


def _decoded(slot: dict[str, Any]) -> int:
    """Tokens of the answer in progress."""
    return sum(token["n_decoded"] for token in slot.get("next_token", [])) if slot["is_processing"] else 0
