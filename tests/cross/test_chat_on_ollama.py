"""A client of chat completions in front of an Ollama: it must not be able to tell, but for what it gains."""

from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import FakeModel, chunk, end, fin, gate, json_answer, stall
from support.raw import CHAT, Answer, RawClient, ask, chat_body
from support.running import Running, Serve


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel) -> Running:
    ollama.be_ollama(fake, "m")
    return await serve(upstream={"kind": "ollama"})


def chunks(answer: Answer) -> list[Any]:
    assert answer.events[-1] == b"data: [DONE]\n\n"
    return [orjson.loads(event[6:]) for event in answer.events[:-1]]


def deltas(answer: Answer) -> list[dict[str, Any]]:
    return [chunk["choices"][0]["delta"] for chunk in chunks(answer) if chunk["choices"]]


def text(answer: Answer, name: str = "content") -> str:
    return "".join(delta.get(name) or "" for delta in deltas(answer))


def finish(answer: Answer) -> Any:
    return [chunk["choices"][0]["finish_reason"] for chunk in chunks(answer) if chunk["choices"]][-1]


async def test_a_stream_is_a_chat_stream(edge: Running, fake: FakeModel) -> None:
    answer = await ask(edge.port, CHAT, chat_body())
    assert (answer.status, answer.clean) == (200, True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert deltas(answer)[0] == {"role": "assistant", "content": ""}
    assert (text(answer), finish(answer)) == ("Hello there", "stop")
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks(answer)}) == 1
    assert all("usage" not in chunk for chunk in chunks(answer))
    sent = fake.requests[0]
    assert sent.path == "/api/chat"
    assert sent.json == {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    record = await edge.record()
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("complete", 7, 3)
    assert (record["load_s"], record["prompt_s"], record["output_s"]) == (1.5, 0.5, 2.0)
    assert record["output_tokens_per_s"] == 1.5


async def test_usage_is_told_to_who_asks(edge: Running) -> None:
    answer = await ask(edge.port, CHAT, chat_body(stream_options={"include_usage": True}))
    last = chunks(answer)[-1]
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


async def test_in_one_piece_it_is_a_chat_completion(edge: Running) -> None:
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert answer.headers["content-type"] == "application/json"
    (choice,) = answer.json["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello there"}
    assert (choice["finish_reason"], answer.json["object"]) == ("stop", "chat.completion")
    assert answer.json["usage"]["total_tokens"] == 10


async def test_thinking_has_both_of_its_names(edge: Running, fake: FakeModel) -> None:
    fake.script(*ollama.ollama_answer([ollama.said(thinking="hm"), ollama.token("yes"), ollama.last()]))
    answer = await ask(edge.port, CHAT, chat_body(reasoning_effort="high"))
    assert (text(answer, "reasoning"), text(answer, "reasoning_content"), text(answer)) == ("hm", "hm", "yes")
    assert fake.requests[0].json["think"] is True


async def test_tool_calls_become_openais(edge: Running, fake: FakeModel) -> None:
    calls = [{"function": {"name": name, "arguments": {"n": n}}} for n, name in enumerate(("a", "b"))]
    fake.script(*ollama.ollama_answer([ollama.said(tool_calls=calls), ollama.last()]))
    tool = {"type": "function", "function": {"name": "a", "parameters": {"type": "object", "properties": {}}}}
    answer = await ask(edge.port, CHAT, chat_body(stream=False, tools=[tool]))
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    told = choice["message"]["tool_calls"]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in told] == [
        ("a", '{"n":0}'),
        ("b", '{"n":1}'),
    ]
    assert len({call["id"] for call in told}) == 2
    assert fake.requests[0].json["tools"][0]["function"]["name"] == "a"


async def test_what_a_tool_gave_goes_back_by_the_tools_name(edge: Running, fake: FakeModel) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "clock", "arguments": '{"tz": "UTC"}'}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "time"}, image("data:image/png;base64,QUJD")]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "noon"},
    ]
    await ask(edge.port, CHAT, chat_body(messages=messages))
    assert fake.requests[0].json["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "time", "images": ["QUJD"]},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "clock", "arguments": {"tz": "UTC"}}}],
        },
        {"role": "tool", "content": "noon", "tool_name": "clock"},
    ]


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


async def test_parameters_become_options(edge: Running, fake: FakeModel) -> None:
    schema = {"type": "object", "properties": {}}
    await ask(
        edge.port,
        CHAT,
        chat_body(
            temperature=0.5, top_p=0.9, max_completion_tokens=5, seed=7, stop="x", keep_alive="5m",
            options={"num_ctx": 8192}, user="me", logit_bias={"1": 2},
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}},
        ),
    )  # fmt: skip
    sent = fake.requests[0].json
    assert sent["options"] == {
        "temperature": 0.5, "top_p": 0.9, "num_predict": 5, "seed": 7, "stop": ["x"], "num_ctx": 8192,
    }  # fmt: skip
    assert (sent["format"], sent["keep_alive"]) == (schema, "5m")


async def test_what_has_no_place_is_dropped_and_told(edge: Running) -> None:
    answer = await ask(edge.port, CHAT, chat_body(user="me", logit_bias={"1": 2}, parallel_tool_calls=False))
    dropped = {"parallel_tool_calls", "user", "logit_bias"}
    assert set(answer.headers["x-edge-dropped-params"].split(", ")) == dropped
    record = await edge.record()
    assert set(record["dropped"].split(", ")) == dropped


def call_with(arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"n": 2}, "n"),
        ({"tools": [{"type": "function", "function": {"name": "a"}}], "tool_choice": "required"}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [image("https://x/y.png")]}]}, "messages.0"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [7]}, "messages.0"),
        ({"messages": [{"role": "assistant", "tool_calls": [call_with('{"a":' * 300 + "1" + "}" * 300)]}]}, "messages"),
        ({"messages": []}, "messages"),  # an Ollama would load the model, and answer without a stream
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"max_tokens": 1e30}, "max_tokens"),  # would be whole, but more than JSON's writer can hold
        ({"seed": -1e30}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"tools": {}}, "tools"),
        ({"tools": [{"type": "web"}]}, "tools.0.type"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"tool_choice": "maybe"}, "tool_choice"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"functions": []}, "functions"),
        ({"options": 1}, "options"),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    edge: Running, fake: FakeModel, extra: dict[str, Any], param: str
) -> None:
    answer = await ask(edge.port, CHAT, chat_body(**extra))
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert answer.json["error"]["message"].startswith(param)
    assert fake.requests == []


async def test_a_length_stop_and_an_empty_answer(edge: Running, fake: FakeModel) -> None:
    fake.script(*ollama.ollama_answer([ollama.token("a"), ollama.last("length")]))
    fake.script(*ollama.ollama_answer([ollama.last()]))
    assert finish(await ask(edge.port, CHAT, chat_body())) == "length"
    empty = await ask(edge.port, CHAT, chat_body())
    assert (text(empty), finish(empty), empty.clean) == ("", "stop", True)


async def test_text_survives_being_cut_anywhere(edge: Running, fake: FakeModel) -> None:
    said = 'é🎈漢字\u2028\n\r"\\ \ud7ff'
    whole = ollama.token(said) + ollama.token("x") + ollama.last()
    fake.script(ollama.lines_head(), chunk(whole, every=1), end())
    assert text(await ask(edge.port, CHAT, chat_body())) == said + "x"


async def test_an_error_before_the_answer_is_a_status(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer({"error": "model 'm' not found"}, 404))
    answer = await ask(edge.port, CHAT, chat_body())
    assert (answer.status, answer.json["error"]["message"]) == (404, "model 'm' not found")


async def test_an_error_in_mid_stream_is_told_and_the_stream_cut(edge: Running, fake: FakeModel) -> None:
    fake.script(ollama.lines_head(), chunk(ollama.token("a")), chunk(ollama.error("boom")), end())
    answer = await ask(edge.port, CHAT, chat_body())
    assert not answer.clean
    assert orjson.loads(answer.events[-1][6:])["error"]["message"] == "boom"
    assert (await edge.record())["outcome"] == "upstream_error"


@pytest.mark.parametrize("ending", [[end()], [fin()]], ids=["clean", "cut"])
async def test_an_answer_without_its_last_line_is_cut(edge: Running, fake: FakeModel, ending: list[Any]) -> None:
    fake.script(ollama.lines_head(), chunk(ollama.token("a")), *ending)
    answer = await ask(edge.port, CHAT, chat_body())
    assert not answer.clean
    assert b"[DONE]" not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_a_client_that_leaves_stops_the_model(edge: Running, fake: FakeModel) -> None:
    fake.script(ollama.lines_head(), chunk(ollama.token("a")), gate("held"), stall())
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b'"a"')
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


async def test_an_answer_in_one_piece_from_the_server_is_taken_too(edge: Running, fake: FakeModel) -> None:
    told = {"model": "m", "message": {"role": "assistant", "content": "hi"}, "done": True, "done_reason": "stop"}
    fake.script(*json_answer({**told, **ollama.MEASURED}))
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert answer.json["choices"][0]["message"]["content"] == "hi"
    assert answer.json["usage"]["prompt_tokens"] == 7


# Ollama's context


async def test_a_prompt_that_was_cut_is_told(edge: Running, fake: FakeModel) -> None:
    fake.script(*ollama.ollama_answer([ollama.token("a"), ollama.last(prompt_eval_count=64)]))
    await ask(edge.port, CHAT, chat_body(options={"num_ctx": 64}))
    assert (await edge.record())["truncated"] is True
    (line,) = await edge.lines.wait("prompt truncated")
    assert (line["level"], line["tokens_in"], line["upstream"]) == ("warning", 64, "up")
    async with RawClient(edge.port) as client:
        await client.get("/metrics")
        assert b'edge_truncated_prompts_total{upstream="up"} 1.0' in (await client.answer()).body


async def test_a_prompt_that_is_much_longer_than_what_was_read_was_cut(edge: Running, fake: FakeModel) -> None:
    fake.script(*ollama.ollama_answer([ollama.token("a"), ollama.last(prompt_eval_count=4096)]))
    await ask(edge.port, CHAT, chat_body(messages=[{"role": "user", "content": "word " * 10_000}]))
    assert (await edge.record())["truncated"] is True


async def test_a_prompt_that_fits_is_not(edge: Running) -> None:
    await ask(edge.port, CHAT, chat_body(options={"num_ctx": 8192}))
    assert (await edge.record())["truncated"] is False


async def test_a_prompt_that_an_older_ollama_would_cut_can_be_refused_before(serve: Serve, fake: FakeModel) -> None:
    ollama.be_ollama(fake, "m", version="0.12.5")
    edge = await serve(upstream={"kind": "ollama", "num_ctx": 2048, "on_truncation": "refuse"})
    answer = await ask(edge.port, CHAT, chat_body(messages=[{"role": "user", "content": "word " * 10_000}]))
    assert (answer.status, answer.json["error"]["code"]) == (400, "context_length_exceeded")
    assert fake.requests == []
    assert (await ask(edge.port, CHAT, chat_body())).status == 200
    assert fake.requests[0].json["options"] == {"num_ctx": 2048}


async def test_a_large_request_is_translated_elsewhere(edge: Running, fake: FakeModel) -> None:
    data = "A" * 2_000_000
    content = [{"type": "text", "text": "look"}, image(f"data:image/jpeg;base64,{data}")]
    answer = await ask(edge.port, CHAT, chat_body(messages=[{"role": "user", "content": content}]))
    assert answer.status == 200
    assert fake.requests[0].json["messages"] == [{"role": "user", "content": "look", "images": [data]}]


# Embeddings


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(edge: Running, fake: FakeModel, encoding: str) -> None:
    fake.script(*json_answer({"model": "m", "embeddings": [[0.5, -1.0], [1.0, 0.0]], "prompt_eval_count": 4}))
    answer = await ask(
        edge.port, "/v1/embeddings", {"model": "m", "input": ["a", "b"], "encoding_format": encoding, "user": "me"}
    )
    assert fake.requests[0].path == "/api/embed"
    assert fake.requests[0].json == {"model": "m", "input": ["a", "b"]}
    told = [item["embedding"] for item in answer.json["data"]]
    assert told == ([[0.5, -1.0], [1.0, 0.0]] if encoding == "float" else ["AAAAPwAAgL8=", "AACAPwAAAAA="])
    assert answer.json["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert answer.headers["x-edge-dropped-params"] == "user"


@pytest.mark.parametrize("given", [[1, 2], None, 7, [["a"]]])
async def test_embeddings_of_what_is_no_text_are_refused(edge: Running, fake: FakeModel, given: Any) -> None:
    answer = await ask(edge.port, "/v1/embeddings", {"model": "m", "input": given})
    assert (answer.status, answer.json["error"]["param"]) == (400, "input")
    assert fake.requests == []
