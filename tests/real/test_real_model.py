"""With a real model: the bytes are its own, and it stops when nobody listens, fails aloud, and is found."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from support.faults import payload
from support.llama import (
    FIXED,
    LONG,
    direct,
    generating,
    idle,
    is_still,
    port_of,
    predicted,
    prefilling,
    settled,
    steady,
)
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, RawClient, ask
from support.running import Running, Serve, make_settings, start

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

ASK = [{"role": "user", "content": "Name three colours, please."}]
USAGE = {"stream_options": {"include_usage": True}}
SHORT: dict[str, dict[str, Any]] = {
    CHAT: {**FIXED, "messages": ASK, "max_tokens": 8, "stream": True, **USAGE},
    COMPLETIONS: {**FIXED, "prompt": "The three primary colours are", "max_tokens": 8, "stream": True, **USAGE},
    MESSAGES: {**FIXED, "messages": ASK, "max_tokens": 8, "stream": True},
}
COLOUR = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "warm": {"type": "boolean"}},
    "required": ["colour", "warm"],
}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "colour", "schema": COLOUR}}
CHAT_ASK = {**FIXED, "messages": ASK}
WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": (CHAT, {**CHAT_ASK, "max_tokens": 8}),
    "stop": (CHAT, {**CHAT_ASK, "max_tokens": 40, "stop": [":"]}),
    "logprobs": (CHAT, {**CHAT_ASK, "max_tokens": 4, "logprobs": True, "top_logprobs": 2}),
    "schema": (CHAT, {**CHAT_ASK, "max_tokens": 60, "response_format": SCHEMA}),
    "choices": (CHAT, {**CHAT_ASK, "max_tokens": 6, "n": 2}),
    "completions": (COMPLETIONS, {**FIXED, "prompt": "The three primary colours are", "max_tokens": 8}),
    "prompts": (COMPLETIONS, {**FIXED, "prompt": ["The three primary colours are", "Once upon"], "max_tokens": 6}),
    "messages": (MESSAGES, {**FIXED, "messages": ASK, "max_tokens": 8}),
}
ENDLESS: dict[str, dict[str, Any]] = {
    CHAT: {**FIXED, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2000, "ignore_eos": True},
    COMPLETIONS: {**FIXED, "prompt": LONG, "max_tokens": 2000, "ignore_eos": True},
    MESSAGES: {**FIXED, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2000},
}


@asynccontextmanager
async def asking(edge: Running, path: str, body: dict[str, Any], **options: Any) -> AsyncIterator[RawClient]:
    async with RawClient(edge.port, **options) as client:
        await client.post(path, body)
        yield client


async def both(llama: LlamaServer, edge: Running, path: str, body: dict[str, Any]) -> tuple[Answer, Answer]:
    """The server's answer, with its prompt cache warm, and the answer through Edge."""
    await direct(llama, path, body)
    return await direct(llama, path, body), await ask(edge.port, path, body)


# --- its own bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHORT)
async def test_a_stream_has_the_bytes_of_the_server(serve: Serve, llama: LlamaServer, path: str) -> None:
    theirs, ours = await both(llama, await serve(llama.url), path, SHORT[path])
    assert ours.status == theirs.status == 200
    assert steady(ours.body) == steady(theirs.body)
    assert ours.clean


@pytest.mark.parametrize("case", WHOLE)
async def test_an_answer_that_is_no_stream_equals_the_servers_own(serve: Serve, llama: LlamaServer, case: str) -> None:
    """Though Edge had it streamed, so that it can be stopped."""
    theirs, ours = await both(llama, await serve(llama.url), *WHOLE[case])
    assert ours.status == theirs.status == 200
    assert orjson.loads(steady(ours.body)) == orjson.loads(steady(theirs.body))


async def test_a_client_that_asks_for_no_usage_gets_what_the_server_would_send(
    serve: Serve, llama: LlamaServer
) -> None:
    """Though Edge asked for usage, and counts by it."""
    edge = await serve(llama.url)
    theirs, ours = await both(llama, edge, CHAT, {**SHORT[CHAT], "stream_options": None})
    assert b'"choices":[]' not in ours.body
    assert steady(ours.body) == steady(theirs.body)
    record = await edge.record()
    assert (record["tokens_out"], record["tokens_from"]) == (8, "reported")


@pytest.mark.parametrize("path", SHORT)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_prompt_that_is_too_long_is_refused_in_the_servers_words(
    serve: Serve, llama: LlamaServer, path: str, *, stream: bool
) -> None:
    text = "one two three " * 800
    body = {**SHORT[path], "stream": stream}
    body |= {"prompt": text} if path == COMPLETIONS else {"messages": [{"role": "user", "content": text}]}
    answer = await ask((await serve(llama.url)).port, path, body)
    assert answer.status == 400
    words = "prompt is too long: " if path == MESSAGES else "exceeds the available context"
    assert words in answer.json["error"]["message"]
    assert "2048" in answer.json["error"]["message"]


# --- nobody listens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "leave"), [(True, "fin"), (False, "reset")], ids=["stream-fin", "whole-reset"])
@pytest.mark.parametrize("path", ENDLESS)
async def test_the_model_stops_when_the_reader_leaves(
    serve: Serve, llama: LlamaServer, path: str, leave: str, *, stream: bool
) -> None:
    edge = await serve(llama.url)
    before = await predicted(llama)
    async with asking(edge, path, {**ENDLESS[path], "stream": stream}) as client:
        await generating(llama)
        client.reset() if leave == "reset" else client.close()
    await idle(llama)
    assert await is_still(llama)
    assert 0 < await predicted(llama) - before < 1000
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_the_model_stops_when_the_reader_leaves_during_prefill(
    serve: Serve, llama: LlamaServer, *, stream: bool
) -> None:
    """A batch of the prompt is not broken off once it is begun; after it nothing follows."""
    edge = await serve(llama.url)
    before = await predicted(llama)
    prompt = "one two three " * 80
    async with asking(
        edge, CHAT, {**ENDLESS[CHAT], "messages": [{"role": "user", "content": prompt}], "stream": stream}
    ):
        await prefilling(llama)
    assert (await edge.record())["outcome"] == "client_gone"
    await idle(llama)
    assert await is_still(llama)
    assert await predicted(llama) - before < 10


async def test_a_reader_that_leaves_the_queue_never_gets_a_slot(serve: Serve, mortal: LlamaServer) -> None:
    edge = await serve(mortal.url)
    async with asking(edge, CHAT, {**ENDLESS[CHAT], "stream": True}):
        await generating(mortal)
        async with asking(edge, CHAT, {**ENDLESS[CHAT], "stream": False}):
            await edge.lines.wait("start", 2)
        assert (await edge.record())["outcome"] == "client_gone"
    await edge.record(1)
    await idle(mortal)
    assert await is_still(mortal)


# --- several -------------------------------------------------------------------------------------------------------


async def test_more_readers_than_slots_all_get_their_answer(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url)
    asked = [{**SHORT[CHAT], "stream": stream, "seed": seed} for seed, stream in enumerate((True, False, True, False))]
    answers = await asyncio.gather(*(ask(edge.port, CHAT, body) for body in asked))
    assert [(answer.status, answer.clean) for answer in answers] == [(200, True)] * 4
    assert [answers[n].json["usage"]["completion_tokens"] for n in (1, 3)] == [8, 8]
    assert [answers[n].events[-1] for n in (0, 2)] == [b"data: [DONE]\n\n"] * 2


async def test_a_reader_that_stalls_does_not_hold_up_another(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url)
    async with asking(edge, CHAT, {**SHORT[CHAT], "max_tokens": 60}, receive_buffer=4096) as stalled:
        other = await ask(edge.port, CHAT, SHORT[CHAT])
        assert other.events[-1] == b"data: [DONE]\n\n"
        late = await stalled.answer()
    assert late.clean
    assert late.events[-1] == b"data: [DONE]\n\n"


# --- the server fails ----------------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_in_mid_answer_is_told_and_then_not_used(
    serve: Serve, mortal: LlamaServer
) -> None:
    edge = await serve(mortal.url, discovery={"interval_s": 0.2})
    async with asking(edge, CHAT, {**ENDLESS[CHAT], "stream": True}) as stream:
        await stream.until(b'"content":"')
        os.kill(mortal.pid, signal.SIGKILL)
        answer = await stream.answer()
    assert (answer.status, answer.clean, answer.ending) == (200, False, "reset")
    assert b'"code":"upstream_cut"' in answer.events[-1]
    assert (await edge.record())["outcome"] == "upstream_cut"
    await edge.lines.wait("upstream lost")
    refused = await ask(edge.port, CHAT, SHORT[CHAT])
    assert (refused.status, refused.json["error"]["code"]) == (503, "no_upstream")
    async with RawClient(edge.port) as client:
        await client.get("/ready")
        ready = await client.answer()
    assert (ready.status, ready.json["ready"]) == (503, False)


async def test_a_server_that_hangs_before_the_first_token_is_a_timeout(serve: Serve, mortal: LlamaServer) -> None:
    """And what it would have answered is not computed when it wakes up."""
    edge = await serve(mortal.url, stream={"first_token_s": 0.3})
    os.kill(mortal.pid, signal.SIGSTOP)
    answer = await ask(edge.port, CHAT, {**ENDLESS[CHAT], "stream": True})
    assert (answer.status, answer.json["error"]["code"]) == (504, "first_token_timeout")
    os.kill(mortal.pid, signal.SIGCONT)
    await settled(mortal)
    assert await predicted(mortal) < 1000


async def test_a_server_that_hangs_in_mid_answer_is_a_stall(serve: Serve, mortal: LlamaServer) -> None:
    edge = await serve(mortal.url, stream={"inter_token_s": 1})
    async with asking(edge, CHAT, {**ENDLESS[CHAT], "stream": True}) as stream:
        await stream.until(b'"content":"')
        os.kill(mortal.pid, signal.SIGSTOP)
        answer = await stream.answer()
    assert (answer.clean, answer.ending) == (False, "reset")
    assert b'"code":"upstream_stall"' in answer.events[-1]
    os.kill(mortal.pid, signal.SIGCONT)
    await settled(mortal)
    assert await predicted(mortal) < 1000


# --- what it is used for -------------------------------------------------------------------------------------------


async def test_responses_are_translated_so_that_they_have_what_the_sdks_need(serve: Serve, llama: LlamaServer) -> None:
    """The server's own stream lacks numbers, so that the SDKs' helpers fail on it."""
    body = {**FIXED, "input": "Name three colours, please.", "max_output_tokens": 4, "stream": True}
    answer = await ask((await serve(llama.url)).port, RESPONSES, body)
    events = [payload(event) for event in answer.events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["usage"]["output_tokens"] == 4


async def test_responses_have_the_bytes_of_the_server_if_asked_for(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url, upstream={"surfaces": ["responses", "chat"]})
    body = {**FIXED, "input": "Name three colours, please.", "max_output_tokens": 6, "stream": True}
    theirs, ours = await both(llama, edge, RESPONSES, body)
    assert steady(ours.body) == steady(theirs.body)
    assert b"response.completed" in ours.events[-1]
    assert ours.clean


async def test_a_server_is_found_on_its_port_named_and_used(llama: LlamaServer) -> None:
    port = port_of(llama)
    edge = await start(make_settings(discovery={"enabled": True, "ports": [port]}))
    try:
        (found,) = edge.lines.of("upstream found")
        assert (found["upstream"], found["kind"], found["models"]) == (f"llama.cpp-{port}", "llama.cpp", [MODEL_NAME])
        answer = await ask(edge.port, CHAT, SHORT[CHAT])
        assert answer.headers["x-edge-upstream"] == f"llama.cpp-{port}"
        assert answer.events[-1] == b"data: [DONE]\n\n"
    finally:
        await edge.stop()
