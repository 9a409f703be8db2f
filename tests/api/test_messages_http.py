"""A client of Messages in front of servers that do not speak it: it must not be able to tell."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
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
)
from support.messages import assert_well_formed
from support.raw import MESSAGES, Answer, RawClient, ask
from support.running import Running, Serve
from support.shapes import assert_told

HI = [{"role": "user", "content": "hi"}]
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}}}
SAID = 'é🎈漢字\u2028\n\r"\\ \ud7ff'


@dataclass(frozen=True)
class Server:
    """A kind of server behind Edge, as it says things."""

    kind: str
    path: str
    opening: Step
    begun: bytes
    token: Callable[[str], bytes]
    thought: Callable[[str], bytes]
    calls: Callable[[str, str], bytes]  # of f with {"n":0} and of g, by their names
    ended: Callable[[str], bytes]
    error: Callable[[str], bytes]

    def answer(self, *said: bytes, reason: str = "stop") -> list[Step]:
        return [self.opening, *map(chunk, (self.begun, *said, self.ended(reason))), end()]


def _chat_calls(first: str, second: str) -> bytes:
    """Parallel calls, their pieces mixed."""
    deltas = [
        {"index": 0, "id": "functions.f:0", "type": "function", "function": {"name": first, "arguments": ""}},
        {"index": 1, "id": "functions.g:1", "type": "function", "function": {"name": second, "arguments": ""}},
        *({"index": n, "function": {"arguments": piece}} for piece in ('{"n"', ":0}") for n in (1, 0)),
    ]
    return b"".join(chat_delta({"tool_calls": [delta]}) for delta in deltas)


CHAT = Server(
    "openai-compatible",
    "/v1/chat/completions",
    head(),
    chat_role(),
    chat_token,
    lambda text: chat_delta({"reasoning_content": text}),
    _chat_calls,
    lambda reason: chat_finish(reason) + chat_usage() + DONE,
    sse_error,
)
OLLAMA = Server(
    "ollama",
    "/api/chat",
    ollama.lines_head(),
    b"",
    ollama.token,
    lambda text: ollama.said(thinking=text),
    lambda *names: ollama.said(tool_calls=[{"function": {"name": name, "arguments": {"n": 0}}} for name in names]),
    ollama.last,
    ollama.error,
)
on_each = pytest.mark.parametrize("server", [CHAT, OLLAMA], ids=["chat", "ollama"])
In = Callable[[Server], Awaitable[Running]]


@pytest.fixture
def front(serve: Serve, fake: FakeModel) -> In:
    """An Edge in front of such a server."""

    async def front(server: Server) -> Running:
        if server is OLLAMA:
            ollama.be_ollama(fake, "m")
        return await serve(upstream={"kind": server.kind})

    return front


def asked(*, stream: bool = True, **fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 99, "messages": HI, "stream": stream, **fields}


def payloads(answer: Answer) -> list[dict[str, Any]]:
    """Those of a whole stream; each event has its name on a line of its own, and one line of JSON."""
    assert (answer.status, answer.clean) == (200, True)
    found = []
    for event in answer.events:
        name, data, *rest = event.split(b"\n")
        assert rest == [b"", b""]
        found.append(orjson.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + found[-1]["type"].encode()
    assert found.pop() == {"type": "message_stop"}
    assert_well_formed(found)
    return found


def joined(answer: Answer, name: str) -> str:
    deltas = [payload["delta"] for payload in payloads(answer) if payload["type"] == "content_block_delta"]
    return "".join(delta.get(name, "") for delta in deltas)


def finish(answer: Answer) -> Any:
    return payloads(answer)[-1]["delta"]["stop_reason"]


@on_each
async def test_a_stream_is_a_messages_stream(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    fake.script(*server.answer(*map(server.token, ("Hel", "lo", " there"))))
    answer = await ask(edge.port, MESSAGES, asked(system="be brief", stop_sequences=["END"], top_k=3))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    first, *_, last = payloads(answer)
    assert (first["message"]["model"], first["message"]["id"][:4]) == ("m", "msg_")
    assert joined(answer, "text") == "Hello there"
    assert (last["delta"], last["usage"]) == (
        {"stop_reason": "end_turn", "stop_sequence": None},
        {"input_tokens": 7, "output_tokens": 3},
    )
    sent = fake.requests[0]
    assert sent.path == server.path
    assert sent.json["messages"] == [{"role": "system", "content": "be brief"}, *HI]
    options = sent.json.get("options", sent.json)
    assert (options["stop"], options["top_k"]) == (["END"], 3)
    assert options["num_predict" if server is OLLAMA else "max_tokens"] == 99
    record = await edge.record()
    assert (record["surface"], record["outcome"], record["tokens_in"]) == ("messages", "complete", 7)


@on_each
async def test_in_one_piece_it_is_a_message(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    fake.script(*server.answer(server.thought("hm"), server.token("yes")))
    answer = await ask(edge.port, MESSAGES, asked(stream=False))
    assert answer.headers["content-type"] == "application/json"
    assert {**answer.json, "id": ""} == {
        "id": "",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }


@on_each
async def test_thinking_comes_in_a_block_of_its_own(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    fake.script(*server.answer(server.thought("h"), server.thought("m"), server.token("yes")))
    answer = await ask(edge.port, MESSAGES, asked(thinking={"type": "enabled", "budget_tokens": 2000}))
    assert (joined(answer, "thinking"), joined(answer, "text")) == ("hm", "yes")
    sent = fake.requests[0].json
    assert (sent.get("think"), sent.get("reasoning_effort")) in [(True, None), (None, "low")]


@on_each
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_parallel_tool_calls(front: In, fake: FakeModel, server: Server, *, stream: bool) -> None:
    edge = await front(server)
    reason = "tool_calls" if server is CHAT else "stop"
    fake.script(*server.answer(server.token("Let me see."), server.calls("f", "g"), reason=reason))
    answer = await ask(edge.port, MESSAGES, asked(stream=stream, tools=[TOOL]))
    if stream:
        assert joined(answer, "partial_json") == '{"n":0}' * 2
        assert finish(answer) == "tool_use"
        started = [told["content_block"] for told in payloads(answer) if told["type"] == "content_block_start"]
    else:
        assert answer.json["stop_reason"] == "tool_use"
        assert [block.get("input") for block in answer.json["content"]] == [None, {"n": 0}, {"n": 0}]
        started = answer.json["content"]
    assert [block.get("name") for block in started] == [None, "f", "g"]
    assert len({block["id"] for block in started[1:]}) == 2
    function = {"name": "f", "description": "d", "parameters": TOOL["input_schema"]}
    assert fake.requests[0].json["tools"] == [{"type": "function", "function": function}]


@on_each
async def test_what_a_tool_gave_goes_back(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    result = {"type": "tool_result", "tool_use_id": "functions.f:0", "content": [{"type": "text", "text": "42"}]}
    messages = [
        *HI,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "tool_use", "id": "functions.f:0", "name": "f", "input": {"n": 0}},
            ],
        },
        {"role": "user", "content": [result, {"type": "text", "text": "and?"}, {"type": "image", "source": source}]},
    ]
    assert (await ask(edge.port, MESSAGES, asked(messages=messages))).status == 200
    _, called, given, user = fake.requests[0].json["messages"]
    if server is OLLAMA:
        assert called["tool_calls"] == [{"function": {"name": "f", "arguments": {"n": 0}}}]
        assert given == {"role": "tool", "content": "42", "tool_name": "f"}
        assert user == {"role": "user", "content": "and?", "images": ["QUJD"]}
    else:
        assert called["tool_calls"][0]["id"] == given["tool_call_id"] == "functions.f:0"
        assert (called["reasoning_content"], given["content"]) == ("hm", "42")
        assert user["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}


async def test_the_stop_sequence_is_told_where_the_server_tells_it(front: In, fake: FakeModel) -> None:
    edge = await front(CHAT)
    stopped = [{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": "END"}]  # as vLLM does
    ended = b"data: " + orjson.dumps({"choices": stopped}) + b"\n\n"
    fake.script(head(), chunk(chat_role() + chat_token("a") + ended + DONE), end())
    told = payloads(await ask(edge.port, MESSAGES, asked(stop_sequences=["END"])))
    assert told[-1]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


@on_each
async def test_a_length_stop_and_an_empty_answer(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    fake.script(*server.answer(server.token("a"), reason="length"))
    fake.script(*server.answer())
    fake.script(*server.answer())
    assert finish(await ask(edge.port, MESSAGES, asked())) == "max_tokens"
    empty = await ask(edge.port, MESSAGES, asked())
    assert [told["type"] for told in payloads(empty)] == ["message_start", "message_delta"]
    whole = await ask(edge.port, MESSAGES, asked(stream=False))
    assert (whole.json["content"], whole.json["stop_reason"]) == ([], "end_turn")


@on_each
async def test_text_survives_being_cut_anywhere(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    whole = server.begun + b"".join(map(server.token, (SAID, "x", SAID))) + server.ended("stop")
    fake.script(server.opening, chunk(whole, every=1), end())
    for at in range(0, len(whole), 17):
        fake.script(server.opening, chunk(whole, split=[at]), end())
    for _ in range(0, len(whole) + 17, 17):
        assert joined(await ask(edge.port, MESSAGES, asked()), "text") == f"{SAID}x{SAID}"


@on_each
async def test_an_answer_in_one_piece_from_the_server_is_taken_too(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    message = {"role": "assistant", "content": "hi"}
    chat = {"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "length"}]}
    lines = {"model": "m", "message": message, "done": True, "done_reason": "length"}
    fake.script(*json_answer(chat if server is CHAT else lines))
    answer = await ask(edge.port, MESSAGES, asked(stream=False))
    assert answer.json["content"] == [{"type": "text", "text": "hi"}]
    assert answer.json["stop_reason"] == "max_tokens"


# Failures


@on_each
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_an_error_before_the_answer_is_a_status(
    front: In, fake: FakeModel, server: Server, *, stream: bool
) -> None:
    edge = await front(server)
    fake.script(*json_answer({"error": "no such model" if server is OLLAMA else {"message": "no such model"}}, 404))
    answer = await ask(edge.port, MESSAGES, asked(stream=stream))
    assert_told(answer, 404, MESSAGES, kind="not_found_error")
    assert answer.json["error"]["message"] == "no such model"


@on_each
async def test_an_error_in_mid_stream_is_told_and_the_stream_cut(front: In, fake: FakeModel, server: Server) -> None:
    edge = await front(server)
    fake.script(server.opening, chunk(server.begun + server.token("a")), chunk(server.error("boom")), end())
    answer = await ask(edge.port, MESSAGES, asked())
    assert not answer.clean
    name, data, *_ = answer.events[-1].split(b"\n")
    assert name == b"event: error"
    told = orjson.loads(data.removeprefix(b"data: "))
    assert told["request_id"] == answer.headers["request-id"]
    assert (told["type"], told["error"]) == ("error", {"type": "api_error", "message": "boom"})
    assert (await edge.record())["outcome"] == "upstream_error"


@on_each
@pytest.mark.parametrize("ending", [[end()], [fin()]], ids=["clean", "cut"])
async def test_an_answer_without_its_end_is_cut(front: In, fake: FakeModel, server: Server, ending: list[Step]) -> None:
    edge = await front(server)
    fake.script(server.opening, chunk(server.begun + server.token("a")), *ending)
    answer = await ask(edge.port, MESSAGES, asked())
    assert not answer.clean
    assert answer.events[-1].startswith(b"event: error\n")
    assert b"message_stop" not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_arguments_that_can_never_be_told_break_the_stream(front: In, fake: FakeModel) -> None:
    edge = await front(CHAT)
    begun = [{"index": n, "id": f"c{n}", "function": {"name": "f", "arguments": "{"}} for n in (0, 1)]
    endless = {"index": 1, "function": {"arguments": " " * 2**18}}
    deltas = [chat_delta({"tool_calls": [delta]}) for delta in (*begun, *[endless] * 20)]
    fake.script(head(), *map(chunk, (chat_role(), *deltas)), stall())
    answer = await ask(edge.port, MESSAGES, asked(tools=[TOOL]))
    assert b"event: error\n" in answer.body
    assert (await edge.record())["outcome"] == "upstream_error"
    assert await fake.requests[0].left() in ("fin", "reset")


@on_each
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_client_that_leaves_stops_the_model(
    front: In, fake: FakeModel, server: Server, *, stream: bool
) -> None:
    edge = await front(server)
    fake.script(server.opening, chunk(server.begun + server.token("tok")), gate("held"), stall())
    async with RawClient(edge.port) as client:
        await client.post(MESSAGES, asked(stream=stream))
        await fake.reached("held")
        if stream:
            await client.until(b"tok")
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@on_each
async def test_a_model_that_is_slow_to_begin_is_bridged_with_pings(
    serve: Serve, fake: FakeModel, server: Server
) -> None:
    if server is OLLAMA:
        ollama.be_ollama(fake, "m")
    edge = await serve(upstream={"kind": server.kind}, stream={"commit_after_s": 0.02, "heartbeat_s": 0.02})
    fake.script(server.opening, gate("more"), chunk(server.begun + server.token("a") + server.ended("stop")), end())
    async with RawClient(edge.port) as client:
        await client.post(MESSAGES, asked())
        await client.until(b'event: ping\ndata: {"type":"ping"}\n\n')
        fake.open("more")
        answer = await client.answer()
    assert answer.clean
    assert b"message_stop" in answer.events[-1]


@on_each
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "messages.0.content.0.type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": "yes"}, "stream"),
    ],
)
async def test_what_cannot_be_said_is_refused_by_name(
    front: In, fake: FakeModel, server: Server, fields: dict[str, Any], param: str
) -> None:
    edge = await front(server)
    answer = await ask(edge.port, MESSAGES, asked(**fields))
    assert_told(answer, 400, MESSAGES, kind="invalid_request_error")
    assert answer.json["error"]["message"].startswith(f"{param}: ")
    assert fake.requests == []


@on_each
async def test_what_has_no_place_is_told(front: In, server: Server) -> None:
    edge = await front(server)
    answer = await ask(edge.port, MESSAGES, asked(speed="fast", service_tier="auto"))
    assert answer.headers["x-edge-dropped-params"] == "speed"
    assert (await edge.record())["dropped"] == "speed"


async def test_a_large_request_is_translated_elsewhere(front: In, fake: FakeModel) -> None:
    edge = await front(OLLAMA)
    source = {"type": "base64", "media_type": "image/jpeg", "data": "A" * 2_000_000}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    assert (await ask(edge.port, MESSAGES, asked(messages=messages))).status == 200
    assert fake.requests[0].json["messages"][0]["images"] == [source["data"]]
