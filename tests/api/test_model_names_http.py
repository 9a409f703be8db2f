"""One model of an Ollama under its many names: found, limited, permitted, queued and shown as one, on every surface."""

from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel, json_answer
from fakes.ollama import be_ollama
from support.raw import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, ask
from support.running import Serve
from support.shapes import BODIES, get

SPELLINGS = ("smollm2", "SmolLM2:latest", "library/smollm2", "registry.ollama.ai/library/smollm2")
ASKED: dict[str, dict[str, Any]] = {
    CHAT: BODIES[CHAT],
    MESSAGES: BODIES[MESSAGES],
    RESPONSES: BODIES[RESPONSES],
    "/api/chat": {**BODIES[CHAT], "stream": False},
    "/api/generate": {"prompt": "hi", "stream": False},
    EMBEDDINGS: BODIES[EMBEDDINGS],
    "/api/embed": {"input": "hi"},
}
VECTORS = json_answer({"model": "m", "embeddings": [[1.0]], "prompt_eval_count": 1})


@pytest.fixture
def ollama(fake: FakeModel) -> FakeModel:
    be_ollama(fake, "smollm2:latest")
    return fake


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("name", SPELLINGS)
async def test_it_is_found_beside_another_upstream(serve: Serve, ollama: FakeModel, path: str, name: str) -> None:
    async with FakeModel() as other:
        edge = await serve(ollama.url, other.url)
        if path in (EMBEDDINGS, "/api/embed"):
            ollama.script(*VECTORS)
        told = await ask(edge.port, path, {**ASKED[path], "model": name})
    assert told.status == 200, told.body
    assert ollama.requests[-1].json["model"] == name, "it is told the client's spelling, and echoes it"
    assert (await edge.record())["model"] == "smollm2:latest"


async def test_all_spellings_count_against_one_limit(serve: Serve, ollama: FakeModel) -> None:
    edge = await serve(limit=[{"name": "small", "models": ["SmolLM2"], "requests_per_min": 1}])
    assert (await ask(edge.port, CHAT, {**ASKED[CHAT], "model": "smollm2"})).status == 200
    for path, body in ASKED.items():
        for name in SPELLINGS:
            assert (await ask(edge.port, path, {**body, "model": name})).status == 429, (path, name)
    assert len(ollama.requests) == 1


async def test_the_bound_on_an_answer_holds_for_a_name_that_is_not_listed_yet(serve: Serve, ollama: FakeModel) -> None:
    edge = await serve(limit=[{"name": "small", "models": ["new"], "max_tokens": 7}])
    await ask(edge.port, "/api/chat", {**ASKED["/api/chat"], "model": "Library/NEW:Latest"})
    assert ollama.requests[-1].json["options"] == {"num_predict": 7}


@pytest.mark.parametrize("name", SPELLINGS)
async def test_its_card_is_found(serve: Serve, ollama: FakeModel, fake: FakeModel, name: str) -> None:
    async with FakeModel() as other:
        edge = await serve(ollama.url, other.url)
        card = await get(edge.port, f"/v1/models/{name}")
        assert (card.status, card.json["id"]) == (200, name)
        fake.script(*json_answer({"details": {"family": "llama"}, "capabilities": ["completion"]}))
        shown = await ask(edge.port, "/api/show", {"model": name})
    assert (shown.status, orjson.loads(shown.body)["capabilities"]) == (200, ["completion"])
    assert fake.requests[-1].json["model"] == "smollm2:latest"


async def test_names_of_other_servers_are_told_apart_by_case(serve: Serve, fake: FakeModel) -> None:
    fake.models = ["Qwen/Qwen3"]
    async with FakeModel() as other:
        edge = await serve(fake.url, other.url)
        told = await ask(edge.port, CHAT, {**ASKED[CHAT], "model": "qwen/qwen3"})
    assert told.status == 404


async def test_a_large_request_is_written_in_the_upstreams_spelling(serve: Serve, fake: FakeModel) -> None:
    """It is translated in another process, which must know the name as well."""
    fake.models = ["tiny"]
    edge = await serve()
    body = {"model": "Tiny:latest", "stream": False, "messages": [{"role": "user", "content": "x" * 2**21}]}
    told = await ask(edge.port, "/api/chat", body, timeout_s=120)
    assert told.status == 200
    assert fake.requests[-1].json["model"] == "tiny"
