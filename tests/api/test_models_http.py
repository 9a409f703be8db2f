"""The merged list of models, one model by its id, and what is told when a request has nowhere to go."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel, models_body
from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Answer, ask
from support.running import Running, Serve
from support.shapes import COUNT_TOKENS, EVERY_SURFACE, assert_told, get, valid_body

JSON = {"Content-Type": "application/json"}


@pytest.fixture
async def second() -> AsyncIterator[FakeModel]:
    """Another model server."""
    async with FakeModel() as server:
        yield server


def list_cards(fake: FakeModel, *cards: dict[str, Any]) -> None:
    fake.get["/v1/models"] = (200, JSON, orjson.dumps({"object": "list", "data": list(cards)}))


async def listed(edge: Running) -> list[str]:
    return [card["id"] for card in (await get(edge.port, "/v1/models")).json["data"]]


async def test_the_lists_of_all_upstreams_are_one_each_id_once(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    """Of a model that two serve, the first one's card; fields that Edge does not know are kept."""
    list_cards(fake, {"id": "a", "object": "model", "created": 5, "owned_by": "x", "meta": {"n_ctx": 9}}, {"id": "b"})
    list_cards(second, {"id": "b", "owned_by": "y"}, {"id": "c", "created": "yesterday", "owned_by": 7})
    edge = await serve(fake.url, second.url)
    answer = await get(edge.port, "/v1/models")
    assert (answer.status, answer.json["object"]) == (200, "list")
    cards = {card["id"]: card for card in answer.json["data"]}
    assert list(cards) == ["a", "b", "c"]
    assert cards["a"] == {"id": "a", "object": "model", "created": 5, "owned_by": "x", "meta": {"n_ctx": 9}}
    assert cards["b"]["owned_by"] != "y"
    for card in cards.values():  # what the SDKs' model type requires
        assert card["object"] == "model"
        assert isinstance(card["created"], int)
        assert isinstance(card["owned_by"], str)


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ("m", "m"),
        ("org/big-7b", "org/big-7b"),
        ("org%2Fbig-7b", "org/big-7b"),
        ("a/b/c:q4_0", "a/b/c:q4_0"),
        ("with%20blank", "with blank"),
        ("%C3%BC", "ü"),
        ("100%25", "100%"),
        ("plus+plus", "plus+plus"),
    ],
)
async def test_a_model_is_found_by_its_id_with_slashes_or_escapes(
    serve: Serve, fake: FakeModel, asked: str, name: str
) -> None:
    """Although the server behind has no such route."""
    fake.models = ["m", "org/big-7b", "a/b/c:q4_0", "with blank", "ü", "100%", "plus+plus"]
    edge = await serve()
    looks = len(fake.gets)
    answer = await get(edge.port, f"/v1/models/{asked}")
    assert (answer.status, answer.json["id"]) == (200, name)
    assert len(fake.gets) == looks


@pytest.mark.parametrize("headers", [{}, {"anthropic-version": "2023-06-01"}], ids=["openai", "anthropic"])
@pytest.mark.parametrize("name", ["none", "org/none", "m/", "M", "<script>", "x" * 300])
async def test_an_unknown_model_is_told_as_such(serve: Serve, name: str, headers: dict[str, str]) -> None:
    edge = await serve()
    answer = await get(edge.port, f"/v1/models/{name}", headers)
    assert_told(answer, 404, MESSAGES if headers else CHAT, "model_not_found", "not_found_error")
    assert len(answer.json["error"]["message"]) < 200


async def asked_for(edge: Running, path: str, model: str) -> Answer:
    return await ask(edge.port, path, valid_body(path, model=model))


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_a_request_for_a_model_that_nobody_lists_is_refused_where_two_could_be_meant(
    serve: Serve, fake: FakeModel, second: FakeModel, path: str
) -> None:
    second.models = ["other"]
    edge = await serve(fake.url, second.url, upstream=EVERY_SURFACE)
    answer = await asked_for(edge, path, "none")
    assert_told(answer, 404, path, "model_not_found", "not_found_error")
    assert "m, other" in answer.json["error"]["message"]
    assert fake.requests == second.requests == []


async def test_each_model_is_asked_of_the_server_that_has_it(serve: Serve, fake: FakeModel, second: FakeModel) -> None:
    second.models = ["other"]
    edge = await serve(fake.url, second.url)
    for model, name in (("other", "up1"), ("m", "up"), ("other", "up1")):
        answer = await asked_for(edge, CHAT, model)
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, name)
    assert (len(fake.requests), len(second.requests)) == (1, 2)


async def test_a_model_leaves_the_list_with_its_server_and_is_told_as_down(
    serve: Serve, fake: FakeModel, second: FakeModel
) -> None:
    """Another server's model does not answer in its place."""
    second.models = ["other"]
    edge = await serve(fake.url, second.url, discovery={"interval_s": 3600})
    assert await listed(edge) == ["m", "other"]
    await second.__aexit__()
    await edge.edge.fleet.look()
    assert await listed(edge) == ["m"]
    assert_told(await get(edge.port, "/v1/models/other"), 404, CHAT, "model_not_found")
    answer = await asked_for(edge, CHAT, "other")
    assert_told(answer, 503, CHAT, "no_upstream")
    assert "up1" in answer.json["error"]["message"]
    assert fake.requests == []


async def test_a_server_that_comes_back_brings_its_models(serve: Serve, fake: FakeModel) -> None:
    fake.close_after_answer = True  # so that no connection is left of Edge's look at it
    edge = await serve(discovery={"interval_s": 3600})
    await fake.refuse()
    await edge.edge.fleet.look()
    assert await listed(edge) == []
    await fake.listen()
    fake.get["/v1/models"] = (200, JSON, orjson.dumps(models_body(["m", "new"])))
    await edge.edge.fleet.look()
    assert await listed(edge) == ["m", "new"]
    assert (await asked_for(edge, CHAT, "new")).status == 200


@pytest.mark.parametrize("path", [CHAT, MESSAGES, COUNT_TOKENS, RESPONSES, COMPLETIONS])
async def test_a_surface_that_no_upstream_speaks_is_told_with_those_it_does(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    edge = await serve(upstream={"surfaces": ["embeddings"]})
    answer = await asked_for(edge, path, "m")
    assert_told(answer, 501, path, "surface_not_supported", "invalid_request_error")
    assert "up speaks embeddings" in answer.json["error"]["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert fake.requests == []
    record = await edge.record()
    assert (record["outcome"], record["status"], record["error"]) == ("rejected", 501, "surface_not_supported")


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_without_any_upstream_a_client_is_asked_to_come_again(serve: Serve, fake: FakeModel, path: str) -> None:
    await fake.refuse()
    edge = await serve()
    answer = await asked_for(edge, path, "m")
    assert_told(answer, 503, path, "no_upstream", "overloaded_error")
    assert int(answer.headers["retry-after"]) >= 1
    assert "x-should-retry" not in answer.headers
    assert await listed(edge) == []
