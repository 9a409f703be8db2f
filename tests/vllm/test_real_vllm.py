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
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "The weather.", "parameters": CITY}
TOOL = {"type": "function", "function": FUNCTION}
NAMED = {"type": "function", "function": {"name": "get_weather"}}
ASKED = {"name": "get_weather", "description": "The weather.", "input_schema": CITY}
ANY = {"type": "any"}
JSON: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
CALLED = [
    *SAID,
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bonn"}'}},
    ]},
    {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
]  # fmt: skip
USED = [
    *SAID,
    {"role": "assistant", "content": [
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Bonn"}},
    ]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "rain"}]},
]  # fmt: skip
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"messages": SAID, "max_tokens": 12, **FIXED}),
    "chat n": (CHAT, {"messages": SAID, "max_tokens": 6, "n": 2, **FIXED}),
    "chat logprobs": (CHAT, {"messages": SAID, "max_tokens": 4, "logprobs": True, "top_logprobs": 2, **FIXED}),
    "chat token ids": (CHAT, {"messages": SAID, "max_tokens": 4, "return_token_ids": True, **FIXED}),
    "chat tools": (
        CHAT, {"messages": SAID, "max_tokens": 60, "tools": [TOOL], "tool_choice": "required", **FIXED},
    ),
    "chat n 4": (CHAT, {"messages": SAID, "max_tokens": 5, "n": 4, **FIXED}),
    "chat usage": (CHAT, {"messages": SAID, "max_tokens": 4, "stop": ["\n\n"], **FIXED}),
    "chat schema": (CHAT, {"messages": SAID, "max_tokens": 40, "response_format": JSON, **FIXED}),
    "chat regex": (CHAT, {"messages": SAID, "max_tokens": 9, "structured_outputs": {"regex": "a{4}b"}, **FIXED}),
    "chat json object": (
        CHAT, {"messages": SAID, "max_tokens": 30, "response_format": {"type": "json_object"}, **FIXED},
    ),
    "chat tool named": (
        CHAT,
        {"messages": SAID, "max_tokens": 40, "tools": [TOOL], "tool_choice": NAMED, **FIXED},
    ),
    "chat tools auto": (CHAT, {"messages": SAID, "max_tokens": 20, "tools": [TOOL], **FIXED}),
    "chat after a call": (CHAT, {"messages": CALLED, "max_tokens": 8, "tools": [TOOL], **FIXED}),
    "chat id": (CHAT, {"messages": SAID, "max_tokens": 3, "request_id": "my-id-1", **FIXED}),
    "completions": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 8, **FIXED}),
    "completions n 4": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 4, "n": 4, **FIXED}),
    "completions logprobs": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 3, "logprobs": 2, **FIXED}),
    "completions echo": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 3, "echo": True, **FIXED}),
    "completions of tokens": (COMPLETIONS, {"prompt": [504, 6376, 314], "max_tokens": 3, **FIXED}),
    "completions list": (COMPLETIONS, {"prompt": ["The sky is", "Grass is"], "max_tokens": 4, **FIXED}),
    "messages": (MESSAGES, {"messages": SAID, "max_tokens": 8, "temperature": 0}),
    "messages system": (
        MESSAGES, {"system": "Be brief.", "messages": SAID, "max_tokens": 8, "stop_sequences": ["."], "temperature": 0},
    ),
    "messages tools": (
        MESSAGES, {"messages": SAID, "max_tokens": 60, "tools": [ASKED], "tool_choice": ANY, "temperature": 0},
    ),
    "messages after a call": (
        MESSAGES, {"messages": USED, "max_tokens": 8, "tools": [ASKED], "temperature": 0},
    ),
    "responses tools": (
        RESPONSES,
        {"input": "Say hi.", "max_output_tokens": 20, "temperature": 0, "tools": [{"type": "function", **FUNCTION}]},
    ),
    "responses schema": (
        RESPONSES,
        {"input": "Say hi.", "max_output_tokens": 40, "temperature": 0,
         "text": {"format": {"type": "json_schema", **JSON["json_schema"]}}},
    ),
    "responses items": (
        RESPONSES, {"instructions": "Be brief.", "input": SAID, "max_output_tokens": 8, "temperature": 0},
    ),
    "responses": (RESPONSES, {"input": "Say hi.", "max_output_tokens": 8, "temperature": 0}),
}  # fmt: skip
ONLY_WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "prompt logprobs": (CHAT, {"messages": SAID, "max_tokens": 3, "prompt_logprobs": 0, **FIXED}),
    "echo": (COMPLETIONS, {"prompt": "The sky is", "max_tokens": 0, "echo": True, "logprobs": 1, **FIXED}),
    "too long": (CHAT, {"messages": [{"role": "user", "content": "word " * 40_000}], "max_tokens": 3}),
    "no tokens": (CHAT, {"messages": SAID, "max_tokens": 0}),
    "prompt logprobs of a completion": (
        COMPLETIONS,
        {"prompt": "The sky is", "max_tokens": 2, "prompt_logprobs": 1, **FIXED},
    ),
    "prompt logprobs streamed": (
        CHAT,
        {"messages": SAID, "max_tokens": 3, "prompt_logprobs": 1, "stream": True, **FIXED},
    ),
    "chat echo": (CHAT, {"messages": SAID, "max_tokens": 3, "echo": True, **FIXED}),
    "too long streamed": (
        CHAT,
        {"messages": [{"role": "user", "content": "word " * 40_000}], "max_tokens": 3, "stream": True},
    ),
    "completion too long": (COMPLETIONS, {"prompt": "word " * 40_000, "max_tokens": 3}),
    "messages too long": (MESSAGES, {"messages": [{"role": "user", "content": "word " * 40_000}], "max_tokens": 3}),
    "responses too long": (RESPONSES, {"input": "word " * 40_000, "max_output_tokens": 3}),
    "no model of that name": (CHAT, {"model": "nope", "messages": SAID}),
    "a number that is a text": (CHAT, {"messages": SAID, "max_tokens": 3, "temperature": "hot"}),
    "a number that is too high": (CHAT, {"messages": SAID, "max_tokens": 3, "top_p": 7}),
    "a role that is none": (CHAT, {"messages": [{"role": "clown", "content": "x"}], "max_tokens": 3, **FIXED}),
    "messages without a limit": (MESSAGES, {"messages": SAID}),
    "messages of no model": (MESSAGES, {"model": "nope", "messages": SAID, "max_tokens": 3}),
    "responses that follow an unknown one": (RESPONSES, {"input": "x", "previous_response_id": "resp_abc"}),
    "responses of no model": (RESPONSES, {"model": "nope", "input": "x"}),
    "completions of no model": (COMPLETIONS, {"model": "nope", "prompt": "x"}),
    "tokens of messages": ("/v1/messages/count_tokens", {"messages": SAID}),
    "embeddings of a model that has none": ("/v1/embeddings", {"input": "hi"}),
}
_KINDS = rb"chatcmpl|cmpl|resp|msg|rs|fc|call|chatcmpl-tool|embd|pooling|pool|classify|score|rerank"
_DRAWN = re.compile(rb"\b(?:" + _KINDS + rb")[-_](?:req_)?[0-9a-z-]{8,}\b")
_INDEX = re.compile(rb'"choices":\[\{"index":(\d+)')
_FINGERPRINT = re.compile(rb',"system_fingerprint":"[^"]*"')
_MOMENT = re.compile(rb'"(created|created_at|completed_at)": ?[0-9.]+')


def comparable(body: bytes) -> bytes:
    """Without what differs between two answers to one request."""
    return _MOMENT.sub(rb'"\1":0', _DRAWN.sub(b"ID", body))


def told(error: dict[str, Any]) -> str:
    """Its message; Edge says ``stream`` where the client says nothing, which the validator counts as one field more."""
    return re.sub(r"<dict of \d+ items>", "<dict>", str((error.get("error") or error).get("message", "")))


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
        assert told(direct.json) in told(through.json) or told(through.json).startswith("prompt is too long: ")


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_stream_is_the_servers_own(serve: Serve, vllm_port: int, name: str) -> None:
    """But for the repair of reasoning, which these requests do not ask for."""
    path, fields = REQUESTS[name]
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), **fields, "stream": True}
    direct, through = await sent(vllm_port, path, body), await sent(edge.port, path, body)
    assert (through.status, through.clean) == (direct.status, True)
    ours, theirs = (b"".join(sorted(map(comparable, answer.events))) for answer in (through, direct))
    if len(set(_INDEX.findall(theirs))) > 1:
        # vLLM's fingerprint is at the end of each choice, but Edge's clients get it at that of the last one.
        assert ours.count(b"system_fingerprint") == 1
        ours, theirs = _FINGERPRINT.sub(b"", ours), _FINGERPRINT.sub(b"", theirs)
    # How several choices take turns is the scheduler's affair.
    assert sorted(ours.split(b"\n\n")) == sorted(theirs.split(b"\n\n"))


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, MESSAGES, RESPONSES])
async def test_a_reader_that_leaves_stops_the_model(serve: Serve, vllm_port: int, path: str, *, stream: bool) -> None:
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    story = [{"role": "user", "content": "Write a very long story about the sea."}]  # Messages has no ignore_eos
    fields = {CHAT: {"messages": story}, MESSAGES: {"messages": story}, COMPLETIONS: {"prompt": "a"}}
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


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_slot_is_free_once_the_four_choices_of_who_left_have_ended(
    serve: Serve, vllm_port: int, *, stream: bool
) -> None:
    """Its figures count sequences; what holds the slot afterwards is what others run, and nobody else does."""
    edge = await serve(f"http://127.0.0.1:{vllm_port}", upstream={"max_concurrency": 1})
    model = await model_of(vllm_port)
    four = {"model": model, "messages": SAID, "max_tokens": 1500, "ignore_eos": True, "n": 4, "stream": stream}
    async with RawClient(edge.port) as client:
        await client.post(CHAT, four)
        async with asyncio.timeout(SLOW_S):
            while await running(vllm_port) != 4:
                await asyncio.sleep(0.02)
    body = {"model": model, "messages": SAID, "max_tokens": 1}
    assert (await sent(edge.port, CHAT, body)).status == 200
    left, waited = (await edge.record(), await edge.record(1))
    assert (left["outcome"], waited["outcome"]) == ("client_gone", "complete")
    assert waited["queued_s"] < 3  # by its figures, not by the clock


RELAYED: dict[str, dict[str, Any]] = {
    "/tokenize": {"messages": SAID},
    "/detokenize": {"tokens": [504, 6376, 314]},
    "/pooling": {"input": "hi"},
    "/classify": {"input": "hi"},
    "/v1/score": {"text_1": "sky", "text_2": ["blue", "car"]},
    "/v1/rerank": {"query": "sky", "documents": ["blue", "car"]},
    "/v2/rerank": {"query": "sky", "documents": ["blue", "car"]},
    "/rerank": {"query": "sky", "documents": ["blue", "car"]},
}


@pytest.mark.parametrize("path", RELAYED)
async def test_a_relayed_route_answers_as_the_server(serve: Serve, vllm_port: int, path: str) -> None:
    """Of a server that lacks the route, or whose model cannot do it, the refusal."""
    edge = await serve(f"http://127.0.0.1:{vllm_port}", upstream={"relay": list(RELAYED)})
    body = {"model": await model_of(vllm_port), **RELAYED[path]}
    direct, through = await sent(vllm_port, path, body), await sent(edge.port, path, body)
    assert through.status == direct.status
    if direct.status == 200:
        assert comparable(through.body) == comparable(direct.body)


EMBEDDED: dict[str, dict[str, Any]] = {
    "text": {"input": "hi"},
    "texts": {"input": ["hi", "there"]},
    "tokens": {"input": [504, 6376, 314]},
    "base64": {"input": "hi", "encoding_format": "base64"},
    "too long": {"input": "word " * 40_000},
    "nothing": {"input": []},
    "a number that is a text": {"input": "hi", "dimensions": "wide"},
}


@pytest.mark.parametrize("name", EMBEDDED)
async def test_embeddings_are_the_servers_own(serve: Serve, vllm_port: int, name: str) -> None:
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), **EMBEDDED[name]}
    direct, through = await sent(vllm_port, "/v1/embeddings", body), await sent(edge.port, "/v1/embeddings", body)
    assert through.status == direct.status
    if direct.status == 200:
        assert comparable(through.body) == comparable(direct.body)


async def test_embeddings_as_bytes_pass(serve: Serve, vllm_port: int) -> None:
    """Of a server that embeds; any other refuses both ways alike."""
    edge = await serve(f"http://127.0.0.1:{vllm_port}")
    body = {"model": await model_of(vllm_port), "input": "hi", "encoding_format": "bytes"}
    direct, through = await sent(vllm_port, "/v1/embeddings", body), await ask(edge.port, "/v1/embeddings", body)
    assert through.status == direct.status
    if direct.status == 200:
        assert (through.body, through.headers["content-type"]) == (direct.body, "application/octet-stream")
        assert orjson.loads(through.headers["metadata"])["model"] == body["model"]
