"""Log probabilities for Ollama's clients, of servers that speak chat completions or completions."""

from typing import Any

import orjson
import pytest
from fakes.answers import DONE, chat_chunk, chat_usage, completion_chunk, sse
from fakes.model_server import FakeModel, json_answer, stream_answer
from support.raw import CHAT, COMPLETIONS, ask
from support.running import Running, Serve
from support.vllm import as_vllm

HI = {"messages": [{"role": "user", "content": "hi"}], "prompt": "hi"}
PATHS = ("/api/chat", "/api/generate")
every_path = pytest.mark.parametrize("path", PATHS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


def likely(token: str, *others: str) -> dict[str, Any]:
    """One token as OpenAI tells of it."""
    top = [{"token": other, "logprob": -1.5, "bytes": list(other.encode())} for other in (token, *others)]
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": top}


def delta(delta: dict[str, Any], *tokens: dict[str, Any], finish: str | None = None) -> bytes:
    told = {"content": list(tokens), "refusal": None} if tokens else None
    return chat_chunk([{"index": 0, "delta": delta, "logprobs": told, "finish_reason": finish}])


def asked(path: str, *, stream: bool, **extra: Any) -> dict[str, Any]:
    name = "messages" if path == "/api/chat" else "prompt"
    return {"model": "m", name: HI[name], "logprobs": True, "top_logprobs": 2, "stream": stream, **extra}


@pytest.fixture
async def edge(serve: Serve) -> Running:
    return await serve(upstream={"surfaces": ["chat", "completions"]})


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in body.splitlines()]


@every_path
@streamed_or_not
async def test_each_token_is_told_with_its_text(edge: Running, fake: FakeModel, path: str, *, stream: bool) -> None:
    tokens = [likely("Hel", "Bel"), likely("lo", "p")]
    said = [delta({"role": "assistant", "content": ""}), *(delta({"content": one["token"]}, one) for one in tokens)]
    fake.script(*stream_answer([*said, delta({}, finish="stop"), chat_usage(), DONE]))
    answer = await ask(edge.port, path, asked(path, stream=stream))
    assert (answer.status, answer.clean) == (200, True)
    body = fake.requests[0].json
    assert (fake.requests[0].path, body["logprobs"], body["top_logprobs"]) == (CHAT, True, 2)
    lines = lines_of(answer.body)
    assert [token for line in lines for token in line.get("logprobs", [])] == tokens
    if stream:
        texts = [line["message"]["content"] if path == "/api/chat" else line["response"] for line in lines[:-1]]
        assert texts == [line["logprobs"][0]["token"] for line in lines[:-1]]
        assert "logprobs" not in lines[-1]


@every_path
async def test_a_whole_answer_of_the_server_has_them_too(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve(as_vllm(fake).url, upstream={"surfaces": ["chat"]})
    tokens = [likely("Hel", "Bel"), {**likely("lo"), "bytes": None, "top_logprobs": []}]
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop",
              "logprobs": {"content": tokens}}  # fmt: skip
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    fake.script(*json_answer({"id": "c", "model": "m", "choices": [choice], "usage": usage}))
    answer = await ask(edge.port, path, asked(path, stream=False))
    assert answer.json["logprobs"] == [tokens[0], {"token": "lo", "logprob": -0.5}], "what is not known is left out"


async def test_those_of_a_call_come_while_it_is_written(edge: Running, fake: FakeModel) -> None:
    """A call goes out whole; its tokens are not kept for it, of which there may be thousands."""
    tokens = [likely("get"), likely('{"a"'), likely(":1}")]
    begun = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in ('{"a"', ":1}")]
    said = [delta({"tool_calls": [call]}, one) for call, one in zip([begun, *pieces], tokens, strict=True)]
    fake.script(*stream_answer([*said, delta({}, finish="tool_calls"), DONE]))
    answer = await ask(edge.port, "/api/chat", asked("/api/chat", stream=True))
    *told, called, last = lines_of(answer.body)
    assert [line["logprobs"] for line in told] == [[token] for token in tokens]
    assert [line["message"]["content"] for line in told] == ["", "", ""]
    assert called["message"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}
    assert "logprobs" not in called
    assert "logprobs" not in last


async def test_tokens_without_text_are_not_lost(edge: Running, fake: FakeModel) -> None:
    tokens = [likely("<think>"), likely("hm"), likely("<end>")]
    said = [delta({"content": ""}, tokens[0]), delta({"reasoning": "hm"}, tokens[1])]
    fake.script(*stream_answer([*said, delta({}, tokens[2], finish="stop"), DONE]))
    answer = await ask(edge.port, "/api/chat", asked("/api/chat", stream=True))
    lines = lines_of(answer.body)
    assert [token for line in lines for token in line.get("logprobs", [])] == tokens
    assert [line["message"].get("thinking") for line in lines if "thinking" in line["message"]] == ["hm"]


@streamed_or_not
async def test_a_raw_prompt_has_them_in_the_form_of_completions(
    edge: Running, fake: FakeModel, *, stream: bool
) -> None:
    columns = {"text_offset": [0, 3], "tokens": ["Hel", "lo"], "token_logprobs": [-0.5, None],
               "top_logprobs": [{"Hel": -0.5, "Bel": -1.5}, None]}  # fmt: skip
    said = [{"index": 0, "text": "Hello", "logprobs": columns, "finish_reason": None}]
    done = [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    fake.script(*stream_answer([completion_chunk(said), completion_chunk(done), DONE]))
    answer = await ask(edge.port, "/api/generate", asked("/api/generate", stream=stream, raw=True))
    assert (fake.requests[0].path, fake.requests[0].json["logprobs"]) == (COMPLETIONS, 2)
    told = [token for line in lines_of(answer.body) for token in line.get("logprobs", [])]
    top = [{"token": "Hel", "logprob": -0.5}, {"token": "Bel", "logprob": -1.5}]
    assert told == [{"token": "Hel", "logprob": -0.5, "top_logprobs": top}, {"token": "lo"}]


async def test_none_are_asked_for_by_the_number_alone(edge: Running, fake: FakeModel) -> None:
    """An Ollama ignores ``top_logprobs`` without ``logprobs``; OpenAI's servers answer 400."""
    answer = await ask(edge.port, "/api/chat", asked("/api/chat", stream=False, logprobs=False))
    assert answer.status == 200
    assert not {"logprobs", "top_logprobs"} & set(fake.requests[0].json)


async def test_more_than_an_ollama_gives_is_refused(edge: Running, fake: FakeModel) -> None:
    answer = await ask(edge.port, "/api/chat", asked("/api/chat", stream=False, top_logprobs=21))
    assert answer.status == 400
    assert answer.json["error"].startswith("top_logprobs: ")
    assert fake.requests == []


async def test_a_server_that_tells_them_unasked_changes_no_other_client(edge: Running, fake: FakeModel) -> None:
    fake.script(*stream_answer([delta({"content": "Hel"}, likely("Hel")), delta({}, finish="stop"), DONE, sse({})]))
    answer = await ask(edge.port, "/v1/messages", {"model": "m", "max_tokens": 9, "messages": HI["messages"]})
    assert answer.json["content"] == [{"type": "text", "text": "Hel"}]
