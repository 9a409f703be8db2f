"""The simulator over the socket: each of its models does to a client what its name says."""

import asyncio
import base64
import struct
from pathlib import Path
from typing import Any

import orjson
import pytest
from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, RawClient, ask, chat_body, parse
from support.running import Running, Serve
from support.shapes import get
from support.simulated import chat, chunks, deltas, finish, serve_simulator, text

EVERY = ["echo", "lorem", "tools", "think", "error", "error-mid", "cut", "stall"]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}}}


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters or PARAMETERS}}


def calls(answer: Any) -> list[dict[str, Any]]:
    return [call for delta in deltas(answer) for call in delta.get("tool_calls", [])]


@pytest.fixture
async def edge(serve: Serve) -> Running:
    return await serve_simulator(serve)


async def test_its_models_are_listed_and_it_is_ready(edge: Running) -> None:
    cards = (await get(edge.port, "/v1/models")).json["data"]
    assert [card["id"] for card in cards] == EVERY
    assert {card["owned_by"] for card in cards} == {"simulator"}
    assert (await get(edge.port, "/ready")).status == 200


async def test_a_stream_has_role_words_finish_and_usage(edge: Running) -> None:
    answer = await chat(edge, "echo", "Grüße, 世界  🎈!", stream_options={"include_usage": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    told = chunks(answer)
    assert deltas(answer) == [
        {"role": "assistant", "content": ""},
        {"content": "Grüße, "},
        {"content": "世界  "},
        {"content": "🎈!"},
        {},
    ]
    assert (finish(answer), told[-1]["choices"]) == ("stop", [])
    assert told[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in told}) == 1
    record = await edge.record()
    assert (record["outcome"], record["tokens_in"], record["tokens_out"]) == ("complete", 3, 3)


async def test_usage_is_told_only_to_who_asks(edge: Running) -> None:
    assert all("usage" not in chunk for chunk in chunks(await chat(edge, "echo")))


async def test_in_one_piece_it_is_the_same_answer(edge: Running) -> None:
    for model, extra in (("echo", {}), ("think", {}), ("lorem", {"max_tokens": 9}), ("tools", {"tools": [tool("t")]})):
        streamed, whole = await chat(edge, model, **extra), await chat(edge, model, stream=False, **extra)
        (choice,) = whole.json["choices"]
        assert (choice["message"]["content"] or "", choice["finish_reason"]) == (text(streamed), finish(streamed))
        assert whole.json["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("extra", [{}, {"best_of": 2}], ids=["collected", "not streamable"])
async def test_a_client_that_wants_one_piece_gets_json(edge: Running, extra: dict[str, Any]) -> None:
    answer = await chat(edge, "echo", stream=False, **extra)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json["choices"][0]["message"] == {"role": "assistant", "content": "hello there"}


class TestEcho:
    async def test_it_repeats_the_last_that_the_user_said(self, edge: Running) -> None:
        messages = [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "first"},
            {"role": "assistant", "content": "yes"},
            {"role": "user", "content": [{"type": "text", "text": "look: "}, IMAGE]},
            {"role": "assistant", "content": "I see"},
        ]
        answer = await ask(edge.port, CHAT, chat_body(model="echo", messages=messages))
        assert text(answer) == "look: [image]"

    async def test_there_is_something_to_say_without_a_user(self, edge: Running) -> None:
        answer = await ask(edge.port, CHAT, chat_body(model="echo", messages=[]))
        assert (text(answer), finish(answer)) == ("There is no message of a user.", "stop")

    async def test_what_has_no_words_is_an_empty_answer(self, edge: Running) -> None:
        answer = await chat(edge, "echo", "")
        assert (text(answer), finish(answer)) == ("", "stop")

    async def test_a_word_without_end_comes_in_pieces(self, edge: Running) -> None:
        """None of them is too large an event."""
        said = "x" * 10_000
        answer = await chat(edge, "echo", said)
        assert text(answer) == said
        assert max(map(len, answer.events)) < 500


class TestBounds:
    @pytest.mark.parametrize("most", [1, 17, 200])
    async def test_lorem_ends_where_it_is_told_to(self, edge: Running, most: int) -> None:
        answer = await chat(edge, "lorem", stream=False, max_tokens=most)
        (choice,) = answer.json["choices"]
        assert (len(choice["message"]["content"].split()), choice["finish_reason"]) == (most, "length")
        assert answer.json["usage"]["completion_tokens"] == most

    async def test_lorem_is_a_paragraph_of_its_own_accord(self, edge: Running) -> None:
        answer = await chat(edge, "lorem")
        assert text(answer).startswith("Lorem ipsum dolor sit amet, ")
        assert (text(answer).endswith("laborum."), finish(answer)) == (True, "stop")

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
    async def test_just_enough_is_not_cut(self, edge: Running, name: str) -> None:
        enough, less = await chat(edge, "echo", "a b c", **{name: 3}), await chat(edge, "echo", "a b c", **{name: 2})
        assert (text(enough), finish(enough)) == ("a b c", "stop")
        assert (text(less), finish(less)) == ("a b ", "length")

    @pytest.mark.parametrize(("stop", "left"), [("two", "one "), (["four", "o th"], "one tw"), ("", "one two three")])
    async def test_a_stop_sequence_ends_it_wherever_it_begins(self, edge: Running, stop: Any, left: str) -> None:
        answer = await chat(edge, "echo", "one two three", stop=stop)
        assert (text(answer), finish(answer)) == (left, "stop")

    async def test_each_choice_is_whole(self, edge: Running) -> None:
        answer = await chat(edge, "lorem", n=3, max_tokens=5, stream_options={"include_usage": True})
        assert len({text(answer, choice) for choice in range(3)}) == 3
        for choice in range(3):
            assert deltas(answer, choice)[0] == {"role": "assistant", "content": ""}
            assert finish(answer, choice) == "length"
        assert chunks(answer)[-1]["usage"]["completion_tokens"] == 15


class TestTools:
    async def test_the_first_tool_is_called_in_pieces(self, edge: Running) -> None:
        answer = await chat(edge, "tools", tools=[tool("weather"), tool("other")])
        begun, *rest = calls(answer)
        assert (begun["function"], begun["type"]) == ({"name": "weather", "arguments": ""}, "function")
        assert begun["id"].startswith("call_")
        assert len(rest) > 2
        arguments = "".join(call["function"]["arguments"] for call in rest)
        assert orjson.loads(arguments) == {"city": "some city", "days": 2}
        assert (text(answer), finish(answer)) == ("", "tool_calls")

    async def test_a_tool_that_is_named_is_called(self, edge: Running) -> None:
        named = {"type": "function", "function": {"name": "other"}}
        answer = await chat(edge, "tools", tools=[tool("weather"), tool("other")], tool_choice=named)
        assert calls(answer)[0]["function"]["name"] == "other"

    @pytest.mark.parametrize("extra", [{}, {"tools": [tool("t")], "tool_choice": "none"}])
    async def test_without_a_tool_it_says_so(self, edge: Running, extra: dict[str, Any]) -> None:
        answer = await chat(edge, "tools", **extra)
        assert (text(answer), finish(answer)) == ("There is no tool to call.", "stop")

    async def test_what_a_tool_gave_is_told_and_the_loop_of_an_agent_ends(self, edge: Running) -> None:
        first = await chat(edge, "tools", stream=False, tools=[tool("weather")])
        message = first.json["choices"][0]["message"]
        gave = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "it rains"}
        messages = [{"role": "user", "content": "hi"}, message, gave]
        answer = await ask(edge.port, CHAT, chat_body(model="tools", messages=messages, tools=[tool("weather")]))
        assert (text(answer), finish(answer)) == ("The tool said: it rains", "stop")

    async def test_the_other_models_answer_in_words(self, edge: Running) -> None:
        assert text(await chat(edge, "echo", tools=[tool("weather")])) == "hello there"


class TestThink:
    async def test_it_thinks_before_it_speaks(self, edge: Running) -> None:
        answer = await chat(edge, "think", stream_options={"include_usage": True})
        kinds = [next(iter(delta)) for delta in deltas(answer)[1:-1]]
        assert kinds == ["reasoning_content"] * 11 + ["content"] * 2
        assert text(answer, name="reasoning_content").startswith("The user wants an answer.")
        assert text(answer) == "hello there"
        usage = chunks(answer)[-1]["usage"]
        assert (usage["completion_tokens"], usage["completion_tokens_details"]) == (13, {"reasoning_tokens": 11})

    async def test_it_does_not_where_it_is_told_not_to(self, edge: Running) -> None:
        answer = await chat(edge, "think", reasoning_effort="none")
        assert deltas(answer)[1:-1] == [{"content": "hello "}, {"content": "there"}]


class TestStructuredOutput:
    async def test_a_schema_is_followed(self, edge: Running) -> None:
        wanted = {"type": "json_schema", "json_schema": {"name": "w", "schema": PARAMETERS}}
        answer = await chat(edge, "echo", response_format=wanted)
        assert orjson.loads(text(answer)) == {"city": "some city", "days": 2}

    async def test_any_object_holds_the_text(self, edge: Running) -> None:
        answer = await chat(edge, "echo", response_format={"type": "json_object"})
        assert orjson.loads(text(answer)) == {"text": "hello there"}

    async def test_json_mode_follows_the_schema_in_the_prompt(self, edge: Running) -> None:
        said = f"hello there. Answer after this schema:\n```{orjson.dumps(PARAMETERS).decode()}```"
        answer = await chat(edge, "echo", said, response_format={"type": "json_object"})
        assert orjson.loads(text(answer)) == {"city": "some city", "days": 2}
        assert text(await chat(edge, "echo", said)) == said


class TestScript:
    async def test_its_text_is_the_answer_and_it_is_the_first_model(self, serve: Serve, tmp_path: Path) -> None:
        file = tmp_path / "script.txt"
        file.write_text("# Title\r\n\r\n  indented, and 世界\n", encoding="utf-8", newline="")
        edge = await serve_simulator(serve, script=str(file))
        cards = (await get(edge.port, "/v1/models")).json["data"]
        assert [card["id"] for card in cards] == ["script", *EVERY]
        for model in ("script", None):
            assert text(await chat(edge, model)) == "# Title\r\n\r\n  indented, and 世界\n"


class TestFailures:
    @pytest.mark.parametrize("stream", [True, False])
    async def test_error_is_a_400(self, edge: Running, *, stream: bool) -> None:
        answer = await chat(edge, "error", stream=stream)
        assert (answer.status, answer.json["error"]["param"]) == (400, "model")

    async def test_error_mid_is_told_in_band(self, edge: Running) -> None:
        answer = await chat(edge, "error-mid")
        assert (answer.status, answer.clean) == (200, False)
        assert len(answer.events) == 5
        assert orjson.loads(answer.events[-1][6:])["error"]["message"] == "the simulated model broke"
        assert (await edge.record())["outcome"] == "upstream_error"

    async def test_cut_is_told_as_one(self, edge: Running) -> None:
        answer = await chat(edge, "cut")
        assert (answer.status, answer.clean) == (200, False)
        assert orjson.loads(answer.events[-1][6:])["error"]["code"] == "upstream_cut"
        assert (await edge.record())["outcome"] == "upstream_cut"

    @pytest.mark.parametrize(("model", "status"), [("error-mid", 500), ("cut", 502)])
    async def test_in_one_piece_a_failure_is_a_status(self, edge: Running, model: str, status: int) -> None:
        for extra in ({}, {"best_of": 2}):
            assert (await chat(edge, model, stream=False, **extra)).status == status
        assert (await ask(edge.port, EMBEDDINGS, {"model": model, "input": "a"})).status == status

    async def test_stall_is_ended_by_the_clock_between_tokens(self, serve: Serve) -> None:
        edge = await serve_simulator(serve, stream={"inter_token_s": 0.1})
        answer = await chat(edge, "stall")
        assert orjson.loads(answer.events[-1][6:])["error"]["code"] == "upstream_stall"
        assert (await edge.record())["outcome"] == "upstream_stall"

    async def test_an_unknown_model_is_a_404_that_names_the_others(self, edge: Running) -> None:
        answer = await chat(edge, "gpt-x")
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert answer.json["error"]["message"].endswith("there are: " + ", ".join(EVERY))

    async def test_a_client_that_leaves_stops_it(self, edge: Running) -> None:
        async with RawClient(edge.port) as client:
            await client.post(CHAT, chat_body(model="stall"))
            await client.until(b"dolor")
        assert (await edge.record())["outcome"] == "client_gone"
        (member,) = edge.edge.fleet.members
        assert member.upstream._sources == set()

    async def test_a_reader_that_stops_is_waited_for(self, serve: Serve) -> None:
        """The rest is not made up before there is room for it."""
        edge = await serve_simulator(serve, stream={"buffer_bytes": 2048})
        async with RawClient(edge.port, receive_buffer=4096) as client:
            await client.post(CHAT, chat_body(model="lorem", max_tokens=5000))
            await client.until(b"dolor")
            (exchange,) = edge.edge.registry
            while not exchange.generation.pauses:
                await asyncio.sleep(0)
            while not client.buffer.endswith(b"0\r\n\r\n"):
                await client.receive()
            answer = parse(client.buffer)
        assert answer is not None
        assert (len(deltas(answer)), finish(answer)) == (5002, "length")


WRONG: list[tuple[str, dict[str, Any], str]] = [
    (CHAT, {"messages": "hi"}, "messages"),
    (CHAT, {"messages": [{"role": "robot", "content": "hi"}]}, "messages.0.role"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
    (CHAT, {"max_tokens": 0}, "max_tokens"),
    (CHAT, {"stop": [1]}, "stop"),
    (CHAT, {"n": 129}, "n"),
    (CHAT, {"tools": [{"type": "function"}]}, "tools.0.function"),
    (CHAT, {"model": "tools", "tools": [tool("a")], "tool_choice": {"function": {"name": "b"}}}, "tool_choice"),
    (COMPLETIONS, {"prompt": [1, 2]}, "prompt"),
    (COMPLETIONS, {"prompt": []}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 65, "n": 2}, "n"),
    (COMPLETIONS, {"max_tokens": "many"}, "max_tokens"),
    (EMBEDDINGS, {"input": [[1, 2]]}, "input"),
    (EMBEDDINGS, {}, "input"),
    (EMBEDDINGS, {"input": "a", "dimensions": 4097}, "dimensions"),
    (EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, "encoding_format"),
]


@pytest.mark.parametrize(("path", "extra", "param"), WRONG, ids=[f"{path} {extra}"[4:60] for path, extra, _ in WRONG])
async def test_a_field_that_is_wrong_is_named(edge: Running, path: str, extra: dict[str, Any], param: str) -> None:
    given = {CHAT: {"messages": []}, COMPLETIONS: {"prompt": "a"}}.get(path, {})
    answer = await ask(edge.port, path, {"model": "echo", **given, **extra})
    assert (answer.status, answer.json["error"]["param"]) == (400, param)
    assert param in answer.json["error"]["message"]


class TestCompletions:
    async def test_each_prompt_is_continued_n_times(self, edge: Running) -> None:
        body = {"model": "echo", "prompt": ["a b", "c"], "n": 2, "stream_options": {"include_usage": True}}
        answer = await ask(edge.port, COMPLETIONS, {**body, "stream": True})
        told = [choice for chunk in chunks(answer) for choice in chunk["choices"]]
        texts = ["".join(choice["text"] for choice in told if choice["index"] == number) for number in range(4)]
        assert texts == ["a b", "a b", "c", "c"]
        assert [choice["finish_reason"] for choice in told if choice["finish_reason"]] == ["stop"] * 4
        assert chunks(answer)[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9}

    async def test_it_keeps_its_bounds(self, edge: Running) -> None:
        body = {"model": "think", "prompt": "a b c d", "stop": "d", "max_tokens": 9}
        whole = await ask(edge.port, COMPLETIONS, body)
        assert whole.json["choices"][0]["text"] == "a b c "
        cut = await ask(edge.port, COMPLETIONS, {**body, "max_tokens": 1})
        assert (cut.json["choices"][0]["text"], cut.json["choices"][0]["finish_reason"]) == ("a ", "length")


class TestEmbeddings:
    async def test_a_text_is_always_the_same_direction_and_near_its_like(self, edge: Running) -> None:
        texts = ["the cat sat on the mat", "the cat sat on a mat", "stocks fell sharply", "The cat sat on the mat", ""]
        answer = await ask(edge.port, EMBEDDINGS, {"model": "echo", "input": texts})
        assert [item["index"] for item in answer.json["data"]] == [0, 1, 2, 3, 4]
        one, like, other, same, empty = (item["embedding"] for item in answer.json["data"])
        assert near(one, same) == near(empty, empty) == pytest.approx(1)
        assert near(one, like) > near(one, other)
        assert answer.json["usage"] == {"prompt_tokens": 21, "total_tokens": 21}
        again = await ask(edge.port, EMBEDDINGS, {"model": "lorem", "input": texts[0]})
        assert again.json["data"][0]["embedding"] == one

    async def test_size_and_encoding_are_as_asked(self, edge: Running) -> None:
        body = {"model": "echo", "input": "hi", "dimensions": 3}
        plain = (await ask(edge.port, EMBEDDINGS, body)).json["data"][0]["embedding"]
        packed = (await ask(edge.port, EMBEDDINGS, {**body, "encoding_format": "base64"})).json["data"][0]["embedding"]
        assert struct.unpack("<3f", base64.b64decode(packed)) == pytest.approx(plain)

    async def test_other_apis_reach_it_by_translation(self, edge: Running) -> None:
        answer = await ask(edge.port, "/api/embed", {"model": "echo", "input": ["a", "b"]})
        assert [len(vector) for vector in answer.json["embeddings"]] == [8, 8]


def near(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
