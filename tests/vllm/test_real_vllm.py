"""A real vLLM, request by request: what it answers itself, and what it answers through Edge."""

import asyncio
import re
from typing import Any

import orjson
import pytest
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, RawClient, ask
from support.running import Serve

SLOW_S = 120.0  # of a model on a CPU
SAID = [{"role": "user", "content": "Say hi in three words."}]
FIXED = {"temperature": 0, "seed": 1}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": SAID, "max_tokens": 12, **FIXED}),
    "chat n": (CHAT, {"messages": SAID, "max_tokens": 6, "n": 2, **FIXED}),
    "chat logprobs": (CHAT, {"messages": SAID, "max_tokens": 4, "logprobs": True, "top_logprobs": 2, **FIXED}),
    "chat token ids": (CHAT, {"messages": SAID, "max_tokens": 4, "return_token_ids": True, **FIXED}),
    "chat tools": (
        CHAT, {"messages": SAID, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required", **FIXED},
    ),
    "chat id": (CHAT, {"messages": SAID, "max_tokens": 3, "request_id": "my-id-1", **FIXED}),
    "completions": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 8, **FIXED}),
    "completions list": (COMPLETIONS, {"prompt": ["The sky is", "Grass is"], "max_tokens": 4, **FIXED}),
    "messages": (MESSAGES, {"messages": SAID, "max_tokens": 8, "temperature": 0}),
    "responses": (RESPONSES, {"input": "Say hi.", "max_output_tokens": 8, "temperature": 0}),
}  # fmt: skip
ONLY_WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt logprobs": (CHAT, {"messages": SAID, "max_tokens": 3, "prompt_logprobs": 0, **FIXED}),
    "echo": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 0, "echo": True, "logprobs": 1, **FIXED}),
    "too long": (CHAT, {"messages": [{"role": "user", "content": "word " * 40_000}], "max_tokens": 3}),
    "no tokens": (CHAT, {"messages": SAID, "max_tokens": 0}),
    "embeddings of a model that has none": ("/v1/embeddings", {"input": "hi"}),
}
_DRAWN = re.compile(rb"\b(?:chatcmpl|cmpl|resp|msg|rs|fc|call|chatcmpl-tool)[-_][0-9a-z-]{8,}\b")
_MOMENT = re.compile(rb'"(created|created_at|completed_at)": ?[0-9.]+')


def comparable(body: bytes) -> bytes:
    """Without what differs between two answers to one request."""
    return _MOMENT.sub(rb'"\1":0', _DRAWN.sub(b"ID", body))


async def model_of(port: int) -> str:
    async with RawClient(port) as client:
        await client.get("/v1/models")
        listed = (await client.answer(SLOW_S)).json
    return str(listed["data"][0]["id"])


async def sent(port: int, path: str, body: dict[str, Any]) -> Answer:
    async with RawClient(port) as client:
        await client.post(path, body, {"anthropic-version": "2023-06-01"})
        return await client.answer(SLOW_S)


async def running(port: int) -> float:
    async with RawClient(port) as client:
        await client.get("/metrics")
        told = (await client.answer(SLOW_S)).body
    return sum(float(number) for number in re.findall(rb"^vllm:num_requests_running\{.*\} (\S+)", told, re.MULTILINE))


@pytest.mark.parametrize("name", [*REQUESTS, *ONLY_WHOLE])
async def test_a_whole_answer_is_the_servers_own(serve: Serve, vllm_port: int, name: str) -> None:
    path, fields = {**REQUESTS, **ONLY_WHOLE}[name]
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), **fields}
    direct, through = await sent(vllm_port, path, body), await sent(edge.port, path, body)
    assert through.status == direct.status
    if direct.status == 200:
        assert comparable(through.body) == comparable(direct.body)
        assert through.headers["content-type"] == direct.headers["content-type"]
    else:
        assert (direct.json.get("error") or direct.json).get("message", "") in through.json["error"]["message"]


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_stream_is_the_servers_own(serve: Serve, vllm_port: int, name: str) -> None:
    """But for the repair of reasoning, which these requests do not ask for."""
    path, fields = REQUESTS[name]
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), **fields, "stream": True}
    direct, through = await sent(vllm_port, path, body), await sent(edge.port, path, body)
    assert (through.status, through.clean) == (direct.status, True)
    # How two choices take turns is the scheduler's affair.
    assert sorted(map(comparable, through.events)) == sorted(map(comparable, direct.events))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES, RESPONSES])
async def test_a_reader_that_leaves_stops_the_model(serve: Serve, vllm_port: int, path: str, *, stream: bool) -> None:
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    fields = {CHAT: {"messages": SAID}, MESSAGES: {"messages": SAID}, COMPLETIONS: {"prompt": "a"}}
    most = {"max_output_tokens": 1500} if path == RESPONSES else {"max_tokens": 1500}
    body = {"model": await model_of(vllm_port), **fields.get(path, {"input": "a"}), **most, "ignore_eos": True}
    async with RawClient(edge.port) as client:
        await client.post(path, {**body, "stream": stream})
        async with asyncio.timeout(SLOW_S):
            while not await running(vllm_port):
                await asyncio.sleep(0.05)
    async with asyncio.timeout(SLOW_S):
        while await running(vllm_port):
            await asyncio.sleep(0.05)
    assert (await edge.record())["outcome"] == "client_gone"


async def test_embeddings_as_bytes_pass(serve: Serve, vllm_port: int) -> None:
    """Of a server that embeds; any other refuses both ways alike."""
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), "input": "hi", "encoding_format": "bytes"}
    direct, through = await sent(vllm_port, "/v1/embeddings", body), await ask(edge.port, "/v1/embeddings", body)
    assert through.status == direct.status
    if direct.status == 200:
        assert (through.body, through.headers["content-type"]) == (direct.body, "application/octet-stream")
        assert orjson.loads(through.headers["metadata"])["model"] == body["model"]
