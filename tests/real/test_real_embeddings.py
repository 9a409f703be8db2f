"""Embeddings of a real model, through Edge, by the official SDK: the server's own numbers."""

from typing import Any

import pytest
from support.hanging import HANG_S
from support.llama import FIXED, direct
from support.raw import EMBEDDINGS, ask
from support.running import Serve
from support.sdk import OpenAITo

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

TEXTS = ["The sky is blue.", "Grass is green."]


async def test_vectors_are_the_servers_own(serve: Serve, llama_embedding: LlamaServer, openai_to: OpenAITo) -> None:
    """In base64, as the SDK asks by itself, and in plain numbers."""
    edge = await serve(llama_embedding.url)
    client = openai_to(edge, timeout=HANG_S)
    theirs = (await direct(llama_embedding, EMBEDDINGS, {"model": MODEL_NAME, "input": TEXTS})).json
    ours = await client.embeddings.create(model=MODEL_NAME, input=TEXTS)
    plain = await client.embeddings.create(model=MODEL_NAME, input=TEXTS, encoding_format="float")
    assert ours.usage.prompt_tokens == theirs["usage"]["prompt_tokens"]
    assert [item.index for item in ours.data] == [0, 1]
    for number, item in enumerate(theirs["data"]):
        assert list(ours.data[number].embedding) == pytest.approx(item["embedding"], abs=1e-5)
        assert plain.data[number].embedding == pytest.approx(item["embedding"], abs=1e-5)
    records = await edge.lines.wait("exchange", 2)
    assert [(record["surface"], record["outcome"]) for record in records] == [("embeddings", "complete")] * 2


async def test_a_server_without_embeddings_says_so(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url)
    answer = await ask(edge.port, EMBEDDINGS, {"model": MODEL_NAME, "input": "hi"})
    error: dict[str, Any] = answer.json["error"]
    assert (answer.status, error["type"]) == (501, "not_supported_error")
    assert "does not support embeddings" in error["message"]


async def test_a_server_with_embeddings_still_chats(
    serve: Serve, llama_embedding: LlamaServer, openai_to: OpenAITo
) -> None:
    client = openai_to(await serve(llama_embedding.url), timeout=HANG_S)
    messages: Any = [{"role": "user", "content": "hi"}]
    answer = await client.chat.completions.create(messages=messages, model=FIXED["model"], max_tokens=3)
    assert answer.usage.completion_tokens > 0
