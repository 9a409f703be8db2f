"""The official Anthropic SDK cannot tell Edge from the real thing: messages, helpers, tools, errors, cuts."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from fakes.model_server import (
    FakeModel,
    Step,
    chunk,
    end,
    fin,
    head,
    json_answer,
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_error,
    messages_event,
    messages_events,
    messages_ping,
    messages_start,
    messages_stop,
    messages_token,
    rst,
    sse_error,
    stall,
    stream_answer,
    whole,
)
from support.hanging import HANG_S
from support.running import Serve
from support.sdk import BEATING, EVERY_SURFACE, AnthropicTo, heartbeats

ASK: Any = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
TOOL: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
Call = Callable[[AsyncAnthropic], Awaitable[Any]]


async def create(client: AsyncAnthropic) -> Any:
    return await client.messages.create(**ASK)


async def create_stream(client: AsyncAnthropic) -> list[Any]:
    return [event async for event in await client.messages.create(**ASK, stream=True)]


async def helper(client: AsyncAnthropic) -> Any:
    async with client.messages.stream(**ASK) as stream:
        return await stream.get_final_message()


async def count(client: AsyncAnthropic) -> Any:
    return await client.messages.count_tokens(model="m", messages=ASK["messages"])


CALLS: list[Call] = [create, create_stream, helper]


def tool_events() -> list[bytes]:
    """Text, then a call whose input comes in pieces."""

    def piece(text: str) -> bytes:
        delta = {"type": "input_json_delta", "partial_json": text}
        return messages_event("content_block_delta", index=1, delta=delta)

    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
    return [
        *(messages_start(), messages_block_start(), messages_token("Let me see."), messages_block_stop()),
        messages_event("content_block_start", index=1, content_block=use),
        *(piece('{"city":'), piece(' "Rome"}'), messages_block_stop(1)),
        *(messages_delta("tool_use"), messages_stop()),
    ]


async def test_a_message_has_text_stop_reason_and_usage(serve: Serve, anthropic_to: AnthropicTo) -> None:
    message = await create(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    assert [block.text for block in message.content] == ["Hello there"]
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
    assert message._request_id.startswith("req_")


async def test_a_stream_has_every_event_of_the_server(serve: Serve, anthropic_to: AnthropicTo) -> None:
    events = await create_stream(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event.delta.text for event in events if event.type == "content_block_delta") == "Hello there"


async def test_the_stream_helper_tells_text_events_and_the_final_message(
    serve: Serve, anthropic_to: AnthropicTo
) -> None:
    client = anthropic_to(await serve(upstream=EVERY_SURFACE))
    async with client.messages.stream(**ASK) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_message()
    assert [event.text for event in events if event.type == "text"] == ["Hel", "lo", " there"]
    assert events[-1].type == "message_stop"
    assert final.content[0].text == "Hello there"
    assert final.usage.output_tokens == 3
    assert stream.request_id.startswith("req_")
    async with client.messages.stream(**ASK) as stream:
        assert [text async for text in stream.text_stream] == ["Hel", "lo", " there"]


@pytest.mark.parametrize("call", [create, helper])
async def test_tool_calls_are_assembled(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call) -> None:
    fake.script(*stream_answer(tool_events()))
    message = await call(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    text, use = message.content
    assert text.text == "Let me see."
    assert (use.id, use.name, use.input) == ("toolu_1", "weather", {"city": "Rome"})
    assert message.stop_reason == "tool_use"


async def test_tools_and_system_reach_the_server(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    client = anthropic_to(await serve(upstream=EVERY_SURFACE))
    await client.messages.create(**ASK, tools=[TOOL], system="be brief", extra_headers={"anthropic-beta": "some-beta"})
    sent = fake.requests[0]
    assert (sent.json["tools"], sent.json["system"]) == ([TOOL], "be brief")
    assert sent.headers["anthropic-version"] == client.default_headers["anthropic-version"]
    assert sent.headers["anthropic-beta"] == "some-beta"


async def test_tokens_are_counted(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    answer = await count(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    assert answer.input_tokens == 7
    assert fake.requests[0].path == "/v1/messages/count_tokens"


async def test_models_are_listed(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    fake.models = ["m", "meta-llama/Llama-3.2-1B"]
    client = anthropic_to(await serve(upstream=EVERY_SURFACE))
    assert [model.id async for model in client.models.list()] == fake.models


@pytest.mark.parametrize("call", [create_stream, helper])
async def test_heartbeats_are_not_noticed(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call) -> None:
    edge = await serve(stream=BEATING, upstream=EVERY_SURFACE)
    quiet = heartbeats(edge)
    steps = [step for event in messages_events() for step in (quiet, chunk(event))]
    fake.script(*steps[:1], head(), *steps[1:], end())
    got = await call(anthropic_to(edge))
    if call is helper:
        assert got.content[0].text == "Hello there"
    else:
        assert [event.type for event in got].count("content_block_delta") == 3
        assert "ping" not in [event.type for event in got]
    assert (await edge.record())["heartbeats"] >= 10


async def test_the_servers_own_pings_do_not_get_in_the_way(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo
) -> None:
    fake.script(*stream_answer([part for event in messages_events() for part in (messages_ping(), event)]))
    message = await create(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    assert message.content[0].text == "Hello there"


@pytest.mark.parametrize("call", [create_stream, helper])
async def test_a_stream_that_is_left_early_stops_the_model(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call
) -> None:
    fake.script(head(), *map(chunk, messages_events()[:3]), stall())
    edge = await serve(upstream=EVERY_SURFACE)
    client = anthropic_to(edge)
    if call is helper:
        async with client.messages.stream(**ASK) as stream:
            async for _ in stream.text_stream:
                break
    else:
        async with await client.messages.create(**ASK, stream=True) as stream:
            async for _ in stream:
                break
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize("call", [create, create_stream])
async def test_a_client_that_times_out_stops_the_model(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call
) -> None:
    fake.script(stall())
    edge = await serve(upstream=EVERY_SURFACE)
    while not fake.requests:  # where the machine is slow, it may give up before the model has its question
        with pytest.raises(anthropic.APITimeoutError):
            await call(anthropic_to(edge, timeout=0.2))
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_raw_responses_carry_edges_headers(serve: Serve, anthropic_to: AnthropicTo, *, streaming: bool) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    raw = await anthropic_to(edge).messages.with_raw_response.create(**ASK, stream=streaming)
    if streaming:
        assert [event async for event in await raw.parse()]
    record = await edge.record()
    assert raw.headers["x-request-id"] == raw.headers["request-id"] == record["request_id"]
    assert raw.headers["x-stream-id"] == record["stream_id"]
    assert raw.headers["x-edge-upstream"] == "up"


async def test_any_key_will_do_without_auth_and_none_travels_upstream(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo
) -> None:
    await create(anthropic_to(await serve(upstream=EVERY_SURFACE), api_key="sk-ant-whatever"))
    assert {"x-api-key", "authorization"}.isdisjoint(name.lower() for name in fake.requests[0].headers)


@pytest.mark.parametrize("how", ["api_key", "auth_token"])
async def test_with_keys_only_the_right_one_will_do(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, how: str
) -> None:
    """As x-api-key or as a bearer token."""
    edge = await serve(auth={"keys": ["right-key-0123456789"]}, upstream=EVERY_SURFACE)

    def client(key: str) -> AsyncAnthropic:
        return anthropic_to(edge, **{"api_key": None, how: key})

    assert (await create(client("right-key-0123456789"))).content[0].text == "Hello there"
    with pytest.raises(anthropic.AuthenticationError) as told:
        await create(client("wrong-key-0123456789"))
    assert told.value.type == "authentication_error"
    assert len(fake.requests) == 1


# --- errors --------------------------------------------------------------------------------------------------------

STATUSES = [
    (400, anthropic.BadRequestError, "invalid_request_error"),
    (401, anthropic.AuthenticationError, "authentication_error"),
    (403, anthropic.PermissionDeniedError, "permission_error"),
    (404, anthropic.NotFoundError, "not_found_error"),
    (429, anthropic.RateLimitError, "rate_limit_error"),
    (500, anthropic.InternalServerError, "api_error"),
    (503, anthropic.InternalServerError, "overloaded_error"),
    (529, anthropic.InternalServerError, "overloaded_error"),
]


def refusals(status: int, kind: str) -> dict[str, list[Step]]:
    """In the surface's own shape, in OpenAI's, which local servers use everywhere, and in none."""
    return {
        "anthropic": json_answer({"type": "error", "error": {"type": kind, "message": "it said no"}}, status),
        "openai": json_answer({"error": {"message": "it said no", "type": "whatever", "code": status}}, status),
        "text": whole(b"it said no", status),
    }


@pytest.mark.parametrize("shape", ["anthropic", "openai", "text"])
@pytest.mark.parametrize("case", STATUSES, ids=[str(status) for status, *_ in STATUSES])
async def test_a_status_before_the_stream_raises_the_right_exception(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, case: tuple[int, Any, str], shape: str
) -> None:
    status, expected, kind = case
    for _ in CALLS:
        fake.script(*refusals(status, kind)[shape])
    edge = await serve(upstream=EVERY_SURFACE)
    client = anthropic_to(edge)
    for number, call in enumerate(CALLS):
        with pytest.raises(expected) as told:
            await call(client)
        error = told.value
        assert (error.status_code, error.type) == (status, kind)
        assert error.request_id == error.body["request_id"] == (await edge.record(number))["request_id"]
        assert shape == "text" or error.api_message == "it said no"


async def test_count_tokens_fails_in_the_same_shape(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    fake.script(*json_answer({"error": {"message": "no template", "code": 500}}, 500))
    with pytest.raises(anthropic.InternalServerError, match="no template") as told:
        await count(anthropic_to(await serve(upstream=EVERY_SURFACE)))
    assert told.value.type == "api_error"


async def test_overloaded_is_retried_by_the_sdk(serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo) -> None:
    overloaded = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    for _ in range(2):
        fake.script(*json_answer(overloaded, 529, {"retry-after-ms": "1"}))
    message = await create(anthropic_to(await serve(upstream=EVERY_SURFACE), max_retries=2))
    assert message.content[0].text == "Hello there"
    assert len(fake.requests) == 3


async def test_a_surface_that_nobody_speaks_is_told_once(serve: Serve, anthropic_to: AnthropicTo) -> None:
    edge = await serve(upstream={"surfaces": ["embeddings"]})
    with pytest.raises(anthropic.APIStatusError, match="speaks messages") as told:
        await create(anthropic_to(edge, max_retries=2))
    assert (told.value.status_code, told.value.type) == (501, "invalid_request_error")
    await edge.record()
    assert len(edge.records) == 1


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("event", [messages_error("CUDA out of memory"), sse_error("CUDA out of memory")])
async def test_an_error_in_mid_stream_raises_with_its_message(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call, event: bytes
) -> None:
    fake.script(*stream_answer([*messages_events()[:3], event]))
    edge = await serve(upstream=EVERY_SURFACE)
    with pytest.raises(anthropic.APIStatusError) as told:
        await call(anthropic_to(edge))
    assert told.value.type == "api_error"
    assert told.value.api_message == "CUDA out of memory"
    assert (await edge.record())["outcome"] == "upstream_error"


CUTS: dict[str, list[Step]] = {
    "clean": [end()],
    "stop": [chunk(messages_stop()), end()],
    "fin": [fin()],
    "rst": [rst()],
    "inside": [chunk(b"event: content_block_delta\nda"), fin()],
    "silent": [stall()],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("call", CALLS)
async def test_a_cut_is_never_silent_success(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo, call: Call, cut: str
) -> None:
    fake.script(head(), *map(chunk, messages_events()[:4]), *CUTS[cut])
    edge = await serve(upstream=EVERY_SURFACE, stream={"inter_token_s": 0.1 if cut == "silent" else 600})
    with pytest.raises(anthropic.APIStatusError) as told:
        await call(anthropic_to(edge))
    record = await edge.record()
    assert record["outcome"] == ("upstream_stall" if cut == "silent" else "upstream_cut")
    assert told.value.body["request_id"] == record["request_id"]


async def test_after_the_error_event_the_connection_is_broken_off(
    serve: Serve, fake: FakeModel, anthropic_to: AnthropicTo
) -> None:
    """Whoever overlooks the event does not overlook that."""
    fake.script(head(), *map(chunk, messages_events()[:4]), fin())
    client = anthropic_to(await serve(upstream=EVERY_SURFACE))
    raw = await client.messages.with_raw_response.create(**ASK, stream=True)
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        await raw.http_response.aread()


async def test_the_synchronous_client_works_as_well(serve: Serve) -> None:
    edge = await serve(upstream=EVERY_SURFACE)

    def use() -> list[str]:
        with anthropic.Anthropic(base_url=edge.url, api_key="dummy", max_retries=0, timeout=HANG_S) as client:
            message = client.messages.create(**ASK).content[0]
            with client.messages.stream(**ASK) as stream:
                return [getattr(message, "text", ""), stream.get_final_text()]

    assert await asyncio.to_thread(use) == ["Hello there"] * 2
