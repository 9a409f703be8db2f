"""The further routes of a model server: passed on where its settings say so, on exactly their paths and no others."""

from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import FakeModel, head, json_answer, rst, send, stall, whole
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve, make_settings, start
from support.slots import Clients, held

JSON_ROUTES: dict[str, dict[str, Any]] = {
    "/v1/rerank": {"model": "m", "query": "q", "documents": ["a", "b"], "top_n": 1},
    "/rerank": {"query": "q", "texts": ["a", "b"]},
    "/v1/score": {"model": "m", "text_1": "a", "text_2": ["b"]},
    "/v2/rerank": {"model": "m", "query": "q", "documents": ["a", "b"]},
    "/pooling": {"model": "m", "input": ["a", "b"]},
    "/classify": {"model": "m", "input": "a"},
    "/infill": {"input_prefix": "def f(", "input_suffix": ")", "n_predict": 4},
    "/v1/responses/input_tokens": {"model": "m", "input": "a"},
    "/v1/chat/completions/control": {"id": "chatcmpl-1", "action": "reasoning_end"},
    "/v1/decisions": {"model": "m", "input": "a"},
    "/v1/systemone": {"model": "m", "input": "a"},
    "/v1/audio/speech": {"model": "m", "input": "a", "voice": "alloy", "response_format": "wav"},
    "/tokenize": {"content": "a b", "with_pieces": True},
    "/detokenize": {"tokens": [1, 2]},
}
RERANK = "/v1/rerank"
RANKED = {"object": "list", "results": [{"index": 1, "relevance_score": 0.5}], "usage": {"total_tokens": 7}}
ALL = {"relay": list(JSON_ROUTES)}
SECRETS = {
    "Authorization": "Bearer the-clients-own",
    "X-Api-Key": "the-clients-own",
    "Cookie": "the-clients-own",
    "X-Conversation-Id": "the-clients-own",
}


@pytest.mark.parametrize("path", JSON_ROUTES)
async def test_a_route_that_is_allowed_is_passed_on_and_recorded(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(*json_answer(RANKED))
    edge = await serve(upstream=ALL)
    answer = await ask(edge.port, path, JSON_ROUTES[path], SECRETS)
    assert (answer.status, answer.json) == (200, RANKED)
    assert answer.headers["x-edge-upstream"] == "up"
    (request,) = fake.requests
    assert (request.path, request.json) == (path, JSON_ROUTES[path])
    assert "the-clients-own" not in str(request.headers)
    record = await edge.record()
    assert (record["surface"], record["outcome"], record["status"]) == (path, "complete", 200)


async def test_a_list_is_an_answer_too(serve: Serve, fake: FakeModel) -> None:
    """Text Embeddings Inference answers ``/rerank`` with one."""
    fake.script(*whole(b'[{"index":1,"score":0.5}]', 200, {"Content-Type": "application/json"}))
    answer = await ask((await serve(upstream=ALL)).port, "/rerank", JSON_ROUTES["/rerank"])
    assert answer.json == [{"index": 1, "score": 0.5}]


VECTORS = (Path(__file__).parents[1] / "golden" / "vllm" / "embeddings_bytes.bin").read_bytes()  # a real vLLM's
METADATA = '{"id":"embd-1","data":[{"index":0,"start":0,"end":512}],"usage":{"prompt_tokens":1}}'


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/embeddings", "application/octet-stream"),
        ("/pooling", "application/octet-stream"),
        ("/v1/audio/speech", "audio/mpeg"),
        ("/v1/audio/speech", "audio/wav"),
    ],
)
async def test_bytes_are_passed_on_as_they_are(serve: Serve, fake: FakeModel, path: str, kind: str) -> None:
    """The header says where in them each vector is."""
    fake.script(*whole(VECTORS, 200, {"Content-Type": kind, "metadata": METADATA}))
    edge = await serve(upstream=ALL)
    asked = {"model": "m", "input": "hi", "encoding_format": "bytes"}
    answer = await ask(edge.port, path, asked)
    assert (answer.status, answer.clean, answer.body) == (200, True, VECTORS)
    assert (answer.headers["content-type"], answer.headers["metadata"]) == (kind, METADATA)
    assert fake.requests[0].json == asked
    record = await edge.record()
    assert (record["outcome"], record["bytes_out"], record.get("ttft_s")) == ("complete", len(VECTORS), None)


async def test_bytes_that_break_off_are_no_answer(serve: Serve, fake: FakeModel) -> None:
    length = {"Content-Type": "audio/mpeg", "Content-Length": str(len(VECTORS) + 1)}
    fake.script(head(200, length), send(VECTORS), rst())
    answer = await ask((await serve(upstream=ALL)).port, "/v1/audio/speech", JSON_ROUTES["/v1/audio/speech"])
    assert answer.status == 502


async def test_bytes_are_no_chat(serve: Serve, fake: FakeModel) -> None:
    fake.script(*whole(VECTORS, 200, {"Content-Type": "application/octet-stream"}))
    assert (await ask((await serve()).port, CHAT, chat_body(stream=False))).status == 502


@pytest.mark.parametrize("path", ["/v1/chat/completions/control", "/v1/responses/input_tokens", "/tokenize"])
async def test_what_runs_no_model_waits_for_no_slot(serve: Serve, fake: FakeModel, path: str) -> None:
    """A thought that goes on too long is to be ended while it has the only slot."""
    fake.script(*held("first"), path=CHAT)
    fake.script(*json_answer({"success": True}), path=path)
    edge = await serve(upstream={**ALL, "max_concurrency": 1}, queue={"interactive_length": 0})
    async with Clients(edge) as clients:
        await clients.ask()
        await fake.reached("first")
        assert (await ask(edge.port, path, JSON_ROUTES[path])).json == {"success": True}
        fake.open("first")


@pytest.mark.parametrize("path", JSON_ROUTES)
async def test_nothing_is_passed_on_unless_it_is_allowed(serve: Serve, fake: FakeModel, path: str) -> None:
    others = [other for other in JSON_ROUTES if other != path]
    edge = await serve(upstream={"relay": others})
    answer = await ask(edge.port, path, JSON_ROUTES[path])
    assert (answer.status, answer.json["error"]["code"]) == (501, "surface_not_supported")
    assert path in answer.json["error"]["message"]
    assert "relay in [[upstream]]" in answer.json["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert fake.requests == []


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/rerank/", "/v1/rerank/..", "/v1//rerank", "/v1/rerank/../chat/completions", "/V1/rerank"),
        *("/v1/reranking", "/v3/rerank", "/score", "/tokenizer", "/v1/tokenize", "/v1/remove", "/v1/audio/speeches"),
        *("/v1/pooling", "/v1/infill", "/v1/responses/input_token", "/v1/chat/completions/controls", "/v1/responses/x"),
    ],
)
async def test_only_the_exact_path_is_a_route(serve: Serve, fake: FakeModel, path: str) -> None:
    answer = await ask((await serve(upstream=ALL)).port, path, JSON_ROUTES[RERANK])
    assert (answer.status, answer.json["error"]["code"]) == (404, "unknown_route")
    assert fake.requests == []


async def test_only_post_is_a_method_of_it(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=ALL)
    async with RawClient(edge.port) as client:
        await client.get(RERANK)
        answer = await client.answer()
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert all(request.path != RERANK for request in fake.gets)


async def test_a_route_is_asked_only_of_those_that_relay_it(fake: FakeModel) -> None:
    async with FakeModel() as ranker:
        settings = make_settings(fake.url, ranker.url)
        upstream = [settings.upstream[0], type(settings.upstream[1])(name="ranker", url=ranker.url, relay=[RERANK])]
        edge = await start(type(settings)(server=settings.server, discovery=settings.discovery, upstream=upstream))
        try:
            ranker.script(*json_answer(RANKED))
            answer = await ask(edge.port, RERANK, {"query": "q", "documents": ["a"]})
            chat = await ask(edge.port, CHAT, chat_body())
        finally:
            await edge.stop()
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, "ranker")
        assert (chat.status, chat.headers["x-edge-upstream"]) == (
            200,
            "up",
        )  # its surfaces are what they were


async def test_the_model_chooses_the_upstream(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as other:
        other.models = ["ranker"]
        other.script(*json_answer(RANKED))
        edge = await serve(fake.url, other.url, upstream=ALL)
        answer = await ask(edge.port, RERANK, {**JSON_ROUTES[RERANK], "model": "ranker"})
        assert answer.headers["x-edge-upstream"] == "up1"
        assert (await edge.record())["model"] == "ranker"
        unknown = await ask(edge.port, RERANK, {**JSON_ROUTES[RERANK], "model": "nobodys"})
        assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")


async def test_another_upstream_is_tried_when_one_fails(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as other:
        fake.script(*json_answer({"error": {"message": "overloaded"}}, 503))
        other.script(*json_answer(RANKED))
        edge = await serve(fake.url, other.url, upstream=ALL)
        answer = await ask(edge.port, RERANK, JSON_ROUTES[RERANK])
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, "up1")
        assert (await edge.record())["attempts"] == 2


async def test_a_client_that_leaves_closes_the_connection(serve: Serve, fake: FakeModel) -> None:
    fake.script(stall())
    edge = await serve(upstream=ALL)
    async with RawClient(edge.port) as client:
        await client.post(RERANK, JSON_ROUTES[RERANK])
        request = await fake.request(0)
        client.close()
        await request.left()
    assert (await edge.record())["outcome"] == "client_gone"


async def test_an_answer_is_bounded(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(headers={"Content-Type": "application/json"}), send(b'{"tokens":[' + b"1," * 5000), stall())
    edge = await serve(upstream=ALL, stream={"max_answer_bytes": 4096})
    answer = await ask(edge.port, "/tokenize", JSON_ROUTES["/tokenize"])
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


async def test_a_refusal_is_told_in_the_servers_own_words(serve: Serve, fake: FakeModel) -> None:
    """llama.cpp without ``--reranking``."""
    said = {"error": {"code": 501, "message": "This server does not support reranking.", "type": "not_supported_error"}}
    fake.script(*json_answer(said, 501))
    answer = await ask((await serve(upstream=ALL)).port, RERANK, JSON_ROUTES[RERANK])
    assert (answer.status, answer.json) == (501, said)


async def test_a_page_that_may_not_call_cannot_post_a_form(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=ALL)
    answer = await ask(edge.port, RERANK, b"query=q", {"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status == 415
    assert fake.requests == []


async def test_metrics_name_the_route(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer(RANKED))
    edge = await serve(upstream=ALL)
    await ask(edge.port, RERANK, JSON_ROUTES[RERANK])
    await edge.record()
    async with RawClient(edge.port) as client:
        await client.get("/metrics")
        text = (await client.answer()).body.decode()
    assert 'edge_exchanges_total{outcome="complete",surface="/v1/rerank",upstream="up"} 1.0' in text
    assert 'gen_ai_operation_name="rerank"' in text
