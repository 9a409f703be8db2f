"""What goes wrong reaches users of the OpenAI SDK as its own exceptions; nothing that is lost looks like success."""

from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_events,
    chat_role,
    chat_token,
    chunk,
    completion_events,
    end,
    fin,
    head,
    json_answer,
    messages_error,
    responses_body,
    responses_event,
    responses_events,
    rst,
    sse,
    sse_error,
    stall,
    stream_answer,
    whole,
)
from openai import AsyncOpenAI
from support.running import Serve
from support.sdk import EVERY_SURFACE, OpenAITo

ASK: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
Call = Callable[[AsyncOpenAI], Awaitable[Any]]


async def chat(client: AsyncOpenAI) -> Any:
    return await client.chat.completions.create(**ASK)


async def chat_stream(client: AsyncOpenAI) -> list[Any]:
    return [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]


async def chat_helper(client: AsyncOpenAI) -> Any:
    async with client.chat.completions.stream(**ASK) as stream:
        return await stream.get_final_completion()


async def chat_parse(client: AsyncOpenAI) -> Any:
    return await client.chat.completions.parse(**ASK)


async def completion(client: AsyncOpenAI) -> Any:
    return await client.completions.create(model="m", prompt="hi")


async def completion_stream(client: AsyncOpenAI) -> list[Any]:
    return [chunk async for chunk in await client.completions.create(model="m", prompt="hi", stream=True)]


async def responses(client: AsyncOpenAI) -> Any:
    return await client.responses.create(model="m", input="hi")


async def responses_stream(client: AsyncOpenAI) -> list[Any]:
    return [event async for event in await client.responses.create(model="m", input="hi", stream=True)]


async def responses_helper(client: AsyncOpenAI) -> Any:
    async with client.responses.stream(model="m", input="hi") as stream:
        return await stream.get_final_response()


async def embeddings(client: AsyncOpenAI) -> Any:
    return await client.embeddings.create(model="m", input="hi")


async def assert_failed(call: Call, client: AsyncOpenAI) -> None:
    """It fails in the middle. A stream of Responses is not an exception then, but ends in events that say so."""
    if call is responses_stream:
        *_, error, failed = await responses_stream(client)
        assert (error.type, failed.type) == ("error", "response.failed")
        assert failed.response.error.message == error.message
    elif call is responses_helper:
        with pytest.raises(RuntimeError, match=r"Didn't receive a `response\.completed` event"):
            await call(client)
    else:
        with pytest.raises(openai.APIError):  # not the helpers' RuntimeError, which only misses the end
            await call(client)


CALLS: list[Call] = [
    chat,
    chat_stream,
    chat_helper,
    chat_parse,
    completion,
    completion_stream,
    responses,
    responses_stream,
    responses_helper,
    embeddings,
]
# What each has been sent when something happens: enough for some generated content to be out.
BEGUN = {
    chat: chat_events()[:2],
    chat_stream: chat_events()[:2],
    chat_helper: chat_events()[:2],
    completion: completion_events()[:2],
    completion_stream: completion_events()[:2],
    responses: responses_events()[:6],
    responses_stream: responses_events()[:6],
    responses_helper: responses_events()[:6],
}
STATUSES = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


def openai_error(message: str = "the model said no", **extra: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "some_error", "param": "temperature", "code": "some_code", **extra}}


@pytest.mark.parametrize("case", STATUSES, ids=[str(status) for status, _ in STATUSES])
@pytest.mark.parametrize("call", [chat, chat_stream])
async def test_a_status_before_the_stream_raises_the_right_exception(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call, case: tuple[int, Any]
) -> None:
    status, expected = case
    fake.script(*json_answer(openai_error(), status))
    edge = await serve()
    with pytest.raises(expected, match="the model said no") as told:
        await call(openai_to(edge))
    error = told.value
    assert (error.status_code, error.code, error.type, error.param) == (
        status,
        "some_code",
        "some_error",
        "temperature",
    )
    record = await edge.record()
    assert error.request_id == record["request_id"]
    assert record["status"] == status


@pytest.mark.parametrize("call", CALLS)
async def test_every_call_raises_the_same_for_a_refusal(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call
) -> None:
    fake.script(*json_answer(openai_error(), 400))
    with pytest.raises(openai.BadRequestError, match="the model said no"):
        await call(openai_to(await serve(upstream=EVERY_SURFACE)))


REFUSALS = {
    "fastapi": (b'{"detail":"Not Found"}', "Not Found"),
    "ollama": (b'{"error":"plain text"}', "plain text"),
    "flat": (b'{"object":"error","message":"old vLLM","code":404}', "old vLLM"),
    "html": (b"<h1>nginx</h1>", "upstream up answered with status 404 Not Found"),
    "empty": (b"", "upstream up answered with status 404 Not Found"),
}


@pytest.mark.parametrize("call", [chat, chat_stream])
@pytest.mark.parametrize("shape", REFUSALS)
async def test_a_refusal_in_any_shape_has_its_message(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call, shape: str
) -> None:
    body, said = REFUSALS[shape]
    fake.script(*whole(body, 404))
    with pytest.raises(openai.NotFoundError) as told:
        await call(openai_to(await serve()))
    assert told.value.body["message"] == said
    assert told.value.code == "not_found"


async def test_a_refusal_without_a_reason_is_final(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    """It is not taken for the refusal of a stream, which Edge answers by asking for none."""
    fake.script(*whole(b"", 400))
    with pytest.raises(openai.BadRequestError):
        await chat(openai_to(await serve()))
    assert len(fake.requests) == 1


@pytest.mark.parametrize("call", [chat, chat_stream])
async def test_an_error_as_the_streams_first_event_is_a_status(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call
) -> None:
    fake.script(*stream_answer([chat_role(), sse_error("context is full", code=400), DONE]))
    with pytest.raises(openai.BadRequestError, match="context is full"):
        await call(openai_to(await serve()))


async def test_a_server_that_is_down_is_told(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    edge = await serve()
    await fake.refuse()
    for connection in fake.connections:
        connection.close()
    with pytest.raises(openai.InternalServerError) as told:
        await chat_stream(openai_to(edge))
    assert (told.value.status_code, told.value.code) == (502, "upstream_unreachable")
    with pytest.raises(openai.InternalServerError) as told:
        await chat(openai_to(edge))
    assert (told.value.status_code, told.value.code) == (503, "no_upstream")


# --- retries, which are the SDK's own ------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [chat, chat_stream])
@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_the_sdk_retries_what_may_be_retried(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call, status: int
) -> None:
    for _ in range(2):
        fake.script(*json_answer(openai_error(), status, {"retry-after-ms": "1"}))
    edge = await serve()
    assert await call(openai_to(edge, max_retries=2))
    assert len(fake.requests) == 3
    assert [record["status"] for record in await edge.lines.wait("exchange", 3)] == [status, status, 200]


NOT_AGAIN: list[tuple[int, dict[str, str]]] = [
    (400, {}),
    (404, {}),
    (429, {"x-should-retry": "false"}),
    (503, {"x-should-retry": "false"}),
    (429, {"retry-after": "121"}),
]


@pytest.mark.parametrize(("status", "headers"), NOT_AGAIN)
async def test_the_sdk_does_not_retry_what_cannot_help(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, status: int, headers: dict[str, str]
) -> None:
    fake.script(*json_answer(openai_error(), status, headers))
    with pytest.raises(openai.APIStatusError) as told:
        await chat(openai_to(await serve(), max_retries=2))
    assert told.value.status_code == status
    assert len(fake.requests) == 1
    assert {name: told.value.response.headers[name] for name in headers} == headers


async def test_the_sdk_retries_what_the_server_says_may_be_retried(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    fake.script(*json_answer(openai_error(), 400, {"x-should-retry": "true", "retry-after-ms": "1"}))
    assert await chat(openai_to(await serve(), max_retries=1))
    assert len(fake.requests) == 2


async def test_edges_own_refusal_that_no_retry_can_cure_is_not_retried(serve: Serve, openai_to: OpenAITo) -> None:
    edge = await serve(upstream={"surfaces": ["embeddings"]})
    with pytest.raises(openai.APIStatusError, match="speaks responses") as told:
        await responses(openai_to(edge, max_retries=2))
    assert (told.value.status_code, told.value.code) == (501, "surface_not_supported")
    await edge.record()
    assert len(edge.records) == 1


# --- in the middle of the stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize("terminator", [[], [DONE]], ids=["", "DONE"])
@pytest.mark.parametrize("call", [chat_stream, chat_helper, chat, completion_stream])
async def test_an_error_in_mid_stream_raises_with_its_message(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call, terminator: list[bytes]
) -> None:
    fake.script(*stream_answer([*BEGUN[call], sse_error("CUDA out of memory"), *terminator]))
    edge = await serve()
    with pytest.raises(openai.APIError, match="CUDA out of memory"):
        await call(openai_to(edge))
    assert (await edge.record())["outcome"] == "upstream_error"


@pytest.mark.parametrize(
    "event",
    [sse({"error": "just text"}), sse({"message": "just text"}, "error"), messages_error("just text")],
    ids=["text", "event", "anthropic"],
)
async def test_an_error_in_a_shape_that_the_sdk_would_miss_raises_too(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, event: bytes
) -> None:
    fake.script(*stream_answer([chat_role(), chat_token("a"), event, DONE]))
    with pytest.raises(openai.APIError, match="just text"):
        await chat_stream(openai_to(await serve()))


CUTS: dict[str, list[Step]] = {
    "clean": [end()],
    "done": [chunk(DONE), end()],
    "fin": [fin()],
    "rst": [rst()],
    "inside": [chunk(b'data: {"choi'), fin()],
    "garbage": [chunk(b"data: {nonsense}\n\n"), end()],
}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("call", BEGUN)
async def test_a_cut_is_never_silent_success(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call, cut: str
) -> None:
    fake.script(head(), *map(chunk, BEGUN[call]), *CUTS[cut])
    edge = await serve(upstream=EVERY_SURFACE)
    await assert_failed(call, openai_to(edge))
    assert (await edge.record())["outcome"] in ("upstream_cut", "upstream_error")


@pytest.mark.parametrize("call", [chat_stream, chat_helper, responses_stream, responses_helper])
async def test_a_silence_in_mid_stream_ends_in_an_error(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call
) -> None:
    fake.script(head(), *map(chunk, BEGUN[call]), stall())
    edge = await serve(stream={"inter_token_s": 0.1}, upstream=EVERY_SURFACE)
    await assert_failed(call, openai_to(edge))
    assert (await edge.record())["outcome"] == "upstream_stall"


@pytest.mark.parametrize("call", [chat, chat_stream, responses_stream])
async def test_no_first_token_in_time_is_a_status(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo, call: Call
) -> None:
    fake.script(head(), stall())
    edge = await serve(stream={"first_token_s": 0.1}, upstream=EVERY_SURFACE)
    with pytest.raises(openai.InternalServerError, match=r"no token within 0\.1 s") as told:
        await call(openai_to(edge))
    assert (told.value.status_code, told.value.code) == (504, "first_token_timeout")


async def test_a_failed_response_is_told_as_the_surface_does(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    failed = {**responses_body(None), "status": "failed", "error": {"code": "server_error", "message": "broke"}}
    events = [*responses_events()[:6], responses_event("response.failed", 6, response=failed)]
    fake.script(*stream_answer(events))
    fake.script(*stream_answer(events))
    client = openai_to(await serve(upstream=EVERY_SURFACE))
    last = (await responses_stream(client))[-1]
    assert (last.type, last.response.error.message) == ("response.failed", "broke")
    answer = await responses(client)
    assert (answer.status, answer.error.message) == ("failed", "broke")


async def test_an_error_event_of_responses_carries_message_and_code(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    fake.script(head(), *map(chunk, responses_events()[:6]), rst())
    client = openai_to(await serve(upstream=EVERY_SURFACE))
    stream = await client.responses.create(model="m", input="hi", stream=True)
    told = [await anext(stream) for _ in range(7)][-1]
    assert (told.type, told.code, told.sequence_number) == ("error", "upstream_cut", 6)
    assert "broke off in the middle of the answer" in told.message
    failed = await anext(stream)
    assert (failed.type, failed.response.status, failed.response.error.message) == (
        "response.failed",
        "failed",
        told.message,
    )
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
