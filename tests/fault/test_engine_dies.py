"""An engine that died behind an API server that goes on answering looks: found down by what comes of requests."""

import asyncio

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_role,
    chat_token,
    chunk,
    end,
    head,
    json_answer,
    rst,
    sse_error,
)
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Running, Serve
from support.vllm import as_vllm

DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
ERROR = {"error": {"message": DEAD, "type": "InternalServerError", "param": None, "code": 500}}
BEGUN = chat_role() + chat_token("tok")
WAYS: dict[str, tuple[int, list[Step]]] = {  # how many it takes
    "dead by its status": (1, list(json_answer(ERROR, 500))),
    "dead by an event": (1, [head(), chunk(BEGUN + sse_error(DEAD) + DONE), end()]),
    "status": (5, list(json_answer({"error": {"message": "boom", "code": 500}}, 500))),
    "event": (5, [head(), chunk(BEGUN + sse_error() + DONE), end()]),
    "cut": (5, [head(), chunk(BEGUN), rst()]),
}


async def ready(edge: Running) -> tuple[int, dict[str, object]]:
    async with RawClient(edge.port) as client:
        await client.get("/ready")
        answer = await client.answer()
    return answer.status, answer.json


@pytest.mark.parametrize("way", WAYS)
async def test_it_is_found_down_and_up_again(serve: Serve, fake: FakeModel, way: str) -> None:
    count, steps = WAYS[way]
    for _ in range(count):
        fake.script(*steps)
    edge = await serve(as_vllm(fake).url)
    for _ in range(count):
        assert (await ready(edge))[0] == 200
        await ask(edge.port, CHAT, chat_body())
    (lost,) = await edge.lines.wait("upstream lost")
    assert "fails whatever it is asked" in lost["why"]
    status, facts = await ready(edge)
    assert (status, "fails whatever it is asked" in str(facts["reason"])) == (503, True)
    assert (await ask(edge.port, CHAT, chat_body())).status == 200, "there is no other to ask"
    assert (await ready(edge))[0] == 200


async def test_others_are_asked_in_its_place(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as other:
        for _ in range(20):
            fake.script(*WAYS["status"][1])
        edge = await serve(as_vllm(fake).url, as_vllm(other).url)
        for _ in range(8):
            assert (await ask(edge.port, CHAT, chat_body())).status == 200
        assert (len(fake.requests), len(other.requests)) == (5, 8)
        assert (await ready(edge))[0] == 200


async def test_requests_that_are_at_fault_themselves_do_no_harm(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(as_vllm(fake).url)
    for status in (400, 404, 429, 501, 503, 529):
        for _ in range(5):
            fake.script(*json_answer({"error": {"message": "boom"}}, status))
            await ask(edge.port, CHAT, chat_body())
    assert (await ready(edge))[0] == 200


async def test_many_at_once_are_one_line(serve: Serve, fake: FakeModel) -> None:
    for _ in range(8):
        fake.script(*WAYS["status"][1])
    edge = await serve(as_vllm(fake).url)
    await asyncio.gather(*(ask(edge.port, CHAT, chat_body()) for _ in range(8)))
    assert (await ready(edge))[0] == 503
    assert len(edge.lines.of("upstream lost")) == 1
