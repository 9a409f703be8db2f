"""What a real Ollama has answered, recorded, as clients get it through Edge: relayed, collected and translated."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import FakeModel, chunk, end, head, json_answer
from support.raw import CHAT, MESSAGES, RESPONSES, ask, chat_body
from support.running import Running, Serve
from support.shapes import valid_body

RECORDED = Path(__file__).parent.parent / "captures" / "ollama"
SSE = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel) -> Running:
    ollama.be_ollama(fake, "m")
    return await serve(upstream={"kind": "ollama"})


def say(fake: FakeModel, name: str) -> list[dict[str, Any]]:
    """Answer with what was recorded; returns its lines."""
    lines = (RECORDED / name).read_bytes().splitlines(keepends=True)
    fake.script(ollama.lines_head(), *map(chunk, lines), end())
    return [orjson.loads(line) for line in lines]


async def test_log_probabilities_are_whole_when_collected(edge: Running, fake: FakeModel) -> None:
    say(fake, "chat-logprobs-stream.ndjson")
    whole = orjson.loads((RECORDED / "chat-logprobs-whole.json").read_bytes())
    body = {"model": "m", "messages": HI, "logprobs": True, "top_logprobs": 2, "stream": False}
    told = (await ask(edge.port, "/api/chat", body)).json
    assert [entry["token"] for entry in told["logprobs"]] == [entry["token"] for entry in whole["logprobs"]]
    assert set(told) == set(whole)
    assert set(told["logprobs"][0]) == set(whole["logprobs"][0])


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_client_gets_log_probabilities(edge: Running, fake: FakeModel, *, stream: bool) -> None:
    lines = say(fake, "chat-logprobs-stream.ndjson")
    answer = await ask(edge.port, CHAT, chat_body(logprobs=True, top_logprobs=2, stream=stream))
    assert (fake.requests[0].json["logprobs"], fake.requests[0].json["top_logprobs"]) == (True, 2)
    if stream:
        chunks = [orjson.loads(event[6:]) for event in answer.events if b"logprobs" in event]
        told = [entry for chunk in chunks for entry in chunk["choices"][0]["logprobs"]["content"]]
        assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == [entry["token"] for entry in told]
    else:
        told = answer.json["choices"][0]["logprobs"]["content"]
    assert told == [entry for line in lines for entry in line.get("logprobs", [])]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_repeats_itself_keeps_its_text(edge: Running, fake: FakeModel, *, stream: bool) -> None:
    lines = say(fake, "generate-repeat-guard-stream.ndjson")
    text = "".join(line["response"] for line in lines)
    answer = await ask(edge.port, "/api/generate", {"model": "m", "prompt": "hi", "stream": stream})
    assert answer.clean
    told = [orjson.loads(line) for line in answer.body.splitlines()] if stream else [answer.json]
    assert "".join(line["response"] for line in told) == text
    assert (told[-1]["done"], told[-1]["done_reason"]) == (True, "length")
    record = await edge.record()
    assert (record["outcome"], record["note"]) == ("complete", "repetition")


@pytest.mark.parametrize(
    ("path", "finish"), [(CHAT, b'"finish_reason":"length"'), (MESSAGES, b'"max_tokens"'), (RESPONSES, b'"incomplete"')]
)
async def test_repetition_is_a_length_to_every_client(edge: Running, fake: FakeModel, path: str, finish: bytes) -> None:
    fake.script(ollama.lines_head(), *(chunk(ollama.token("0")) for _ in range(31)), end())
    answer = await ask(edge.port, path, valid_body(path, stream=True))
    assert answer.clean
    assert finish in answer.body
    assert (await edge.record())["note"] == "repetition"


@pytest.mark.parametrize("count", [1, 29])
async def test_a_clean_end_without_repetition_is_cut(edge: Running, fake: FakeModel, count: int) -> None:
    fake.script(ollama.lines_head(), *(chunk(ollama.token("0")) for _ in range(count)), end())
    assert not (await ask(edge.port, CHAT, chat_body(stream=True))).clean
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_a_runner_that_was_killed_is_an_error(edge: Running, fake: FakeModel) -> None:
    say(fake, "chat-stream-runner-killed.ndjson")
    assert not (await ask(edge.port, CHAT, chat_body(stream=True))).clean
    assert (await edge.record())["outcome"] == "upstream_error"


async def test_a_model_that_cannot_think_answers_a_messages_client_without(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer({"error": '"m" does not support thinking'}, 400))
    thinking = {"type": "enabled", "budget_tokens": 1024}
    for number in range(2):
        answer = await ask(edge.port, MESSAGES, valid_body(MESSAGES, max_tokens=9000, thinking=thinking))
        assert answer.status == 200
        assert "thinking" in answer.headers["x-edge-dropped-params"]
        assert "think" not in fake.requests[1 + number].json
    assert len(fake.requests) == 3, "asked once, and known from then on"
    fake.script(*json_answer({"error": '"m" does not support thinking'}, 400))
    assert (await ask(edge.port, CHAT, chat_body(reasoning_effort="low"))).status == 400


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", [CHAT, MESSAGES, "/api/chat"])
async def test_no_line_has_another_line_end_in_it(serve: Serve, fake: FakeModel, path: str, *, stream: bool) -> None:
    """Python's ``splitlines``, by which some clients read, ends a line at these too."""
    text = "a\u2028b\u2029c\u0085d\u2019"
    if path == "/api/chat":
        kind = "openai-compatible"
        told = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "model": "m"}
        last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        steps = [b"data: %b\n\n" % orjson.dumps(event) for event in (told, told, last)] + [b"data: [DONE]\n\n"]
        fake.script(head(200, SSE), *map(chunk, steps), end())
    else:
        kind = "ollama"
        ollama.be_ollama(fake, "m")
        fake.script(*ollama.ollama_answer([ollama.token(text), ollama.token(text), ollama.last()]))
    edge = await serve(upstream={"kind": kind})
    answer = await ask(edge.port, path, {"model": "m", "messages": HI, "max_tokens": 9, "stream": stream})
    whole = answer.body.decode()
    assert "\u2019" in whole
    if stream:
        assert whole.splitlines() == whole.split("\n")[:-1]


@pytest.mark.parametrize("given", ["", [], ["a", ""]])
async def test_nothing_to_embed_is_a_bad_request(edge: Running, fake: FakeModel, given: Any) -> None:
    answer = await ask(edge.port, "/v1/embeddings", {"model": "m", "input": given})
    assert answer.status == 400
    assert answer.json["error"]["param"].startswith("input")
    assert fake.requests == []
