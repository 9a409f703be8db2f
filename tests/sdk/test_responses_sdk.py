"""The official OpenAI SDK's Responses, answered by servers that only speak chat completions or Ollama's API."""

from typing import Any

import openai
import pytest
from fakes import ollama
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_delta,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    head,
    json_answer,
    rst,
    stream_answer,
)
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel
from support.hanging import HANG_S
from support.responses import CHAT, OLLAMA
from support.running import Serve
from support.sdk import BEATING, OpenAITo, heartbeats

SERVERS = {"chat": CHAT, "ollama": OLLAMA}
every_server = pytest.mark.parametrize("server", SERVERS)
ASK: Any = {"model": "m", "input": "hi"}
PATCH: Any = {"type": "custom", "name": "apply_patch"}


class City(BaseModel):
    name: str
    people: int


class Weather(BaseModel):
    """The weather of a city."""

    city: str


def weather() -> Any:
    """The tool in Responses' flat form."""
    function = pydantic_function_tool(Weather)["function"]
    return {"type": "function", **function}


def says(server: str, *pieces: str, reason: str = "stop") -> list[Step]:
    if server == "chat":
        return stream_answer([chat_role(), *map(chat_token, pieces), chat_finish(reason), chat_usage(), DONE])
    return ollama.ollama_answer([*(ollama.said(content=piece) for piece in pieces), ollama.last(reason)])


def calls(server: str) -> list[Step]:
    """A thought, a word, and two calls at once."""
    if server == "ollama":
        functions = [{"function": {"name": "Weather", "arguments": {"city": city}}} for city in ("Rome", "Oslo")]
        said = [{"content": "", "thinking": "Hm"}, {"content": "Let me see."}, {"content": "", "tool_calls": functions}]
        return ollama.ollama_answer([*(ollama.said(**one) for one in said), ollama.last()])

    def call(index: int, arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "Weather"} if first else {})}
        return chat_delta({"tool_calls": [{"index": index, "function": function, **first}]})

    return stream_answer(
        [
            *(chat_role(), chat_delta({"reasoning_content": "Hm"}), chat_token("Let me see.")),
            *(call(0, "", id="call_a", type="function"), call(0, '{"city":'), call(0, '"Rome"}')),
            *(call(1, '{"city":"Oslo"}', id="call_b", type="function"), chat_finish("tool_calls"), chat_usage(), DONE),
        ]
    )


@pytest.fixture
async def client(serve: Serve, openai_to: OpenAITo, request: pytest.FixtureRequest) -> AsyncOpenAI:
    """Of an Edge in front of the kind of server that the test names."""
    return openai_to(await serve(upstream=SERVERS[request.getfixturevalue("server")]))


@every_server
async def test_a_response_has_text_and_usage(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, "Hel", "lo"))
    response = await client.responses.create(**ASK)
    assert response.output_text == "Hello"
    assert (response.status, response.usage.input_tokens, response.usage.output_tokens) == ("completed", 7, 3)
    assert response.usage.input_tokens_details.cached_tokens == 0


@every_server
async def test_a_stream_has_every_event_in_order(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, "Hel", "lo"))
    events = [event async for event in await client.responses.create(**ASK, stream=True)]
    assert [event.type for event in events] == [
        *("response.created", "response.in_progress", "response.output_item.added", "response.content_part.added"),
        *("response.output_text.delta", "response.output_text.delta", "response.output_text.done"),
        *("response.content_part.done", "response.output_item.done", "response.completed"),
    ]
    assert events[-1].response.output_text == "Hello"


@every_server
async def test_the_helper_tells_text_as_it_grows(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, "Hel", "lo"))
    async with client.responses.stream(**ASK) as stream:
        grown = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert grown == ["Hel", "Hello"]
    assert final.output_text == "Hello"


@every_server
async def test_the_helper_assembles_thoughts_and_parallel_calls(
    client: AsyncOpenAI, fake: FakeModel, server: str
) -> None:
    fake.script(*calls(server))
    tools: Any = [pydantic_function_tool(Weather)]  # the helper flattens it by itself
    async with client.responses.stream(**ASK, tools=tools) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    thought, message, *called = final.output
    assert thought.content[0].text == "Hm"
    assert message.content[0].text == "Let me see."
    assert [call.parsed_arguments for call in called] == [Weather(city="Rome"), Weather(city="Oslo")]
    told = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(told) == "".join(call.arguments for call in called)


@every_server
async def test_a_loop_of_calls_goes_round(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    """As an agent does it: the output goes back as input, with the results after it."""
    fake.script(*calls(server))
    fake.script(*says(server, "Sunny in both."))
    tools = [weather()]
    first = await client.responses.create(**ASK, tools=tools)
    results: Any = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "sunny"}
        for item in first.output
        if item.type == "function_call"
    ]
    history: Any = [{"role": "user", "content": "hi"}, *first.output, *results]
    second = await client.responses.create(model="m", input=history, tools=tools)
    assert second.output_text == "Sunny in both."
    told = fake.requests[1].json["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "tool"]
    assert (told[1]["content"], len(told[1]["tool_calls"])) == ("Let me see.", 2)
    assert told[1].get("reasoning_content", told[1].get("thinking")) == "Hm"


@every_server
async def test_a_response_is_parsed_by_a_model(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, '{"name":"Rome"', ',"people":3}'))
    response = await client.responses.parse(**ASK, text_format=City)
    assert response.output_parsed == City(name="Rome", people=3)
    sent = fake.requests[0].json
    schema = sent["format"] if server == "ollama" else sent["response_format"]["json_schema"]["schema"]
    assert set(schema["properties"]) == {"name", "people"}


@every_server
async def test_the_helper_parses_by_a_model_too(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, '{"name":"Rome"', ',"people":3}'))
    async with client.responses.stream(**ASK, text_format=City) as stream:
        final = await stream.get_final_response()
    assert final.output_parsed == City(name="Rome", people=3)


@every_server
async def test_a_length_that_is_reached_is_told(client: AsyncOpenAI, fake: FakeModel, server: str) -> None:
    fake.script(*says(server, "Hel", reason="length"))
    fake.script(*says(server, "Hel", reason="length"))
    whole = await client.responses.create(**ASK, max_output_tokens=16)
    last = [event async for event in await client.responses.create(**ASK, max_output_tokens=16, stream=True)][-1]
    assert last.type == "response.incomplete"
    for response in (whole, last.response):
        assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
        assert response.output_text == "Hel"


async def test_a_custom_tool_is_called_with_text(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    client = openai_to(await serve(upstream=CHAT))
    function = {"name": "apply_patch", "arguments": '{"input":"*** Begin"}'}
    call = chat_delta({"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": function}]})
    fake.script(*stream_answer([chat_role(), call, chat_finish("tool_calls"), DONE]))
    async with client.responses.stream(**ASK, tools=[PATCH]) as stream:
        final = await stream.get_final_response()
    (item,) = final.output
    assert (item.type, item.name, item.input) == ("custom_tool_call", "apply_patch", "*** Begin")


async def test_a_large_request_keeps_its_tools_names(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    """It is read in another process."""
    function = {"name": "apply_patch", "arguments": '{"input":"*** Begin"}'}
    call = chat_delta({"tool_calls": [{"index": 0, "id": "call_a", "type": "function", "function": function}]})
    fake.script(*stream_answer([chat_role(), call, chat_finish("tool_calls"), DONE]))
    client = openai_to(await serve(upstream=CHAT), timeout=HANG_S)
    url = "data:image/png;base64," + "A" * 2_000_000
    seen: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "auto"}]}]
    response = await client.responses.create(model="m", input=seen, tools=[PATCH])
    assert response.output[0].type == "custom_tool_call"
    assert response.tools[0].type == "custom"
    assert fake.requests[0].json["messages"][0]["content"][0]["image_url"]["url"] == url


async def test_heartbeats_are_not_noticed(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    edge = await serve(upstream=CHAT, stream=BEATING)
    beat = heartbeats(edge)
    role, word, *rest = map(chunk, chat_events())
    fake.script(head(), beat, role, beat, word, beat, *rest, end())
    async with openai_to(edge).responses.stream(**ASK) as stream:
        final = await stream.get_final_response()
    assert final.output_text == "Hello there"


@every_server
async def test_what_cannot_be_had_is_a_bad_request(client: AsyncOpenAI, server: str) -> None:
    with pytest.raises(openai.BadRequestError, match="previous_response_id") as told:
        await client.responses.create(**ASK, previous_response_id="resp_1")
    assert told.value.param == "previous_response_id"


@every_server
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_the_servers_own_refusal_is_an_error_of_its_kind(
    client: AsyncOpenAI, fake: FakeModel, server: str, *, streaming: bool
) -> None:
    fake.script(*json_answer({"error": {"message": "no such model", "code": "gone"}}, 404))
    with pytest.raises(openai.NotFoundError, match="no such model"):
        await client.responses.create(**ASK, stream=streaming)


async def test_a_cut_is_an_error(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("Hel")), rst())
    stream = await openai_to(await serve(upstream=CHAT)).responses.create(**ASK, stream=True)
    *_, error, failed = [event async for event in stream]
    assert (error.type, error.code) == ("error", "upstream_cut")
    assert (failed.type, failed.response.error.message) == ("response.failed", error.message)
