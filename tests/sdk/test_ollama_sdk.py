"""The official Ollama client cannot tell an Edge in front of a chat server from an Ollama; and completions on one."""

import asyncio
from typing import Any

import ollama
import openai
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_answer,
    chat_delta,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    gate,
    head,
    json_answer,
    sse_error,
    stream_answer,
)
from support.ollama import generate_lines, lines_answer, pass_for_ollama
from support.running import Running, Serve
from support.sdk import BEATING, OllamaTo, OpenAITo, heartbeats

HI: Any = [{"role": "user", "content": "hi"}]
PNG = b"\x89PNG\r\n\x1a\n\x00"


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sun in {city}"


async def in_thread(edge: Running, call: Any) -> Any:
    """The synchronous client, which would stop the loop that Edge runs on."""

    def run() -> Any:
        with ollama.Client(host=edge.url) as client:
            return call(client)

    return await asyncio.to_thread(run)


async def test_a_chat_has_text_reason_and_figures(serve: Serve, ollama_to: OllamaTo) -> None:
    answer = await ollama_to(await serve()).chat("m", HI)
    assert answer.message.content == "Hello there"
    assert (answer.done, answer.done_reason) == (True, "stop")
    assert (answer.prompt_eval_count, answer.eval_count) == (7, 3)
    assert answer.total_duration > 0


async def test_a_chat_streams(serve: Serve, ollama_to: OllamaTo) -> None:
    parts = [part async for part in await ollama_to(await serve()).chat("m", HI, stream=True)]
    assert "".join(part.message.content for part in parts) == "Hello there"
    assert [part.done for part in parts].count(True) == 1
    assert parts[-1].eval_count == 3


async def test_the_synchronous_client_does_the_same(serve: Serve) -> None:
    edge = await serve()
    told = await in_thread(edge, lambda client: [part.message.content for part in client.chat("m", HI, stream=True)])
    assert "".join(told) == "Hello there"
    assert (await in_thread(edge, lambda client: client.generate("m", "hi"))).response == "Hello there"


async def test_a_generate_in_both_ways(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    client = ollama_to(await serve())
    whole = await client.generate("m", "hi", system="be brief", images=[PNG], options={"temperature": 0.5})
    assert whole.response == "Hello there"
    assert [message["role"] for message in fake.requests[0].json["messages"]] == ["system", "user"]
    assert fake.requests[0].json["temperature"] == 0.5
    parts = [part async for part in await client.generate("m", "hi", stream=True)]
    assert "".join(part.response for part in parts) == "Hello there"


async def test_a_tool_is_called_and_its_result_goes_back(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    call = {"index": 0, "id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":'}}
    more = {"index": 0, "function": {"arguments": '"Rome"}'}}
    deltas = [chat_delta({"tool_calls": [call]}), chat_delta({"tool_calls": [more]})]
    fake.script(*stream_answer([chat_role(), *deltas, chat_finish("tool_calls"), chat_usage(), DONE]))
    client = ollama_to(await serve())
    messages: list[Any] = [*HI]
    parts = [part async for part in await client.chat("m", messages, tools=[weather], stream=True)]
    (asked,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert (asked.function.name, asked.function.arguments) == ("weather", {"city": "Rome"})
    assert fake.requests[0].json["tools"][0]["function"]["parameters"]["required"] == ["city"]
    messages += [
        {"role": "assistant", "content": "", "tool_calls": [asked]},
        {"role": "tool", "content": weather(**asked.function.arguments), "tool_name": "weather"},
    ]
    assert (await client.chat("m", messages, tools=[weather])).message.content == "Hello there"
    _, assistant, result = fake.requests[1].json["messages"]
    assert (result["content"], result["tool_call_id"]) == ("sun in Rome", assistant["tool_calls"][0]["id"])


async def test_thinking_is_told_apart(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    fake.script(*stream_answer([chat_role(), chat_delta({"reasoning": "hm"}), chat_token("yes"), chat_finish(), DONE]))
    answer = await ollama_to(await serve()).chat("m", HI, think=True)
    assert (answer.message.thinking, answer.message.content) == ("hm", "yes")


async def test_a_schema_is_passed_on(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    schema: Any = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    fake.script(*chat_answer(['{"n":', " 1}"]))
    answer = await ollama_to(await serve()).chat("m", HI, format=schema)
    assert answer.message.content == '{"n": 1}'
    assert fake.requests[0].json["response_format"]["json_schema"]["schema"] == schema


async def test_models_are_listed_shown_and_running(serve: Serve, ollama_to: OllamaTo) -> None:
    client = ollama_to(await serve())
    (listed,) = (await client.list()).models
    assert listed.model == "m:latest"
    assert listed.modified_at is not None
    shown = await client.show(listed.model)
    assert shown.capabilities == ["completion", "tools"]
    assert shown.modelinfo == {"general.architecture": "unknown"}
    (running,) = (await client.ps()).models
    assert running.model == listed.model
    with pytest.raises(ollama.ResponseError) as caught:
        await client.show("none")
    assert (caught.value.status_code, caught.value.error) == (404, "model 'none' not found")
    assert (await client.chat(listed.model, HI)).message.content == "Hello there"


async def test_embeddings_in_both_forms(serve: Serve, ollama_to: OllamaTo) -> None:
    client = ollama_to(await serve())
    assert (await client.embed("m", ["hi"])).embeddings == [[0.25, -0.5]]
    assert (await client.embeddings("m", "hi")).embedding == [0.25, -0.5]


async def test_a_model_is_loaded_by_asking_nothing(serve: Serve, ollama_to: OllamaTo) -> None:
    client = ollama_to(await serve())
    assert (await client.generate("m")).done_reason == "load"
    assert (await client.chat("m", keep_alive=0)).done_reason == "unload"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_raised_with_its_status(
    serve: Serve, fake: FakeModel, ollama_to: OllamaTo, *, stream: bool
) -> None:
    fake.script(*json_answer({"error": {"message": "too long", "type": "invalid_request_error"}}, 400))
    with pytest.raises(ollama.ResponseError) as caught:
        await consumed(ollama_to(await serve()), stream=stream)
    assert (caught.value.status_code, caught.value.error) == (400, "too long")


async def consumed(client: ollama.AsyncClient, *, stream: bool = True) -> list[Any]:
    answer: Any = await client.chat("m", HI, stream=stream)
    return [part async for part in answer] if stream else [answer]


async def test_an_error_in_the_middle_is_raised(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), chunk(sse_error("the model broke")), end())
    with pytest.raises(ollama.ResponseError, match="the model broke"):
        await consumed(ollama_to(await serve()))


async def test_heartbeats_are_parts_without_content(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    edge = await serve(stream=BEATING)
    fake.script(heartbeats(edge), *chat_answer())
    parts = await consumed(ollama_to(edge))
    assert (parts[0].message.content, parts[0].done) == ("", False)
    assert "".join(part.message.content for part in parts) == "Hello there"


async def test_leaving_in_the_middle_stops_the_model(serve: Serve, fake: FakeModel, ollama_to: OllamaTo) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), gate("never"))
    edge = await serve()
    stream: Any = await ollama_to(edge).chat("m", HI, stream=True)
    async for part in stream:
        assert part.message.content == "a"
        break
    await stream.aclose()
    assert await (await fake.request(0)).left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


async def test_management_is_refused_by_name(serve: Serve, ollama_to: OllamaTo) -> None:
    client = ollama_to(await serve(upstream={"allow_management": False}))
    for call in (client.pull("x"), client.delete("x"), client.copy("a", "b")):
        with pytest.raises(ollama.ResponseError, match="allow_management") as caught:
            await call
        assert caught.value.status_code == 403


async def test_legacy_completions_of_the_openai_sdk_on_an_ollama(
    serve: Serve, fake: FakeModel, openai_to: OpenAITo
) -> None:
    pass_for_ollama(fake)
    client = openai_to(await serve())
    fake.script(*lines_answer(generate_lines()), path="/api/generate")
    whole = await client.completions.create(model="llama3:8b", prompt="Once", max_tokens=3)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("Hello there", "stop")
    assert whole.usage.total_tokens == 10
    fake.script(*lines_answer(generate_lines(reason="length")), path="/api/generate")
    parts = [part async for part in await client.completions.create(model="llama3:8b", prompt="Once", stream=True)]
    assert "".join(part.choices[0].text for part in parts) == "Hello there"
    assert parts[-1].choices[0].finish_reason == "length"
    with pytest.raises(openai.BadRequestError) as caught:
        await client.completions.create(model="llama3:8b", prompt=["a", "b"])
    assert caught.value.param == "prompt"
