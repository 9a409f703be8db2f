"""The official Anthropic SDK in front of servers that speak chat or Ollama's API: nothing is missing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic, beta_async_tool
from fakes import ollama
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_answer,
    chat_delta,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    fin,
    head,
    json_answer,
    sse_error,
    stall,
    stream_answer,
)
from pydantic import BaseModel
from support.hanging import HANG_S
from support.running import Serve
from support.sdk import BEATING, AnthropicTo, heartbeats

ASK: Any = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
Call = Callable[[AsyncAnthropic], Awaitable[Any]]


class City(BaseModel):
    name: str
    people: int


async def create(client: AsyncAnthropic) -> Any:
    return await client.messages.create(**ASK)


async def create_stream(client: AsyncAnthropic) -> list[Any]:
    return [event async for event in await client.messages.create(**ASK, stream=True)]


async def helper(client: AsyncAnthropic) -> Any:
    async with client.messages.stream(**ASK) as stream:
        return await stream.get_final_message()


CALLS: list[Call] = [create, create_stream, helper]


def tool_events() -> list[bytes]:
    """Thought and text, then two parallel calls, the pieces of their arguments mixed."""

    def call(index: int, arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "weather"} if first else {})}
        return chat_delta({"tool_calls": [{"index": index, "function": function, **first}]})

    return [
        *(chat_role(), chat_delta({"reasoning_content": "hm"}), chat_token("Let me see.")),
        *(call(n, "", id=f"call_{n}", type="function") for n in (0, 1)),
        *(call(0, '{"city":'), call(1, '{"city": "Os'), call(0, ' "Rome"}'), call(1, 'lo"}')),
        *(chat_finish("tool_calls"), chat_usage(), DONE),
    ]


@pytest.mark.parametrize("call", [create, helper])
async def test_a_message_has_text_stop_reason_and_usage(serve: Serve, anthropic_to: AnthropicTo, call: Call) -> None:
    message = await call(anthropic_to(await serve()))
    assert [block.text for block in message.content] == ["Hello there"]
    assert (message.role, message.model, message.stop_reason) == ("assistant", "m", "end_turn")
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)


async def test_every_event_of_a_stream_is_one_that_the_sdk_knows(serve: Serve, anthropic_to: AnthropicTo) -> None:
    events = await create_stream(anthropic_to(await serve()))
    assert [type(event).__name__ for event in events] == [
        "RawMessageStartEvent",
        "RawContentBlockStartEvent",
        *["RawContentBlockDeltaEvent"] * 3,
        "RawContentBlockStopEvent",
        "RawMessageDeltaEvent",
        "RawMessageStopEvent",
    ]
    assert all(event.model_extra == {} for event in events)


@pytest.mark.parametrize("call", [create, helper])
async def test_parallel_calls(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call) -> None:
    fake.script(*stream_answer(tool_events()))
    message = await call(anthropic_to(await serve()))
    thinking, text, *uses = message.content
    assert (thinking.thinking, text.text) == ("hm", "Let me see.")
    assert [(use.id, use.name, use.input) for use in uses] == [
        ("call_0", "weather", {"city": "Rome"}),
        ("call_1", "weather", {"city": "Oslo"}),
    ]
    assert message.stop_reason == "tool_use"


async def test_the_helpers_events_tell_thought_text_and_input(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo
) -> None:
    fake.script(*stream_answer(tool_events()))
    async with anthropic_to(await serve()).messages.stream(**ASK) as stream:
        events = [event async for event in stream]
    assert [event.thinking for event in events if event.type == "thinking"] == ["hm"]
    assert [event.text for event in events if event.type == "text"] == ["Let me see."]
    assert [event.snapshot for event in events if event.type == "input_json"][-1] == {"city": "Oslo"}


@pytest.mark.parametrize("kind", ["chat", "ollama"])
async def test_a_loop_of_tools_runs_to_its_end(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, kind: str
) -> None:
    """The runner of the SDK calls what the model asked for, and gives back what it gave."""
    asked: list[str] = []

    @beta_async_tool
    async def weather(city: str) -> str:
        """Tell the weather."""
        asked.append(city)
        return f"sunny in {city}"

    if kind == "ollama":
        ollama.be_ollama(fake, "m")
        calls = [{"function": {"name": "weather", "arguments": {"city": city}}} for city in ("Rome", "Oslo")]
        fake.script(*ollama.ollama_answer([ollama.said(tool_calls=calls), ollama.last()]))
    else:
        fake.script(*stream_answer(tool_events()))
    edge = await serve(upstream={"kind": "ollama" if kind == "ollama" else "openai-compatible"})
    final = await anthropic_to(edge).beta.messages.tool_runner(**ASK, tools=[weather]).until_done()
    assert asked == ["Rome", "Oslo"]
    assert final.content[0].text == "Hello there"
    *_, rome, oslo = fake.requests[1].json["messages"]
    assert (rome["role"], rome["content"]) == ("tool", "sunny in Rome")
    assert oslo["content"] == "sunny in Oslo"


async def test_structured_output_is_parsed(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    fake.script(*chat_answer(['{"name": "Oslo", ', '"people": 7}']))
    message = await anthropic_to(await serve()).messages.parse(**ASK, output_format=City)
    assert message.parsed_output == City(name="Oslo", people=7)
    wanted = fake.requests[0].json["response_format"]
    assert wanted["type"] == "json_schema"
    assert set(wanted["json_schema"]["schema"]["properties"]) == {"name", "people"}


async def test_tokens_are_estimated(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    client = anthropic_to(await serve())
    raw = await client.messages.with_raw_response.count_tokens(
        model="m", messages=ASK["messages"], system="be brief", tools=[TOOL]
    )
    assert (await raw.parse()).input_tokens > 10
    assert raw.headers["x-edge-estimated"] == "true"
    assert fake.requests == []


async def test_an_empty_answer(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    client = anthropic_to(await serve())
    for call in (create, helper):
        fake.script(*chat_answer([]))
        message = await call(client)
        assert (message.content, message.stop_reason) == ([], "end_turn")


@pytest.mark.parametrize("call", [create_stream, helper])
async def test_heartbeats_are_not_noticed(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call) -> None:
    edge = await serve(stream=BEATING)
    quiet = heartbeats(edge)
    steps = [step for event in chat_events() for step in (quiet, chunk(event))]
    fake.script(*steps[:1], head(), *steps[1:], end())
    got = await call(anthropic_to(edge))
    if call is helper:
        assert got.content[0].text == "Hello there"
    else:
        assert "ping" not in [event.type for event in got]
    assert (await edge.record())["heartbeats"] >= 10


# Failures


@pytest.mark.parametrize("call", CALLS)
async def test_a_status_raises_the_right_exception(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call
) -> None:
    fake.script(*json_answer({"error": {"message": "slow down", "type": "x", "param": None, "code": None}}, 429))
    with pytest.raises(anthropic.RateLimitError) as told:
        await call(anthropic_to(await serve()))
    assert (told.value.type, told.value.api_message) == ("rate_limit_error", "slow down")


async def test_a_field_that_cannot_be_said_is_a_bad_request(serve: Serve, anthropic_to: AnthropicTo) -> None:
    client = anthropic_to(await serve())
    search: Any = {"type": "web_search_20250305", "name": "web_search"}
    with pytest.raises(anthropic.BadRequestError, match=r"tools\.0\.type") as told:
        await client.messages.create(**ASK, tools=[search])
    assert told.value.type == "invalid_request_error"


@pytest.mark.parametrize("call", CALLS)
async def test_an_error_in_mid_stream_raises_with_its_message(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call
) -> None:
    fake.script(*stream_answer([*chat_events()[:3], sse_error("CUDA out of memory")]))
    with pytest.raises(anthropic.APIStatusError) as told:
        await call(anthropic_to(await serve()))
    assert (told.value.type, told.value.api_message) == ("api_error", "CUDA out of memory")


CUTS: dict[str, list[Step]] = {"clean": [end()], "done": [chunk(DONE), end()], "fin": [fin()], "silent": [stall()]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("call", CALLS)
async def test_a_cut_is_never_silent_success(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call, cut: str
) -> None:
    fake.script(head(), *map(chunk, chat_events()[:3]), *CUTS[cut])
    edge = await serve(stream={"inter_token_s": 0.1 if cut == "silent" else 600})
    with pytest.raises(anthropic.APIStatusError):
        await call(anthropic_to(edge))
    assert (await edge.record())["outcome"] == ("upstream_stall" if cut == "silent" else "upstream_cut")


async def test_a_stream_that_is_left_early_stops_the_model(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo
) -> None:
    fake.script(head(), *map(chunk, chat_events()[:2]), stall())
    edge = await serve()
    async with anthropic_to(edge).messages.stream(**ASK) as stream:
        async for _ in stream.text_stream:
            break
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


async def test_the_synchronous_client_works_as_well(serve: Serve) -> None:
    edge = await serve()

    def use() -> list[str]:
        with anthropic.Anthropic(base_url=edge.url, api_key="dummy", max_retries=0, timeout=HANG_S) as client:
            message = client.messages.create(**ASK).content[0]
            with client.messages.stream(**ASK) as stream:
                return [getattr(message, "text", ""), stream.get_final_text()]

    assert await asyncio.to_thread(use) == ["Hello there"] * 2
