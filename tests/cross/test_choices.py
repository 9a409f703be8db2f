"""Several choices of a server, for clients of surfaces that have one: the first, whole; and none of the others."""

from typing import Any

import pytest
from fakes.answers import DONE, chat_chunk, chat_usage
from fakes.model_server import FakeModel, chunk, end, gate, head, json_answer, stream_answer
from support.raw import MESSAGES, RESPONSES, RawClient, ask
from support.running import Serve
from support.shapes import BODIES
from support.vllm import as_vllm

ONE_CHOICE = {
    MESSAGES: BODIES[MESSAGES],
    RESPONSES: BODIES[RESPONSES],
    "/api/chat": BODIES["/v1/chat/completions"],
    "/api/generate": BODIES["/v1/completions"],
}
every_path = pytest.mark.parametrize("path", ONE_CHOICE)
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def whole(index: int | None, text: str, finish: str = "stop") -> dict[str, Any]:
    number = {} if index is None else {"index": index}
    return {**number, "message": {"role": "assistant", "content": text}, "finish_reason": finish}


def piece(index: int, text: str) -> bytes:
    return chat_chunk([{"index": index, "delta": {"content": text}, "finish_reason": None}])


def finish(index: int, reason: str = "stop") -> bytes:
    return chat_chunk([{"index": index, "delta": {}, "finish_reason": reason}])


@every_path
@pytest.mark.parametrize(
    "choices",
    [
        [whole(1, "second", "length"), whole(0, "first")],
        [whole(0, "first"), whole(1, "second", "length")],
        [whole(None, "first"), whole(None, "second", "length")],
        [whole(2, "third", "length"), whole(1, "first")],
    ],
    ids=["out of order", "in order", "without numbers", "from another number"],
)
async def test_a_whole_answer_is_its_first_choice(
    serve: Serve, fake: FakeModel, path: str, choices: list[dict[str, Any]]
) -> None:
    edge = await serve(as_vllm(fake).url, upstream={"surfaces": ["chat"]})
    fake.script(*json_answer({"id": "c", "model": "m", "choices": choices, "usage": USAGE}))
    answer = await ask(edge.port, path, {"model": "m", **ONE_CHOICE[path], "stream": False})
    assert answer.status == 200
    assert b'"first"' in answer.body
    assert b"second" not in answer.body
    assert b"third" not in answer.body
    assert not any(word in answer.body for word in (b'"length"', b'"max_tokens"', b'"incomplete"'))


@every_path
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_stream_is_its_first_choice(serve: Serve, fake: FakeModel, path: str, *, stream: bool) -> None:
    edge = await serve(upstream={"surfaces": ["chat"]})
    said = [piece(0, "one "), piece(1, "zwei "), piece(0, "two"), piece(1, "drei"), finish(1, "length"), finish(0)]
    fake.script(*stream_answer([*said, chat_usage(), DONE]))
    answer = await ask(edge.port, path, {"model": "m", **ONE_CHOICE[path], "stream": stream})
    assert answer.clean
    assert b"one " in answer.body
    assert b"two" in answer.body
    assert b"zwei" not in answer.body
    assert b"drei" not in answer.body
    assert not any(word in answer.body for word in (b'"length"', b'"max_tokens"', b'"incomplete"'))


@every_path
async def test_plain_text_of_another_choice_is_not_taken_for_the_first(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    """The short way for plain text looks at nothing but the text: here each read holds one event."""
    edge = await serve(upstream={"surfaces": ["chat"]})
    reads = [(0, "a1"), (0, "a2"), (1, "b1"), (1, "b2"), (1, "b3"), (0, "a3"), (0, "a4")]
    steps = [step for index, text in reads for step in (gate(text), chunk(piece(index, text)))]
    fake.script(head(), *steps, gate("end"), chunk(finish(0) + finish(1) + DONE), end())
    async with RawClient(edge.port) as client:
        await client.post(path, {"model": "m", **ONE_CHOICE[path], "stream": True})
        await fake.request(0)
        for index, text in reads:
            fake.open(text)
            if index == 0:
                await client.until(f'"{text}"'.encode())
        fake.open("end")
        answer = await client.answer()
    assert answer.clean
    assert not any(f'"{text}"'.encode() in answer.body for index, text in reads if index)


@pytest.mark.parametrize("native", ["messages", "ollama_chat"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_several_cannot_be_asked_of_who_gives_one(
    serve: Serve, fake: FakeModel, native: str, *, stream: bool
) -> None:
    edge = await serve(upstream={"surfaces": [native]})
    body = {"model": "m", **BODIES["/v1/chat/completions"], "n": 2, "stream": stream}
    answer = await ask(edge.port, "/v1/chat/completions", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, "n")
    assert "ask 2 times" in answer.json["error"]["message"]
    assert fake.requests == []


async def test_several_are_relayed_as_they_come(serve: Serve, fake: FakeModel) -> None:
    """Where they can be asked for, and unstreamed in the order of the server."""
    edge = await serve(as_vllm(fake).url)
    fake.script(*json_answer({"id": "c", "choices": [whole(1, "second"), whole(0, "first")], "usage": USAGE}))
    body = {"model": "m", **BODIES["/v1/chat/completions"], "n": 2}
    answer = await ask(edge.port, "/v1/chat/completions", body)
    assert [choice["index"] for choice in answer.json["choices"]] == [1, 0]
