"""The official SDKs read streams with ids and heartbeats as if there were none, and the rest of one as a stream."""

from typing import Any

import pytest
from fakes import ollama
from fakes.model_server import (
    FakeModel,
    chat_events,
    chunk,
    completion_events,
    end,
    head,
    messages_events,
    responses_events,
)
from fakes.steps import Step
from openai import AsyncStream
from openai.types.chat import ChatCompletionChunk
from support.resumed import RESUME, ended
from support.running import Running, Serve
from support.sdk import BEATING, EVERY_SURFACE, AnthropicTo, OllamaTo, OpenAITo, heartbeats

WORDS = ["Hel", "lo", " there"]
HI: Any = [{"role": "user", "content": "hi"}]


def halting(edge: Running, events: list[bytes], first: Step) -> list[Step]:
    """Silence before the first token, and after the second."""
    at = len(events) // 2
    early, late = chunk(b"".join(events[:at])), chunk(b"".join(events[at:]))
    return [heartbeats(edge), first, early, heartbeats(edge), late, end()]


@pytest.fixture
async def edge(serve: Serve) -> Running:
    return await serve(stream=BEATING, upstream=EVERY_SURFACE)


async def test_openai_chat(edge: Running, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*halting(edge, chat_events(WORDS), head()))
    client = openai_to(edge, default_headers=RESUME)
    stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
    chunks = [one async for one in stream]
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == "Hello there"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(one.choices for one in chunks)
    stream_id = stream.response.headers["x-stream-id"]
    await ended(edge, stream_id)
    rest = await client.get(
        f"/streams/{stream_id}?starting_after=2",
        cast_to=ChatCompletionChunk,
        stream=True,
        stream_cls=AsyncStream[ChatCompletionChunk],
    )
    assert [one async for one in rest] == chunks[2:]
    assert (await edge.record())["heartbeats"] >= 4


async def test_openai_chats_helper(edge: Running, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*halting(edge, chat_events(WORDS), head()))
    client = openai_to(edge, default_headers=RESUME)
    async with client.chat.completions.stream(model="m", messages=HI) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello there"
    assert kinds.count("content.delta") == 4  # the role has an empty one


async def test_openai_completions(edge: Running, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*halting(edge, completion_events(WORDS), head()))
    client = openai_to(edge, default_headers=RESUME)
    stream = await client.completions.create(model="m", prompt="hi", stream=True)
    assert "".join([one.choices[0].text async for one in stream]) == "Hello there"


async def test_openai_responses(edge: Running, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*halting(edge, responses_events(WORDS), head()))
    client = openai_to(edge, default_headers=RESUME)
    async with client.responses.stream(model="m", input="hi") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert final.output_text == "Hello there"
    assert "response.output_text.delta" in {event.type for event in events}


async def test_anthropic_messages(edge: Running, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    fake.script(*halting(edge, messages_events(WORDS), head()))
    client = anthropic_to(edge, default_headers=RESUME)
    async with client.messages.stream(model="m", max_tokens=9, messages=HI) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert (text, final.stop_reason) == ("Hello there", "end_turn")


async def test_ollama_chat(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    """Its heartbeats say what they are, in a field of ours."""
    edge = await serve(stream=BEATING, upstream={"surfaces": ["ollama_chat"]})
    fake.script(*halting(edge, [*map(ollama.token, WORDS), ollama.last()], ollama.lines_head()))
    client = ollama_to(edge, headers=RESUME)
    told = [one async for one in await client.chat(model="m", messages=HI, stream=True)]
    assert "".join(one.message.content or "" for one in told) == "Hello there"
    assert [one.done for one in told].count(True) == 1
    assert len(told) >= 4 + 4
