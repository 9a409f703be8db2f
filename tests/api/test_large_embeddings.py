"""Large answers of embeddings that are translated: another process does that, while everything else goes on."""

import asyncio
import os
import signal
from typing import Any

import pytest
from fakes import ollama
from fakes.model_server import FakeModel, json_answer
from support.raw import RawClient, ask
from support.running import Running, Serve

TEXTS = 40
VECTOR = [number / 7 for number in range(2000)]
LARGE: dict[str, Any] = {"model": "m", "embeddings": [VECTOR] * TEXTS, "prompt_eval_count": 4}
ASKED = {"model": "m", "input": ["a"] * TEXTS}


@pytest.fixture
async def edge(serve: Serve, fake: FakeModel) -> Running:
    """In front of an Ollama, with the process for large bodies at hand: it has made an answer already."""
    ollama.be_ollama(fake, "m")
    edge = await serve(upstream={"kind": "ollama"})
    fake.script(*json_answer(LARGE))
    answer = await ask(edge.port, "/v1/embeddings", ASKED)
    assert [item["index"] for item in answer.json["data"]] == list(range(TEXTS))
    assert answer.json["data"][-1]["embedding"] == VECTOR
    assert answer.json["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    return edge


def process(edge: Running) -> int:
    pid = edge.edge.bodies._parser.pid
    assert pid is not None
    return pid


async def health(edge: Running) -> int:
    async with RawClient(edge.port) as client:
        await client.get("/health", {"Connection": "close"})
        return (await client.answer()).status


async def test_others_are_answered_while_it_is_made(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer(LARGE))
    os.kill(process(edge), signal.SIGSTOP)
    try:
        asking = asyncio.create_task(ask(edge.port, "/v1/embeddings", ASKED))
        await edge.wait(edge.edge.bodies._parser._turn.locked)
        for _ in range(3):
            assert await health(edge) == 200
        assert not asking.done()
    finally:
        os.kill(process(edge), signal.SIGCONT)
    assert len((await asking).json["data"]) == TEXTS
    assert (await edge.record(1))["outcome"] == "complete"


async def test_a_client_that_leaves_meanwhile_leaves_nothing_behind(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer(LARGE))
    os.kill(process(edge), signal.SIGSTOP)
    asking = asyncio.create_task(ask(edge.port, "/v1/embeddings", ASKED))
    await edge.wait(edge.edge.bodies._parser._turn.locked)
    asking.cancel()
    assert (await edge.record(1))["outcome"] == "client_gone"
    await edge.wait(lambda: not edge.edge.bodies._parser._turn.locked())
    fake.script(*json_answer(LARGE))
    assert len((await ask(edge.port, "/v1/embeddings", ASKED)).json["data"]) == TEXTS


WRONG = {
    "too few vectors": (LARGE | {"embeddings": [VECTOR] * 39}, "39 embeddings for 40 texts"),
    "no vectors": ({"model": "m", "embeddings": "x" * 2**21}, "no embeddings"),
    "an error": ({"error": "it broke " + "x" * 2**21}, "it broke"),
}


@pytest.mark.parametrize(("body", "told"), WRONG.values(), ids=WRONG)
async def test_what_is_wrong_with_it_is_told(edge: Running, fake: FakeModel, body: Any, told: str) -> None:
    fake.script(*json_answer(body))
    answer = await ask(edge.port, "/v1/embeddings", ASKED)
    assert answer.status == 502
    assert told in answer.json["error"]["message"]


async def test_a_process_that_dies_is_an_error_and_the_next_answer_has_another(edge: Running, fake: FakeModel) -> None:
    fake.script(*json_answer(LARGE))
    dying = process(edge)
    os.kill(dying, signal.SIGSTOP)
    asking = asyncio.create_task(ask(edge.port, "/v1/embeddings", ASKED))
    await edge.wait(edge.edge.bodies._parser._turn.locked)
    os.kill(dying, signal.SIGKILL)
    assert (await asking).status == 503
    fake.script(*json_answer(LARGE))
    assert (await ask(edge.port, "/v1/embeddings", ASKED)).status == 200
    assert process(edge) != dying
