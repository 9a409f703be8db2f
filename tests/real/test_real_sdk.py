"""The official SDKs on a real model through Edge: streams, helpers, structured output, and the server's death."""

import asyncio
import os
import signal
from typing import Any, Literal

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic import BaseModel
from support.hanging import HANG_S
from support.llama import LONG, generating, idle, is_still
from support.running import Serve
from support.sdk import AnthropicTo, OpenAITo

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

# What the SDKs have no name for goes into ``extra_body``.
MESSAGES: Any = [{"role": "user", "content": "Name three colours, please."}]
ASK: Any = {"model": MODEL_NAME, "messages": MESSAGES, "max_tokens": 8, "extra_body": {"temperature": 0}}
CHAT: Any = {**ASK, "temperature": 0, "seed": 7, "extra_body": {"cache_prompt": False}}
COMPLETE: Any = {
    "model": MODEL_NAME,
    "prompt": ["The three primary colours are", "Once upon a time"],
    "temperature": 0,
    "max_tokens": 6,
    "extra_body": {"cache_prompt": False},
}
ENDLESS: Any = {**CHAT, "messages": [{"role": "user", "content": LONG}], "max_tokens": 2000}


class Colour(BaseModel):
    colour: Literal["red", "blue"]
    warm: bool


@pytest.fixture
async def chat(serve: Serve, llama: LlamaServer, openai_to: OpenAITo) -> AsyncOpenAI:
    return openai_to(await serve(llama.url), timeout=HANG_S)


@pytest.fixture
async def claude(serve: Serve, llama: LlamaServer, anthropic_to: AnthropicTo) -> AsyncAnthropic:
    return anthropic_to(await serve(llama.url), timeout=HANG_S)


async def test_streamed_helped_and_whole_chats_say_the_same(chat: AsyncOpenAI) -> None:
    asked = {**CHAT, "max_tokens": 40, "stop": [":"]}  # for the helper a length that is reached is an error
    whole = await chat.chat.completions.create(**asked)
    chunks = [chunk async for chunk in await chat.chat.completions.create(**asked, stream=True)]
    async with chat.chat.completions.stream(**asked) as stream:
        final = await stream.get_final_completion()
    text = whole.choices[0].message.content
    assert text
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text
    assert final.choices[0].message.content == text
    assert {chunk.choices[0].finish_reason for chunk in chunks} == {None, "stop"}


async def test_usage_comes_with_a_stream_when_asked_and_always_without_one(chat: AsyncOpenAI) -> None:
    asked = {"include_usage": True}
    chunks = [chunk async for chunk in await chat.chat.completions.create(**CHAT, stream=True, stream_options=asked)]
    whole = await chat.chat.completions.create(**CHAT)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8


@pytest.mark.parametrize("streaming", [False, True], ids=["parse", "stream"])
async def test_structured_output_is_what_the_schema_says(chat: AsyncOpenAI, *, streaming: bool) -> None:
    asked = {**CHAT, "max_tokens": 60, "response_format": Colour}
    if streaming:
        async with chat.chat.completions.stream(**asked) as stream:
            answer = await stream.get_final_completion()
    else:
        answer = await chat.chat.completions.parse(**asked)
    assert isinstance(answer.choices[0].message.parsed, Colour)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_logprobs_come_with_every_token(chat: AsyncOpenAI, *, streaming: bool) -> None:
    asked = {**CHAT, "logprobs": True, "top_logprobs": 2, "stop": [":"], "max_tokens": 40}
    if streaming:
        async with chat.chat.completions.stream(**asked) as stream:
            answer: Any = await stream.get_final_completion()
    else:
        answer = await chat.chat.completions.create(**asked)
    choice = answer.choices[0]
    assert ":" not in choice.message.content
    assert "".join(token.token for token in choice.logprobs.content).startswith(choice.message.content)
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


async def test_every_choice_is_there_streaming_or_not(chat: AsyncOpenAI) -> None:
    whole = await chat.chat.completions.create(**CHAT, n=2)
    texts = ["", ""]
    async for chunk in await chat.chat.completions.create(**CHAT, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert all(texts)
    assert texts == [choice.message.content for choice in whole.choices]


async def test_several_prompts_complete_streaming_or_not(chat: AsyncOpenAI) -> None:
    """The server begins such a stream with ``data: null``, on which the SDK would break."""
    whole = await chat.completions.create(**COMPLETE)
    texts = ["", ""]
    async for chunk in await chat.completions.create(**COMPLETE, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert all(texts)
    assert texts == [choice.text for choice in whole.choices]


async def test_responses_are_told_from_its_chat_streamed_helped_and_whole(chat: AsyncOpenAI) -> None:
    """The server's own Responses stream lacks what the helper needs."""
    asked: Any = {"model": MODEL_NAME, "instructions": "Be brief.", "input": MESSAGES, "temperature": 0}
    asked |= {"max_output_tokens": 8, "extra_body": {"cache_prompt": False, "seed": 7}}
    whole = await chat.responses.create(**asked)
    events = [event async for event in await chat.responses.create(**asked, stream=True)]
    async with chat.responses.stream(**asked) as stream:
        helped = [event async for event in stream]
    assert whole.output_text
    for told in (events, helped):
        assert told[-1].response.output_text == whole.output_text
        assert "".join(event.delta for event in told if event.type == "response.output_text.delta") == whole.output_text
        assert [event.sequence_number for event in told] == list(range(len(told)))
        assert told[-1].response.usage.output_tokens == whole.usage.output_tokens == 8
    assert (whole.status, whole.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_a_response_is_parsed_by_its_schema(chat: AsyncOpenAI) -> None:
    asked: Any = {"model": MODEL_NAME, "input": MESSAGES, "temperature": 0, "max_output_tokens": 60}
    answer = await chat.responses.parse(**asked, text_format=Colour)
    assert isinstance(answer.output_parsed, Colour)


async def test_the_model_is_listed_and_retrieved(chat: AsyncOpenAI) -> None:
    """The server has no route for one model."""
    assert [model.id async for model in chat.models.list()] == [MODEL_NAME]
    model = await chat.models.retrieve(MODEL_NAME)
    assert (model.id, model.owned_by) == (MODEL_NAME, "llamacpp")


async def test_a_prompt_that_is_too_long_is_a_bad_request(chat: AsyncOpenAI) -> None:
    asked = {**CHAT, "messages": [{"role": "user", "content": "one two three " * 800}], "stream": True}
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size") as told:
        await chat.chat.completions.create(**asked)
    assert told.value.type == "exceed_context_size_error"


async def test_messages_say_the_same_streamed_and_whole(claude: AsyncAnthropic) -> None:
    whole = await claude.messages.create(**ASK)
    events = [event async for event in await claude.messages.create(**ASK, stream=True)]
    async with claude.messages.stream(**ASK) as stream:
        final = await stream.get_final_message()
    text = whole.content[0].text
    assert text
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == text
    assert final.content[0].text == text
    assert whole.stop_reason == final.stop_reason == "max_tokens"
    assert whole.usage.output_tokens == final.usage.output_tokens == 8


async def test_tokens_are_counted(claude: AsyncAnthropic) -> None:
    one = await claude.messages.count_tokens(model=MODEL_NAME, messages=MESSAGES)
    more = await claude.messages.count_tokens(model=MODEL_NAME, messages=MESSAGES * 2)
    assert 0 < one.input_tokens < more.input_tokens


async def test_a_prompt_that_is_too_long_is_a_bad_request_for_claude_too(claude: AsyncAnthropic) -> None:
    asked = {**ASK, "messages": [{"role": "user", "content": "one two three " * 800}]}
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as told:
        await claude.messages.create(**asked)
    assert told.value.type == "invalid_request_error"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_cancelled_task_stops_the_model(chat: AsyncOpenAI, llama: LlamaServer, *, streaming: bool) -> None:
    async def use() -> None:
        answer: Any = await chat.chat.completions.create(**ENDLESS, stream=streaming)
        async for _ in answer:
            pass

    task = asyncio.create_task(use())
    await generating(llama)
    task.cancel()
    await asyncio.wait([task])
    await idle(llama)
    assert await is_still(llama)


async def test_a_server_that_is_killed_in_mid_answer_is_an_error(
    serve: Serve, mortal: LlamaServer, openai_to: OpenAITo, anthropic_to: AnthropicTo
) -> None:
    edge = await serve(mortal.url)
    stream = await openai_to(edge, timeout=HANG_S).chat.completions.create(**ENDLESS, stream=True)
    whole = asyncio.create_task(
        anthropic_to(edge, timeout=HANG_S).messages.create(
            **{**ASK, "max_tokens": 2000, "messages": ENDLESS["messages"]}
        )
    )
    await edge.lines.wait("start", 2)
    await generating(mortal)
    os.kill(mortal.pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="upstream up"):
        [chunk async for chunk in stream]
    with pytest.raises(anthropic.APIStatusError, match="upstream up"):
        await whole
    assert {record["outcome"] for record in await edge.lines.wait("exchange", 2)} == {"upstream_cut"}
