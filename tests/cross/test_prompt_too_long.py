"""A prompt that does not fit is told in the words by which agents know that they are to shorten it."""

from typing import Any

import orjson
import pytest
from fakes import ollama
from fakes.model_server import FakeModel, json_answer
from support.raw import CHAT, MESSAGES, RESPONSES, ask
from support.running import Running, Serve
from support.shapes import EVERY_SURFACE, valid_body

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
RUNNER = {
    "code": 400, "message": "request (5065 tokens) exceeds the available context size (2048 tokens), try increasing it",
    "type": "exceed_context_size_error", "n_prompt_tokens": 5065, "n_ctx": 2048,
}  # fmt: skip
OLLAMAS = {"error": orjson.dumps({"error": RUNNER}).decode()}
VLLMS = (
    "This model's maximum context length is 2048 tokens. However, you requested 5165 tokens (5065 in the messages, 100 "
    "in the completion). Please reduce the length of the messages or completion."
)
CODE = "context_length_exceeded"
ANTHROPICS = "prompt is too long: 5065 tokens > 2048 maximum"


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel) -> Running:
    ollama.be_ollama(fake, "m")
    return await serve(upstream={"kind": "ollama", "num_ctx": 2048})


@pytest.mark.parametrize("stream", [True, False])
async def test_claude_code_is_told_by_how_much(edge: Running, fake: FakeModel, *, stream: bool) -> None:
    fake.script(*json_answer(OLLAMAS, 400))
    answer = await ask(edge.port, MESSAGES, valid_body(MESSAGES, stream=stream))
    assert (answer.status, answer.json["error"]) == (400, {"type": "invalid_request_error", "message": ANTHROPICS})
    assert (await edge.record())["error"] == "context_length_exceeded"


@pytest.mark.parametrize(("path", "stream"), [(CHAT, True), (CHAT, False), (RESPONSES, False)])
async def test_openais_clients_get_its_code(edge: Running, fake: FakeModel, path: str, *, stream: bool) -> None:
    fake.script(*json_answer(OLLAMAS, 400))
    answer = await ask(edge.port, path, valid_body(path, stream=stream))
    error = answer.json["error"]
    assert (answer.status, error["code"], error["type"]) == (400, "context_length_exceeded", "invalid_request_error")
    assert "5065 tokens" in error["message"]


@pytest.mark.parametrize("refusal", ["server", "estimate"])
async def test_codex_gets_a_failed_response(serve: Serve, fake: FakeModel, refusal: str) -> None:
    """It takes a 400 for a mistake of its own, and shortens nothing."""
    ollama.be_ollama(fake, "m", version="0.13.0" if refusal == "server" else "0.12.5")
    edge = await serve(upstream={"kind": "ollama", "num_ctx": 2048, "on_truncation": "refuse"})
    fake.script(*json_answer(OLLAMAS, 400))
    answer = await ask(edge.port, RESPONSES, valid_body(RESPONSES, stream=True, input="long " * 9000))
    assert (answer.status, answer.clean) == (200, True)
    created, error, failed = [orjson.loads(event.split(b"data: ")[1]) for event in answer.events]
    assert created["type"] == "response.created"
    assert [event["sequence_number"] for event in (created, error, failed)] == [0, 1, 2]
    assert failed["response"]["id"] == created["response"]["id"]
    assert (error["type"], error["code"]) == ("error", "context_length_exceeded")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "context_length_exceeded"
    assert (await edge.record())["error"] == "context_length_exceeded"


async def test_an_ollama_client_gets_the_ollamas_own_words(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer(OLLAMAS, 400))
    answer = await ask(edge.port, "/api/chat", {"model": "m", "messages": [{"role": "user", "content": "x"}]})
    assert (answer.status, answer.json) == (400, OLLAMAS)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": VLLMS, "type": "BadRequestError", "param": None, "code": 400}},
        {"type": "error", "error": {"type": "invalid_request_error", "message": VLLMS}},
        {"error": RUNNER},
        {"type": "error", "error": {"type": "invalid_request_error", "message": ANTHROPICS}},
    ],
)
async def test_the_words_of_other_servers_are_known(serve: Serve, fake: FakeModel, body: dict[str, Any]) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    for path in (MESSAGES, CHAT):
        fake.script(*json_answer(body, 400))
        error = (await ask(edge.port, path, valid_body(path))).json["error"]
        assert error["message"] == ANTHROPICS if path == MESSAGES else error["code"] == "context_length_exceeded"


async def test_characters_are_not_told_as_tokens(serve: Serve, fake: FakeModel) -> None:
    """vLLM refuses a far too long prompt before it counts its tokens."""
    said = (
        "This model's maximum context length is 2048 tokens. However, you requested 16 output tokens and your prompt "
        "contains 200050 characters (more than 8128 characters, which is the upper bound for 2032 input tokens)."
    )
    edge = await serve(upstream=EVERY_SURFACE)
    for path in (MESSAGES, CHAT):
        fake.script(*json_answer({"error": {"message": said, "type": "BadRequestError", "code": 400}}, 400))
        error = (await ask(edge.port, path, valid_body(path))).json["error"]
        assert "200050 tokens" not in error["message"]
        assert "200050 characters" in error["message"]
        assert error["message"].startswith("prompt is too long") if path == MESSAGES else error["code"] == CODE


async def test_too_long_an_answer_is_no_prompt_that_is_too_long(serve: Serve, fake: FakeModel) -> None:
    said = VLLMS.replace("5065", "1000")
    edge = await serve(upstream=EVERY_SURFACE)
    fake.script(*json_answer({"error": {"message": said, "type": "BadRequestError", "code": 400}}, 400))
    assert (await ask(edge.port, MESSAGES, valid_body(MESSAGES))).json["error"]["message"] == said


@pytest.mark.parametrize(
    ("policy", "tools", "sent"),
    [("auto", True, False), ("auto", False, None), ("warn", True, None), ("refuse", False, False)],
)
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
async def test_who_may_have_a_cut_prompt(
    serve: Serve, fake: FakeModel, path: str, policy: str, sent: bool | None, *, tools: bool
) -> None:
    ollama.be_ollama(fake, "m")
    edge = await serve(upstream={"kind": "ollama", "on_truncation": policy})
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": False}
    await ask(edge.port, path, {**body, "tools": [TOOL] if tools else []})
    assert fake.requests[-1].json.get("truncate") is sent
    if path == "/api/chat":
        await ask(edge.port, path, {**body, "truncate": True, "tools": [TOOL]})
        assert fake.requests[-1].json["truncate"] is True, "what the client names holds"


async def test_half_a_window_is_a_cut(edge: Running, fake: FakeModel) -> None:
    fake.script(*ollama.ollama_answer([ollama.token("a"), ollama.last(prompt_eval_count=1026)]))
    await ask(edge.port, CHAT, valid_body(CHAT, messages=[{"role": "user", "content": "word " * 1000}]))
    assert (await edge.record())["truncated"] is True
