"""llama.cpp's further routes through Edge: its own tokens, and its own refusal."""

import pytest
from support.llama import direct
from support.raw import ask
from support.running import Serve

from edge.cli.llama_server import LlamaServer

pytestmark = pytest.mark.real

ALLOWED = {"relay": ["/tokenize", "/detokenize", "/v1/rerank"]}
TEXT = "The sky is blue."


async def test_tokens_there_and_back(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url, upstream=ALLOWED)
    ours = await ask(edge.port, "/tokenize", {"content": TEXT})
    assert ours.json == (await direct(llama, "/tokenize", {"content": TEXT})).json
    back = await ask(edge.port, "/detokenize", ours.json)
    assert back.json["content"].strip() == TEXT
    records = await edge.lines.wait("exchange", 2)
    assert [(record["surface"], record["outcome"]) for record in records] == [
        ("/tokenize", "complete"),
        ("/detokenize", "complete"),
    ]


async def test_a_server_that_does_not_rerank_says_so(serve: Serve, llama: LlamaServer) -> None:
    edge = await serve(llama.url, upstream=ALLOWED)
    answer = await ask(edge.port, "/v1/rerank", {"query": "sky", "documents": [TEXT]})
    assert (answer.status, answer.json["error"]["type"]) == (501, "not_supported_error")
