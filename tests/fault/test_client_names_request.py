"""vLLM takes the id of an answer from ``x-request-id`` before the body's ``request_id``: the client's own must win."""

from typing import Any

import pytest
from fakes.model_server import FakeModel
from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, ask, chat_body
from support.running import Serve
from support.vllm import as_vllm

BODIES: dict[str, dict[str, Any]] = {
    CHAT: chat_body(),
    COMPLETIONS: {"model": "m", "prompt": "hi", "stream": True},
    EMBEDDINGS: {"model": "m", "input": "hi"},
}
whole_and_streamed = pytest.mark.parametrize(
    ("path", "stream"), [(CHAT, True), (CHAT, False), (COMPLETIONS, True), (COMPLETIONS, False), (EMBEDDINGS, None)]
)


def body_of(path: str, stream: bool | None, **more: Any) -> dict[str, Any]:
    return {**BODIES[path], **({} if stream is None else {"stream": stream}), **more}


@whole_and_streamed
async def test_an_id_that_edge_made_does_not_hide_the_one_in_the_body(
    serve: Serve, fake: FakeModel, path: str, *, stream: bool | None
) -> None:
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, path, body_of(path, stream, request_id="my-id-1"))
    assert fake.requests[0].json["request_id"] == "my-id-1"
    assert "x-request-id" not in fake.requests[0].headers
    assert answer.headers["x-request-id"].startswith("req_")


@whole_and_streamed
async def test_a_header_of_the_clients_own_goes_with_it(
    serve: Serve, fake: FakeModel, path: str, *, stream: bool | None
) -> None:
    """The server chooses between the two as it would without Edge."""
    edge = await serve(as_vllm(fake).url)
    await ask(edge.port, path, body_of(path, stream, request_id="my-id-1"), {"X-Request-Id": "mine"})
    assert fake.requests[0].headers["x-request-id"] == "mine"


@pytest.mark.parametrize("more", [{}, {"request_id": None}, {"request_id": 7}], ids=["none", "null", "number"])
async def test_without_one_the_logs_of_both_sides_share_edges_id(
    serve: Serve, fake: FakeModel, more: dict[str, Any]
) -> None:
    edge = await serve(as_vllm(fake).url)
    answer = await ask(edge.port, CHAT, chat_body(**more))
    assert fake.requests[0].headers["x-request-id"] == answer.headers["x-request-id"]
