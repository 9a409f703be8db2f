"""The official Ollama client on a real llama.cpp through Edge: the same text as in that server's own API."""

from typing import Any

import orjson
import pytest
from ollama import AsyncClient
from support.hanging import HANG_S
from support.llama import FIXED, LONG, direct, generating, idle
from support.raw import CHAT, COMPLETIONS
from support.running import Serve
from support.sdk import OllamaTo

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Name three colours, please."}]
STEADY: Any = {"temperature": 0, "seed": 7, "num_predict": 16}
SCHEMA: Any = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
}


@pytest.fixture
async def client(serve: Serve, llama: LlamaServer, ollama_to: OllamaTo) -> AsyncClient:
    return ollama_to(await serve(llama.url), timeout=HANG_S)


async def test_a_chat_is_what_the_server_says_itself(client: AsyncClient, llama: LlamaServer) -> None:
    own = (await direct(llama, CHAT, {**FIXED, "messages": MESSAGES, "max_tokens": 16})).json
    whole = await client.chat(MODEL_NAME, MESSAGES, options=STEADY)
    parts = [part async for part in await client.chat(MODEL_NAME, MESSAGES, options=STEADY, stream=True)]
    text = own["choices"][0]["message"]["content"]
    assert whole.message.content == text
    assert "".join(part.message.content or "" for part in parts) == text
    assert (whole.done_reason, parts[-1].done_reason) == ("length", "length")
    assert whole.prompt_eval_count == own["usage"]["prompt_tokens"]
    assert whole.eval_count == parts[-1].eval_count == 16


async def test_a_raw_prompt_is_continued_without_a_template(client: AsyncClient, llama: LlamaServer) -> None:
    prompt = "The three primary colours are"
    own = (await direct(llama, COMPLETIONS, {**FIXED, "prompt": prompt, "max_tokens": 16})).json
    raw = await client.generate(MODEL_NAME, prompt, raw=True, options=STEADY)
    assert raw.response == own["choices"][0]["text"]
    assert (await client.generate(MODEL_NAME, prompt, options=STEADY)).response != raw.response


async def test_a_schema_binds_the_answer(client: AsyncClient) -> None:
    answer = await client.chat(MODEL_NAME, MESSAGES, format=SCHEMA, options={"num_predict": 40})
    assert orjson.loads(answer.message.content or "")["colour"] in ("red", "blue")


async def test_the_model_is_listed_and_shown_with_its_size(client: AsyncClient) -> None:
    (listed,) = (await client.list()).models
    assert listed.model == f"{MODEL_NAME}:latest"
    assert listed.size
    assert listed.details is not None
    assert listed.details.parameter_size == "134.52M"
    assert (await client.show(listed.model)).modelinfo["general.parameter_count"] == 134_515_008


async def test_leaving_in_the_middle_stops_the_model(client: AsyncClient, llama: LlamaServer) -> None:
    asked: Any = [{"role": "user", "content": LONG}]
    stream: Any = await client.chat(MODEL_NAME, asked, options={"num_predict": 1500}, stream=True)
    async for _ in stream:
        break
    await generating(llama)
    await stream.aclose()
    await idle(llama)
