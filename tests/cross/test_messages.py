"""Anthropic Messages in front of servers that do not speak it, and chat clients in front of one that speaks only it."""

from typing import Any

import orjson
import pytest
from fakes import ollama
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
    fin,
    gate,
    head,
    json_answer,
    sse_error,
    stall,
    stream_answer,
)
from support.raw import MESSAGES, Answer, RawClient, ask
from support.running import Running, Serve

TOOL = {"name": "clock", "description": "tells time", "input_schema": {"type": "object", "properties": {}}}
CALLS = [("clock", {"tz": "Łódź"}), ("clock", {"tz": "東京"})]


def body(**extra: Any) -> dict[str, Any]:
    asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    return {**asked, **extra}


def events(answer: Answer) -> list[Any]:
    """The payloads; each event's name is its type."""
    told = []
    for event in answer.events:
        name, _, data = event.partition(b"\n")
        payload = orjson.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + payload["type"].encode()
        told.append(payload)
    return told


def blocks(answer: Answer) -> list[dict[str, Any]]:
    """The content, put together as the SDK does it; fails on blocks that are open at the same time."""
    told: list[dict[str, Any]] = []
    still_open = False
    for event in events(answer):
        match event["type"]:
            case "content_block_start":
                assert not still_open
                assert event["index"] == len(told)
                still_open = True
                told.append({**event["content_block"], "json": ""})
            case "content_block_delta":
                assert still_open
                assert event["index"] == len(told) - 1
                delta = dict(event["delta"])
                kind = delta.pop("type")
                ((name, value),) = delta.items()
                name = "json" if kind == "input_json_delta" else name
                told[-1][name] += value
            case "content_block_stop":
                assert still_open
                assert event["index"] == len(told) - 1
                still_open = False
    assert not still_open
    return told


def last(answer: Answer) -> dict[str, Any]:
    *_, delta, stop = events(answer)
    assert stop == {"type": "message_stop"}
    assert delta["type"] == "message_delta"
    return dict(delta)


def chat_calls() -> list[bytes]:
    """Two calls whose arguments come in pieces, one after the other."""
    told = [chat_role(), chat_token("so")]
    for index, (name, arguments) in enumerate(CALLS):
        text = orjson.dumps(arguments).decode()
        begun = {"index": index, "id": f"c{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        told.append(chat_delta({"tool_calls": [begun]}))
        told += [chat_delta({"tool_calls": [{"index": index, "function": {"arguments": char}}]}) for char in text]
    return [*told, chat_finish("tool_calls"), chat_usage(), DONE]


def interleaved() -> list[bytes]:
    """The same calls with their pieces mixed, a character of each in turn."""
    told = chat_calls()
    starts = [event for event in told if b'"name"' in event]
    texts = [orjson.dumps(arguments).decode() for _, arguments in CALLS]
    pieces = [
        chat_delta({"tool_calls": [{"index": index, "function": {"arguments": text[at]}}]})
        for at in range(max(map(len, texts)))
        for index, text in enumerate(texts)
        if at < len(text)
    ]
    return [*told[:2], *starts, *pieces, *told[-3:]]


class Kind:
    """What each kind of server says for the same thing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = "/v1/chat/completions" if name == "chat" else "/api/chat"

    def answer(self, *words: str, thought: str = "", reason: str = "stop") -> list[Any]:
        if self.name == "chat":
            thinking = [chat_delta({"reasoning_content": thought})] if thought else []
            told = [chat_role(), *thinking, *map(chat_token, words), chat_finish(reason), chat_usage(), DONE]
            return stream_answer(told)
        thinking = [ollama.said(thinking=thought)] if thought else []
        return ollama.ollama_answer([*thinking, *map(ollama.token, words), ollama.last(reason)])

    def calls(self) -> list[Any]:
        if self.name == "chat":
            return stream_answer(chat_calls())
        told = [{"function": {"name": name, "arguments": arguments}} for name, arguments in CALLS]
        return ollama.ollama_answer([ollama.token("so"), ollama.said(tool_calls=told), ollama.last()])

    def begun(self, *then: Any) -> list[Any]:
        if self.name == "chat":
            return [head(), chunk(chat_role() + chat_token("a")), *then]
        return [ollama.lines_head(), chunk(ollama.token("a")), *then]

    def broken(self) -> list[Any]:
        return self.begun(chunk(sse_error("boom") if self.name == "chat" else ollama.error("boom")), end())


@pytest.fixture(params=["chat", "ollama"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return Kind(request.param)


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel, kind: Kind) -> Running:
    if kind.name == "ollama":
        ollama.be_ollama(fake, "m")
    return await serve()


async def test_a_stream_is_a_messages_stream(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.answer("Hel", "lo"))
    answer = await ask(edge.port, MESSAGES, body(system="be brief", stop_sequences=["x"], top_k=5))
    assert (answer.status, answer.clean) == (200, True)
    start, *_ = events(answer)
    assert start["message"]["role"] == "assistant"
    assert start["message"]["id"].startswith("msg_")
    (block,) = blocks(answer)
    assert (block["type"], block["text"]) == ("text", "Hello")
    assert last(answer)["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert last(answer)["usage"] == {"input_tokens": 7, "output_tokens": 3}
    sent = fake.requests[0]
    assert sent.path == kind.path
    assert sent.json["messages"] == [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    record = await edge.record()
    assert (record["surface"], record["outcome"], record["tokens_in"]) == ("messages", "complete", 7)


async def test_in_one_piece_it_is_a_message(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.answer("Hel", "lo", thought="hm"))
    answer = await ask(edge.port, MESSAGES, body(stream=False))
    thinking, text = answer.json["content"]
    assert (thinking["thinking"], text["text"]) == ("hm", "Hello")
    assert (answer.json["stop_reason"], answer.json["usage"]["input_tokens"]) == ("end_turn", 7)


async def test_thinking_comes_first_and_in_a_block_of_its_own(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.answer("yes", thought="hm"))
    answer = await ask(edge.port, MESSAGES, body(thinking={"type": "enabled", "budget_tokens": 2000}))
    thinking, text = blocks(answer)
    assert (thinking["type"], thinking["thinking"], text["text"]) == ("thinking", "hm", "yes")


async def test_parallel_calls_are_blocks_one_after_the_other(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.calls())
    answer = await ask(edge.port, MESSAGES, body(tools=[TOOL]))
    text, *uses = blocks(answer)
    assert text["text"] == "so"
    assert [(use["name"], orjson.loads(use["json"])) for use in uses] == CALLS
    assert len({use["id"] for use in uses}) == 2
    assert last(answer)["delta"]["stop_reason"] == "tool_use"
    assert fake.requests[0].json["tools"][0]["function"]["name"] == "clock"


async def test_calls_whose_pieces_are_mixed_come_out_whole(serve: Serve, fake: FakeModel) -> None:
    fake.script(*stream_answer(interleaved()))
    edge = await serve()
    answer = await ask(edge.port, MESSAGES, body(tools=[TOOL]))
    _, *uses = blocks(answer)
    assert [(use["name"], orjson.loads(use["json"])) for use in uses] == CALLS


async def test_a_conversation_with_tools_and_images_goes_upstream(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.answer("ok"))
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "clock", "input": {"tz": "UTC"}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "noon"}]}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "time?"}, {"type": "image", "source": source}]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, use]},
        {"role": "user", "content": [result, {"type": "text", "text": "thanks"}]},
    ]
    await ask(edge.port, MESSAGES, body(messages=messages, tools=[TOOL]))
    user, assistant, tool, more = fake.requests[0].json["messages"]
    if kind.name == "chat":
        assert user["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
        assert assistant["reasoning_content"] == "hm"
        assert assistant["tool_calls"][0]["function"] == {"name": "clock", "arguments": '{"tz":"UTC"}'}
        assert tool == {"role": "tool", "tool_call_id": "toolu_1", "content": "noon"}
    else:
        assert user == {"role": "user", "content": "time?", "images": ["QUJD"]}
        assert assistant["tool_calls"] == [{"function": {"name": "clock", "arguments": {"tz": "UTC"}}}]
        assert tool == {"role": "tool", "content": "noon", "tool_name": "clock"}
    assert more == {"role": "user", "content": "thanks"}


async def test_a_length_stop_and_an_empty_answer(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.answer("a", reason="length"))
    fake.script(*kind.answer())
    assert last(await ask(edge.port, MESSAGES, body()))["delta"]["stop_reason"] == "max_tokens"
    empty = await ask(edge.port, MESSAGES, body())
    assert (blocks(empty), last(empty)["delta"]["stop_reason"]) == ([], "end_turn")


async def test_errors_have_anthropics_shape(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*json_answer({"error": {"message": "no such model"}}, 404))
    fake.script(*kind.broken())
    before = await ask(edge.port, MESSAGES, body())
    assert (before.status, before.json["error"]) == (404, {"type": "not_found_error", "message": "no such model"})
    middle = await ask(edge.port, MESSAGES, body())
    assert not middle.clean
    *_, told = events(middle)
    assert (told["type"], told["error"]["message"]) == ("error", "boom")


async def test_a_cut_is_never_an_end(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.begun(fin()))
    answer = await ask(edge.port, MESSAGES, body())
    assert not answer.clean
    assert b"message_stop" not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_a_client_that_leaves_stops_the_model(edge: Running, fake: FakeModel, kind: Kind) -> None:
    fake.script(*kind.begun(gate("held"), stall()))
    async with RawClient(edge.port) as client:
        await client.post(MESSAGES, body())
        await client.until(b'"a"')
    assert await fake.requests[0].left() in ("fin", "reset")


async def test_text_survives_being_cut_anywhere(serve: Serve, fake: FakeModel) -> None:
    said = 'é🎈漢字\u2028\n\r"\\'
    whole = b"".join([chat_role(), chat_token(said), chat_token("x"), chat_token(said), chat_finish(), DONE])
    fake.script(head(), chunk(whole, every=1), end())
    edge = await serve()
    (block,) = blocks(await ask(edge.port, MESSAGES, body()))
    assert block["text"] == said + "x" + said


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": "9"}, "max_tokens"),
        ({"temperature": 2}, "temperature"),
        ({"system": 7}, "system"),
        ({"system": [{"type": "text"}]}, "system.0.text"),
        ({"stop_sequences": [1]}, "stop_sequences"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0.type"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content.0.source"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools.0.type"),
        ({"tools": [{"name": "w"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"metadata": "me"}, "metadata"),
        ({"output_config": {"effort": "much"}}, "output_config.effort"),
        ({"mcp_servers": [{}]}, "mcp_servers"),
    ],
)
async def test_a_malformed_field_is_named(serve: Serve, fake: FakeModel, extra: dict[str, Any], param: str) -> None:
    edge = await serve()
    answer = await ask(edge.port, MESSAGES, body(**extra))
    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert answer.json["error"]["message"].startswith(f"{param}: ")
    assert fake.requests == []


async def test_tokens_are_estimated_where_nobody_counts(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    counted = {"model": "m", "messages": [{"role": "user", "content": "word " * 400}], "tools": [TOOL]}
    answer = await ask(edge.port, "/v1/messages/count_tokens", counted)
    assert (answer.status, answer.headers["x-edge-estimated"]) == (200, "true")
    assert 500 <= answer.json["input_tokens"] <= 600
    assert fake.requests == []
    bad = await ask(edge.port, "/v1/messages/count_tokens", {"model": "m", "messages": [{"role": "user"}]})
    assert (bad.status, bad.json["error"]["type"]) == (400, "invalid_request_error")


async def test_a_chat_answer_that_is_streamed_though_none_was_asked_for_is_taken(serve: Serve, fake: FakeModel) -> None:
    fake.script(*chat_answer(["Hel", "lo"]))
    edge = await serve()
    answer = await ask(edge.port, MESSAGES, body(stream=False))
    assert answer.json["content"] == [{"type": "text", "text": "Hello"}]
