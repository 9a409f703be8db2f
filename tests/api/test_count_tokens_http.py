"""Counting a message's tokens: by who counts, else by an estimate that says so, and never for what is not there."""

from typing import Any

import pytest
from fakes import ollama
from fakes.model_server import FakeModel
from support.raw import ask
from support.running import Serve
from support.shapes import COUNT_TOKENS, assert_told

HI = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("kind", ["openai-compatible", "ollama"])
async def test_tokens_are_estimated_where_nobody_counts_them(serve: Serve, fake: FakeModel, kind: str) -> None:
    if kind == "ollama":
        ollama.be_ollama(fake, "m")
    edge = await serve(upstream={"kind": kind})
    messages = [{"role": "user", "content": "word " * 800}]
    answer = await ask(edge.port, COUNT_TOKENS, {"model": "m", "messages": messages})
    assert (answer.status, set(answer.json)) == (200, {"input_tokens"})
    assert answer.json["input_tokens"] == pytest.approx(1000, rel=0.05)
    assert answer.headers["x-edge-estimated"] == "true"
    assert answer.headers["content-type"].startswith("application/json")
    assert fake.requests == []


async def test_a_large_request_is_read_elsewhere(serve: Serve) -> None:
    edge = await serve()
    source = {"type": "base64", "media_type": "image/jpeg", "data": "A" * 2_000_000}
    messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    answer = await ask(edge.port, COUNT_TOKENS, {"model": "m", "messages": messages})
    assert 1000 < answer.json["input_tokens"] < 2000


async def test_an_estimate_of_what_is_malformed_is_refused(serve: Serve) -> None:
    edge = await serve()
    answer = await ask(edge.port, COUNT_TOKENS, {"model": "m", "messages": []})
    assert_told(answer, 400, COUNT_TOKENS, kind="invalid_request_error")
    assert answer.json["error"]["message"].startswith("messages: ")
    assert edge.edge.bodies.budget.used == 0


async def test_who_counts_is_asked(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"surfaces": ["messages", "count_tokens"]})
    answer = await ask(edge.port, COUNT_TOKENS, {"model": "m", "messages": HI})
    assert answer.json == {"input_tokens": 7}
    assert "x-edge-estimated" not in answer.headers
    assert fake.requests[0].path == COUNT_TOKENS


@pytest.mark.parametrize("extra", [{}, {"surfaces": ["messages", "count_tokens"]}], ids=["estimated", "counted"])
async def test_a_model_that_nobody_has_has_no_tokens(serve: Serve, fake: FakeModel, extra: dict[str, Any]) -> None:
    async with FakeModel() as other:
        other.models = ["n"]
        edge = await serve(fake.url, other.url, upstream=extra)
        answer = await ask(edge.port, COUNT_TOKENS, {"model": "x", "messages": HI})
    assert_told(answer, 404, COUNT_TOKENS, kind="not_found_error")
    assert "there are: m, n" in answer.json["error"]["message"]


async def test_nothing_is_estimated_for_a_server_that_is_not_there(serve: Serve, fake: FakeModel) -> None:
    await fake.refuse()
    edge = await serve()
    answer = await ask(edge.port, COUNT_TOKENS, {"model": "m", "messages": HI})
    assert_told(answer, 503, COUNT_TOKENS, kind="overloaded_error")
