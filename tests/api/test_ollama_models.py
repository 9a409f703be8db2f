"""What Ollama's clients are shown of models and of the server, whoever has the models; and that Edge is no Ollama."""

from datetime import datetime
from typing import Any

import aiohttp
import orjson
import pytest
from fakes.model_server import FakeModel, json_answer, stall
from fakes.ollama import be_ollama
from support.captures import HOME
from support.ollama import DETAILS, JSON, pass_for_ollama
from support.raw import ask
from support.running import Serve
from support.shapes import get

from edge.api import ollama
from edge.settings import Upstream
from edge.upstream.discovery.servers import Kind, identify
from edge.upstream.pool import Pool

LLAMA_CPP = {
    "id": "tiny",
    "object": "model",
    "created": 1_700_000_000,
    "owned_by": "llamacpp",
    "meta": {"n_params": 134_515_008, "size": 144_000_000, "n_ctx_train": 8192, "n_embd": 576},
}
CAN = {"embedder:latest": ["embedding"], "seer:latest": ["completion", "vision", "tools", "thinking"]}
VLLM = {"id": "org/big", "object": "model", "created": 1_700_000_000, "owned_by": "vllm", "max_model_len": 32768}


def list_cards(fake: FakeModel, *cards: dict[str, Any]) -> None:
    fake.get["/v1/models"] = (200, JSON, orjson.dumps({"object": "list", "data": list(cards)}))


async def test_it_is_there(serve: Serve) -> None:
    edge = await serve()
    for path, body in (("/", b"Ollama is running"), ("/api/version", orjson.dumps({"version": ollama.VERSION}))):
        answer = await get(edge.port, path)
        assert (answer.status, answer.body) == (200, body)
    assert (await get(edge.port, "/")).headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/", "/api/version", "/api/tags"])
async def test_head_has_no_body(serve: Serve, path: str) -> None:
    edge = await serve()
    async with aiohttp.ClientSession() as session, session.head(edge.url + path) as answer:
        assert (answer.status, await answer.read()) == (200, b"")


async def test_models_of_all_servers_are_listed_with_what_is_known_of_them(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    async with FakeModel() as second, FakeModel() as third:
        list_cards(second, LLAMA_CPP)
        list_cards(third, VLLM)
        edge = await serve(fake.url, second.url, third.url)
        entries = (await get(edge.port, "/api/tags")).json["models"]
    assert [entry["name"] for entry in entries] == ["llama3:8b", "tiny:latest", "org/big:latest"]
    known, tiny, big = entries
    assert {name: known["details"][name] for name in DETAILS} == DETAILS
    assert (known["size"], known["digest"], known["modified_at"]) == (
        4_000_000_000, "d1" * 32, "2025-01-01T00:00:00Z",
    )  # fmt: skip
    assert (tiny["size"], tiny["details"]["parameter_size"]) == (144_000_000, "134.52M")
    assert (big["size"], big["details"]["parameter_size"]) == (0, "")
    for entry in entries:  # what `ollama list` and the SDK need of each
        assert entry["model"] == entry["name"]
        assert len(entry["digest"]) == 64
        assert datetime.fromisoformat(entry["modified_at"])
        assert set(entry["details"]) >= {"family", "format", "parameter_size", "quantization_level"}


async def test_running_models_are_an_ollamas_own_and_all_of_the_others(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    running = {"name": "llama3:8b", "model": "llama3:8b", "size_vram": 5, "expires_at": "2025-01-01T00:05:00Z"}
    fake.get["/api/ps"] = (200, JSON, orjson.dumps({"models": [running]}))
    async with FakeModel() as second:
        list_cards(second, VLLM)
        edge = await serve(fake.url, second.url)
        first, big = (await get(edge.port, "/api/ps")).json["models"]
        assert first == running
        assert (big["name"], big["context_length"]) == ("org/big:latest", 32768)
        assert datetime.fromisoformat(big["expires_at"]).year > 2100
        fake.get["/api/ps"] = (500, JSON, b"{}")
        assert [entry["name"] for entry in (await get(edge.port, "/api/ps")).json["models"]] == ["org/big:latest"]


@pytest.mark.parametrize("field", ["model", "name"])
@pytest.mark.parametrize("name", ["tiny", "tiny:latest"])
async def test_a_model_is_shown_from_its_card(serve: Serve, fake: FakeModel, field: str, name: str) -> None:
    list_cards(fake, LLAMA_CPP)
    answer = await ask((await serve()).port, "/api/show", {field: name})
    assert answer.status == 200
    assert answer.json["model_info"] == {
        "general.architecture": "unknown",
        "general.parameter_count": 134_515_008,
        "unknown.context_length": 8192,
        "unknown.embedding_length": 576,
    }
    assert answer.json["details"]["parameter_size"] == "134.52M"
    assert answer.json["capabilities"] == ["completion", "tools"]


async def test_an_ollamas_model_is_shown_by_the_ollama(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    shown = {"details": DETAILS, "model_info": {"general.architecture": "llama"}, "capabilities": ["vision"]}
    fake.script(*json_answer(shown), path="/api/show")
    edge = await serve()
    assert (await ask(edge.port, "/api/show", {"model": "llama3:8b", "verbose": True})).json == shown
    assert fake.requests[0].json == {"model": "llama3:8b", "verbose": True}
    fake.script(*json_answer({"error": "broken"}, 500), path="/api/show")
    from_card = await ask(edge.port, "/api/show", {"model": "llama3:8b"})
    assert from_card.json["details"]["family"] == "llama"


async def test_an_ollama_that_does_not_answer_is_not_waited_for(
    serve: Serve, fake: FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ollama, "_ASK_S", 0.05)
    pass_for_ollama(fake)
    fake.script(stall(), path="/api/show")
    edge = await serve()
    told = await ask(edge.port, "/api/show", {"model": "llama3:8b"})
    assert (told.status, told.json["error"]) == (504, "upstream up did not answer within 0.05 s")
    assert await (await fake.request(0)).left() in ("fin", "reset")


@pytest.mark.parametrize("name", ["none", "m:8b", "<script>", "x" * 300])
async def test_a_model_that_nobody_has_is_not_found(serve: Serve, name: str) -> None:
    answer = await ask((await serve()).port, "/api/show", {"model": name})
    assert answer.status == 404
    assert answer.json["error"].startswith("model '")
    assert answer.json["error"].endswith("' not found")
    assert len(answer.json["error"]) < 200


@pytest.mark.parametrize("keys", [[], ["secret-key-of-some-length"]])
async def test_an_edge_is_never_taken_for_an_ollama(serve: Serve, fake: FakeModel, keys: list[str]) -> None:
    """Although it says at ``/`` that it is one."""
    pass_for_ollama(fake)
    edge = await serve(auth={"keys": keys})
    pool = Pool(Upstream(name="x", url=edge.url))
    try:
        assert (await identify(pool)).kind is Kind.EDGE
    finally:
        await pool.close()


# --- what Ollama's command line asks ------------------------------------------------------------------------------


async def test_the_command_line_is_told_that_no_cloud_is_reached_through_here(serve: Serve, fake: FakeModel) -> None:
    """Before it lists or runs a model of the cloud it asks ``/api/status``; a 404 would be "cannot tell"."""
    pass_for_ollama(fake)
    edge = await serve()
    answer = await get(edge.port, "/api/status")
    assert (answer.status, answer.json) == (200, {"cloud": {"disabled": True, "source": "none"}})
    assert answer.headers["content-type"].startswith("application/json")


async def test_nobody_is_signed_in(serve: Serve, fake: FakeModel) -> None:
    """As an Ollama says it: 401 with a text. Without a ``signin_url``, as there is nowhere to sign in to."""
    pass_for_ollama(fake)
    edge = await serve()
    answer = await ask(edge.port, "/api/me", {})
    assert answer.status == 401
    assert set(answer.json) == {"error"}
    assert answer.json["error"].startswith("unauthorized")
    assert fake.requests == [], "the upstream's account is not the caller's"
    bodyless = await get(edge.port, "/api/me", method="POST")
    assert (bodyless.status, bodyless.json) == (401, answer.json)


async def test_both_need_a_key_where_there_are_keys(serve: Serve) -> None:
    edge = await serve(auth={"keys": ["sk-edge-0123456789abcdef"]})
    for method, path in (("GET", "/api/status"), ("POST", "/api/me")):
        assert "API key" in (await get(edge.port, path, method=method)).json["error"]
        told = await get(edge.port, path, {"Authorization": "Bearer sk-edge-0123456789abcdef"}, method)
        assert (told.status, "API key" in told.body.decode()) == (200 if method == "GET" else 401, False)


async def test_the_list_says_what_each_model_can_do(serve: Serve, fake: FakeModel) -> None:
    """As the Ollama that has it says; of others it is not known, and editors hide what does not say ``tools``."""
    recorded = orjson.loads((HOME / "ollama" / "tags.json").read_bytes())["models"]
    able = [{**recorded[0], "name": name, "model": name, "capabilities": can} for name, can in CAN.items()]
    be_ollama(fake, *CAN)
    fake.get["/api/tags"] = (200, JSON, orjson.dumps({"models": [*recorded, *able]}))
    async with FakeModel() as second:
        list_cards(second, VLLM)
        edge = await serve(fake.url, second.url)
        entries = {entry["name"]: entry for entry in (await get(edge.port, "/api/tags")).json["models"]}
    told = {name: entry["capabilities"] for name, entry in entries.items()}
    assert {name: told[name] for name in CAN} == CAN
    assert told["org/big:latest"] == ["completion", "tools"]


async def test_the_list_is_the_ollamas_own_field_by_field(serve: Serve, fake: FakeModel) -> None:
    """What a real one has recorded."""
    recorded = orjson.loads((HOME / "ollama" / "tags.json").read_bytes())["models"]
    be_ollama(fake, *(model["name"] for model in recorded))
    fake.get["/api/tags"] = (200, JSON, orjson.dumps({"models": recorded}))
    edge = await serve(upstream={"kind": "ollama"})
    assert (await get(edge.port, "/api/tags")).json["models"] == recorded
