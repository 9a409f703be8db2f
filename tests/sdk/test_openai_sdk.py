"""The official OpenAI SDK cannot tell Edge from the real thing, except by headers: every surface, every helper."""

import asyncio
from typing import Any

import openai
import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_answer,
    chat_delta,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    completion_events,
    embeddings_body,
    end,
    head,
    json_answer,
    responses_events,
    stall,
    stream_answer,
)
from pydantic import BaseModel
from support.hanging import HANG_S
from support.running import Serve
from support.sdk import BEATING, EVERY_SURFACE, OpenAITo, heartbeats

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


class City(BaseModel):
    name: str
    people: int


def tool_events() -> list[bytes]:
    """Two parallel calls, their arguments in pieces, as OpenAI and vLLM stream them."""

    def call(index: int, arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "weather"} if first else {})}
        return chat_delta({"tool_calls": [{"index": index, "function": function, **first}]})

    return [
        chat_delta({"role": "assistant", "content": None}),
        call(0, "", id="call_a", type="function"),
        call(0, '{"city":'),
        call(0, '"Rome"}'),
        call(1, "", id="call_b", type="function"),
        call(1, '{"city":"Oslo"}'),
        chat_finish("tool_calls"),
        chat_usage(),
        DONE,
    ]


def text_of(chunks: list[Any], index: int = 0) -> str:
    """The text of one choice of a chat or completions stream."""
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join((choice.delta.content if hasattr(choice, "delta") else choice.text) or "" for choice in choices)


async def test_a_chat_answer_has_text_finish_and_usage(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve())
    answer = await client.chat.completions.create(**ASK)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == "Hello there"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 3
    assert answer._request_id.startswith("req_")


async def test_a_chat_stream_begins_with_the_role_and_has_no_usage_chunk_unless_asked(
    serve: Serve, openai_to: OpenAITo
) -> None:
    client = openai_to(await serve())
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert text_of(chunks) == "Hello there"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks), "a chunk without choices breaks clients that did not ask for usage"


async def test_a_chat_stream_has_its_usage_chunk_when_asked(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve())
    asked = {"include_usage": True}
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True, stream_options=asked)]
    assert [chunk.usage.total_tokens for chunk in chunks if not chunk.choices] == [10]
    assert chunks[-1].usage.completion_tokens == 3


async def test_the_stream_helper_tells_content_and_the_final_completion(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve())
    async with client.chat.completions.stream(**ASK) as stream:
        deltas = [event.delta async for event in stream if event.type == "content.delta"]
        final = await stream.get_final_completion()
    assert [delta for delta in deltas if delta] == ["Hel", "lo", " there"]
    assert final.choices[0].message.content == "Hello there"


async def test_the_stream_helper_assembles_tool_calls(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*stream_answer(tool_events()))
    client = openai_to(await serve())
    async with client.chat.completions.stream(**ASK, tools=[TOOL]) as stream:
        final = await stream.get_final_completion()
    calls = [
        (call.id, call.function.name, call.function.parsed_arguments) for call in final.choices[0].message.tool_calls
    ]
    assert calls == [("call_a", "weather", {"city": "Rome"}), ("call_b", "weather", {"city": "Oslo"})]
    assert final.choices[0].finish_reason == "tool_calls"


async def test_a_non_stream_answer_has_whole_tool_calls(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*stream_answer(tool_events()))
    client = openai_to(await serve())
    answer = await client.chat.completions.create(**ASK, tools=[TOOL])
    message = answer.choices[0].message
    assert [call.function.arguments for call in message.tool_calls] == ['{"city":"Rome"}', '{"city":"Oslo"}']
    assert message.content is None


@pytest.mark.parametrize("streaming", [False, True], ids=["parse", "stream"])
async def test_structured_output_is_parsed(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, *, streaming: bool
) -> None:
    fake.script(*chat_answer(['{"name":', '"Rome","peo', 'ple":2800000}']))
    client = openai_to(await serve())
    if streaming:
        async with client.chat.completions.stream(**ASK, response_format=City) as stream:
            answer = await stream.get_final_completion()
    else:
        answer = await client.chat.completions.parse(**ASK, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Rome", people=2_800_000)
    assert fake.requests[0].json["response_format"]["json_schema"]["name"] == "City"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_every_choice_arrives(serve: Serve, fake: FakeModel, openai_to: OpenAITo, *, streaming: bool) -> None:
    pieces = [chat_role(0), chat_role(1), chat_token("a", 0), chat_token("x", 1), chat_token("b", 0)]
    fake.script(*stream_answer([*pieces, chat_finish("stop", 0), chat_token("y", 1), chat_finish("length", 1), DONE]))
    client = openai_to(await serve())
    if streaming:
        chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, n=2, stream=True)]
        assert [text_of(chunks, index) for index in (0, 1)] == ["ab", "xy"]
    else:
        answer = await client.chat.completions.create(**ASK, n=2)
        got = [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices]
        assert got == [(0, "ab", "stop"), (1, "xy", "length")]


async def test_a_content_filter_is_a_finish_not_a_failure(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    filtered = [chat_role(), chat_token("Hel"), chat_finish("content_filter"), DONE]
    for _ in range(2):
        fake.script(*stream_answer(filtered))
    edge = await serve()
    client = openai_to(edge)
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    with pytest.raises(openai.ContentFilterFinishReasonError):
        await client.chat.completions.parse(**ASK, response_format=City)
    await edge.record(1)
    assert [record["outcome"] for record in edge.records] == ["complete", "complete"]


async def test_completions_stream_and_do_not(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve())
    whole = await client.completions.create(model="m", prompt="hi")
    chunks = [chunk async for chunk in await client.completions.create(model="m", prompt="hi", stream=True)]
    assert whole.object == "text_completion"
    assert whole.choices[0].text == text_of(chunks) == "Hello there"
    assert whole.usage.total_tokens == 10


async def test_embeddings_are_vectors(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    client = openai_to(await serve())
    answer = await client.embeddings.create(model="m", input=["hi"])
    assert answer.data[0].embedding == [0.25, -0.5]
    assert fake.requests[0].json["encoding_format"] == "base64", "what the SDK asks for reaches the server"


async def test_embeddings_in_base64_are_vectors_too(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    body = embeddings_body()
    body["data"][0]["embedding"] = "AACAPgAAAL8="  # little-endian float32 0.25, -0.5
    fake.script(*json_answer(body))
    client = openai_to(await serve())
    answer = await client.embeddings.create(model="m", input="hi")
    assert list(answer.data[0].embedding) == [0.25, -0.5]


async def test_models_are_listed_and_retrieved_also_with_slashes(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    fake.models = ["m", "meta-llama/Llama-3.2-1B"]
    client = openai_to(await serve())
    assert [model.id async for model in client.models.list()] == fake.models
    for name in fake.models:
        assert (await client.models.retrieve(name)).id == name
    with pytest.raises(openai.NotFoundError, match='"nobody/nothing" does not exist') as told:
        await client.models.retrieve("nobody/nothing")
    assert told.value.code == "model_not_found"


async def test_responses_stream_and_do_not(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve(upstream=EVERY_SURFACE))
    whole = await client.responses.create(model="m", input="hi")
    events = [event async for event in await client.responses.create(model="m", input="hi", stream=True)]
    assert whole.output_text == "Hello there"
    assert whole.usage.output_tokens == 3
    assert events[0].type == "response.created"
    assert events[-1].response.output_text == "Hello there"
    assert [event.sequence_number for event in events] == list(range(11))


async def test_the_responses_helper_tells_text_and_the_final_response(serve: Serve, openai_to: OpenAITo) -> None:
    client = openai_to(await serve(upstream=EVERY_SURFACE))
    async with client.responses.stream(model="m", input="hi") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert deltas == ["Hel", "lo", " there"]
    assert final.output_text == "Hello there"


async def test_heartbeats_are_not_noticed_in_a_chat_stream(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    edge = await serve(stream=BEATING)
    quiet = heartbeats(edge, 1)
    steps = [step for event in chat_events() for step in (quiet, chunk(event))]
    for _ in range(2):
        fake.script(steps[0], head(), *steps[1:], end())
    client = openai_to(edge)
    chunks = [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]
    assert text_of(chunks) == "Hello there"
    assert all(chunk.choices for chunk in chunks)
    async with client.chat.completions.stream(**ASK) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "Hello there"
    assert (await edge.record(1))["heartbeats"] >= 7


async def test_heartbeats_are_not_noticed_in_a_completions_stream(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    edge = await serve(stream=BEATING)
    first, *rest = completion_events()
    fake.script(heartbeats(edge), head(), chunk(first), heartbeats(edge), *map(chunk, rest), end())
    chunks = [c async for c in await openai_to(edge).completions.create(model="m", prompt="hi", stream=True)]
    assert text_of(chunks) == "Hello there"


@pytest.mark.parametrize("helper", [False, True], ids=["create", "stream"])
async def test_heartbeats_are_not_noticed_in_a_responses_stream(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, *, helper: bool
) -> None:
    edge = await serve(stream=BEATING, upstream=EVERY_SURFACE)
    created, progress, *rest = responses_events()
    quiet = heartbeats(edge, 1)
    steps = [step for event in rest for step in (chunk(event), quiet)][:-1]  # after the last event there is no silence
    fake.script(quiet, head(), chunk(created), quiet, chunk(progress), *steps, end())
    client = openai_to(edge)
    if helper:
        async with client.responses.stream(model="m", input="hi") as stream:
            final = await stream.get_final_response()
        assert final.output_text == "Hello there"
    else:
        events = [event async for event in await client.responses.create(model="m", input="hi", stream=True)]
        assert [event.type for event in events if event.type != "keepalive"] == types_of(responses_events())
        numbers = [event.sequence_number for event in events]
        assert numbers == sorted(numbers), "a heartbeat never runs ahead of the events"


def types_of(events: list[bytes]) -> list[str]:
    return [orjson.loads(event.split(b"data: ")[1])["type"] for event in events]


@pytest.mark.parametrize("surface", ["chat", "completions", "responses"])
async def test_a_stream_that_is_closed_early_stops_the_model(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, surface: str
) -> None:
    parts = {"chat": chat_events(), "completions": completion_events(), "responses": responses_events()}[surface]
    fake.script(head(), *map(chunk, parts[:6]), stall())
    edge = await serve(upstream=EVERY_SURFACE)
    client = openai_to(edge)
    calls = {
        "chat": lambda: client.chat.completions.create(**ASK, stream=True),
        "completions": lambda: client.completions.create(model="m", prompt="hi", stream=True),
        "responses": lambda: client.responses.create(model="m", input="hi", stream=True),
    }
    async with await calls[surface]() as stream:
        async for _ in stream:
            break
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


async def test_a_helper_that_is_left_early_stops_the_model(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(head(), *map(chunk, chat_events()[:2]), stall())
    edge = await serve()
    async with openai_to(edge).chat.completions.stream(**ASK) as stream:
        async for event in stream:
            if event.type == "content.delta" and event.delta:
                break
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_client_that_times_out_stops_the_model(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, *, streaming: bool
) -> None:
    fake.script(stall())
    edge = await serve()
    while not fake.requests:  # where the machine is slow, it may give up before the model has its question
        with pytest.raises(openai.APITimeoutError):
            await openai_to(edge, timeout=0.2).chat.completions.create(**ASK, stream=streaming)
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_raw_responses_carry_edges_headers(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, *, streaming: bool
) -> None:
    edge = await serve()
    mine = {"x-request-id": "my-own.request_1"}
    raw = await openai_to(edge).chat.completions.with_raw_response.create(**ASK, stream=streaming, extra_headers=mine)
    if streaming:
        assert [chunk async for chunk in raw.parse()]
    assert raw.request_id == raw.headers["x-request-id"] == "my-own.request_1"
    assert raw.headers["x-edge-upstream"] == "up"
    assert raw.headers["x-stream-id"] == (await edge.record())["stream_id"]
    assert fake.requests[0].headers["x-request-id"] == "my-own.request_1"


async def test_any_key_will_do_without_auth_and_none_travels_upstream(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    await openai_to(await serve(), api_key="sk-whatever").chat.completions.create(**ASK)
    assert b"sk-whatever" not in repr(fake.requests[0].headers).encode()
    assert "authorization" not in fake.requests[0].headers


async def test_with_keys_only_the_right_one_will_do(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    edge = await serve(auth={"keys": ["right-key-0123456789"]})
    answer = await openai_to(edge, api_key="right-key-0123456789").chat.completions.create(**ASK)
    assert answer.choices[0].message.content == "Hello there"
    with pytest.raises(openai.AuthenticationError) as told:
        await openai_to(edge, api_key="wrong-key-0123456789").chat.completions.create(**ASK)
    assert told.value.code == "invalid_api_key"
    with pytest.raises(openai.AuthenticationError):
        await openai_to(edge, api_key="wrong-key-0123456789").models.list()
    assert len(fake.requests) == 1


async def test_the_synchronous_client_works_as_well(serve: Serve) -> None:
    edge = await serve(upstream=EVERY_SURFACE)

    def use() -> list[str]:
        with openai.OpenAI(base_url=f"{edge.url}/v1", api_key="dummy", max_retries=0, timeout=HANG_S) as client:
            chat = list(client.chat.completions.create(**ASK, stream=True))
            whole = client.chat.completions.create(**ASK)
            completion = list(client.completions.create(model="m", prompt="hi", stream=True))
            return [text_of(chat), whole.choices[0].message.content or "", text_of(completion)]

    assert await asyncio.to_thread(use) == ["Hello there"] * 3


async def test_a_client_that_closes_at_the_last_event_is_no_failure(serve: Serve) -> None:
    """The helper does not wait for the end of the body; from a thread of its own it often beats Edge to it."""
    edge = await serve(upstream=EVERY_SURFACE)

    def use() -> list[str]:
        texts = []
        with openai.OpenAI(base_url=f"{edge.url}/v1", api_key="dummy", max_retries=0, timeout=HANG_S) as client:
            for _ in range(10):
                with client.responses.stream(model="m", input="hi") as stream:
                    for event in stream:
                        if event.type == "response.completed":
                            texts.append(event.response.output_text)
                            break
        return texts

    assert await asyncio.to_thread(use) == ["Hello there"] * 10
    await edge.record(9)
    assert {record["outcome"] for record in edge.records} == {"complete"}
