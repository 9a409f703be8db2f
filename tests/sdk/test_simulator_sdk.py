"""The official SDKs in front of the simulator: what a client is developed with behaves like the real thing."""

from typing import Any

import anthropic
import ollama
import openai
import pytest
from pydantic import BaseModel
from support.raw import ask, split_events
from support.running import Serve
from support.sdk import AnthropicTo, OllamaTo, OpenAITo
from support.simulated import serve_simulator

HI: Any = [{"role": "user", "content": "hi there"}]


class Place(BaseModel):
    name: str
    tags: list[str]


class Trip(BaseModel):
    """Plan a trip."""

    days: int
    to: Place
    via: Place | None


async def test_a_stream_and_its_helper(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve_simulator(serve))
    async with client.chat.completions.stream(model="echo", messages=HI, n=2) as stream:
        told = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert [text for text in told if text] == ["hi ", "hi ", "there", "there"]
    assert [choice.message.content for choice in final.choices] == ["hi there"] * 2
    assert [choice.message.role for choice in final.choices] == ["assistant"] * 2


async def test_structured_output_is_parsed(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve_simulator(serve))
    parsed = await client.chat.completions.parse(model="echo", messages=HI, response_format=Trip)
    trip = parsed.choices[0].message.parsed
    assert trip is not None
    assert (trip.days, trip.to.name) == (1, "some name")


async def test_a_tool_call_is_parsed_from_its_pieces(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve_simulator(serve))
    tools = [openai.pydantic_function_tool(Trip)]
    async with client.chat.completions.stream(model="tools", messages=HI, tools=tools) as stream:
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Trip)
    assert final.choices[0].finish_reason == "tool_calls"


async def test_failures_are_raised(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve_simulator(serve))
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model="error", messages=HI)
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="nobody", messages=HI)
    stream = await client.chat.completions.create(model="error-mid", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="the simulated model broke"):
        [chunk async for chunk in stream]
    cut = await client.chat.completions.create(model="cut", messages=HI, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        [chunk async for chunk in cut]


async def test_embeddings_come_in_the_sdks_own_encoding(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve_simulator(serve))
    answer = await client.embeddings.create(model="echo", input=["a", "b"], dimensions=4)
    assert [len(item.embedding) for item in answer.data] == [4, 4]


class TestMessages:
    async def test_thoughts_and_text_are_blocks(self, serve: Serve, anthropic_to: AnthropicTo) -> None:
        client = anthropic_to(await serve_simulator(serve))
        async with client.messages.stream(model="think", messages=HI, max_tokens=50) as stream:
            text = "".join([piece async for piece in stream.text_stream])
            message = await stream.get_final_message()
        assert text == "hi there"
        assert [block.type for block in message.content] == ["thinking", "text"]
        assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 13)

    async def test_a_tool_is_called_and_told_of(self, serve: Serve, anthropic_to: AnthropicTo) -> None:
        client = anthropic_to(await serve_simulator(serve))
        tools: Any = [{"name": "trip", "input_schema": Trip.model_json_schema()}]
        message = await client.messages.create(model="tools", messages=HI, max_tokens=99, tools=tools)
        (call,) = message.content
        assert call.type == "tool_use"
        assert (message.stop_reason, Trip.model_validate(call.input).days) == ("tool_use", 1)
        gave = [{"type": "tool_result", "tool_use_id": call.id, "content": "booked"}]
        told: Any = [*HI, {"role": "assistant", "content": message.content}, {"role": "user", "content": gave}]
        last = await client.messages.create(model="tools", messages=told, max_tokens=99, tools=tools)
        (said,) = last.content
        assert said.type == "text"
        assert said.text == "The tool said: booked"

    async def test_bounds_and_failures(self, serve: Serve, anthropic_to: AnthropicTo) -> None:
        client = anthropic_to(await serve_simulator(serve))
        stopped = await client.messages.create(model="echo", messages=HI, max_tokens=9, stop_sequences=["there"])
        assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "there")
        cut = await client.messages.create(model="lorem", messages=HI, max_tokens=2)
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 2)
        with pytest.raises(anthropic.BadRequestError):
            await client.messages.create(model="error", messages=HI, max_tokens=9)
        with pytest.raises(anthropic.APIStatusError, match="the simulated model broke"):
            async with client.messages.stream(model="error-mid", messages=HI, max_tokens=9) as stream:
                await stream.get_final_message()


class TestOllama:
    async def test_it_is_listed_and_answers(self, serve: Serve, ollama_to: OllamaTo) -> None:
        client = ollama_to(await serve_simulator(serve))
        assert "echo:latest" in [model.model for model in (await client.list()).models]
        assert (await client.show("echo")).capabilities == ["completion", "tools"]
        answer = await client.chat("echo:latest", HI)
        assert (answer.message.content, answer.done_reason, answer.eval_count) == ("hi there", "stop", 2)
        pieces = [part.response async for part in await client.generate("echo", "as it is", raw=True, stream=True)]
        assert "".join(piece or "" for piece in pieces) == "as it is"

    async def test_failures_are_raised(self, serve: Serve, ollama_to: OllamaTo) -> None:
        client = ollama_to(await serve_simulator(serve))
        with pytest.raises(ollama.ResponseError, match="refuses every request"):
            await client.chat("error", HI)
        with pytest.raises(ollama.ResponseError, match="the simulated model broke"):
            [part async for part in await client.chat("error-mid", HI, stream=True)]


async def test_a_session_is_echoed_turn_by_turn(serve: Serve) -> None:
    edge = await serve_simulator(serve)
    for message in ("one", "two"):
        answer = await ask(edge.port, "/v1/chat/stream", {"message": message, "model": "echo", "session_id": "s"})
        assert f'"delta":"{message}"'.encode() in answer.body
        assert b'"done":true' in split_events(answer.body)[-1]
