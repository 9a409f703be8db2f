"""Repairs as clients notice them: SDKs that choke on a server's faults do not, and lines are short enough to read."""

from typing import Any

import aiohttp
import openai
import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_delta,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    head,
)
from support.hanging import hang_limit
from support.raw import CHAT, ask, chat_body
from support.running import Running, Serve

TOO_LONG_FOR_AIOHTTP = 600_000  # its default bound on a line is twice a buffer of 64 or 256 KiB, by version
EVERY = ["role-first", "stable-id", "finish-null", "tool-index", "both-reasoning", "split-long", "drop-null-events"]


def as_other(event: bytes, number: int) -> bytes:
    """With an id and a time of its own."""
    return event.replace(b"chatcmpl-fake", b"id-%d" % number).replace(b"1700000000", b"%d" % number)


def call(arguments: str, **first: Any) -> bytes:
    name = {"name": first.pop("name")} if first else {}
    return chat_delta({"tool_calls": [{**first, "function": {**name, "arguments": arguments}}]}, finish="")


# All the faults that a server may have.
FAULTY = [
    as_other(event, number)
    for number, event in enumerate(
        [
            chat_delta({"reasoning": "hm"}, finish=""),
            chat_delta({"content": "one "}, finish=""),
            chat_delta({"content": "é" * 40_000}, finish=""),
            call("", id="c1", name="f"),
            call('{"a":'),
            call("1}"),
            call("{}", id="c2", name="g"),
            chat_finish("tool_calls"),
        ],
        start=100,
    )
]


async def relayed(edge: Running, fake: FakeModel, every: int | None) -> list[Any]:
    fake.script(head(), chunk(b"".join([*FAULTY, DONE]), every=every), end())
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.clean
    assert answer.body.endswith(DONE)
    return [orjson.loads(event[6:]) for event in answer.body.removesuffix(DONE).split(b"\n\n")[:-1]]


@pytest.mark.parametrize("every", [None, 5000, 11])
async def test_a_stream_with_every_fault_is_as_openai_would_have_sent_it(
    serve: Serve, fake: FakeModel, every: int | None
) -> None:
    edge = await serve(upstream={"repairs": EVERY})
    role, thought, *chunks = await relayed(edge, fake, every)
    assert {(piece["id"], piece["created"]) for piece in (role, thought, *chunks)} == {("id-100", 100)}
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert thought["choices"][0]["delta"] == {"reasoning": "hm", "reasoning_content": "hm"}
    deltas = [piece["choices"][0]["delta"] for piece in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "one " + "é" * 40_000
    assert max(len(orjson.dumps(piece)) for piece in chunks) < 48 * 1024
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        (0, ""), (0, '{"a":'), (0, "1}"), (1, "{}")
    ]  # fmt: skip
    finishes = [piece["choices"][0]["finish_reason"] for piece in (role, thought, *chunks)]
    assert finishes == [None] * (len(finishes) - 1) + ["tool_calls"]
    record = await edge.record()
    assert (record["outcome"], record["tokens_out"]) == ("complete", 7)


@pytest.mark.parametrize("every", [None, 5000])
async def test_without_repairs_it_stays_as_it_was_sent(serve: Serve, fake: FakeModel, every: int | None) -> None:
    edge = await serve(upstream={"repairs": []})
    fake.script(head(), chunk(b"".join([*FAULTY, DONE]), every=every), end())
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.body == b"".join([*FAULTY, DONE])


async def test_a_whole_answer_is_made_of_the_mended_stream(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"repairs": EVERY})
    fake.script(head(), chunk(b"".join([*FAULTY, chat_usage(), DONE]), every=777), end())
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.json["id"]) == (200, "id-100")
    (choice,) = answer.json["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["reasoning"] == choice["message"]["reasoning_content"] == "hm"
    assert choice["message"]["content"] == "one " + "é" * 40_000
    assert choice["message"]["tool_calls"] == [
        {"id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c2", "function": {"name": "g", "arguments": "{}"}},
    ]


async def test_the_openai_sdk_can_stream_tool_calls_of_a_server_that_does_not_number_them(
    serve: Serve, fake: FakeModel
) -> None:
    """By default, in front of any server; without the repair its helper raises."""
    for repairs in (None, []):
        edge = await serve(upstream={} if repairs is None else {"repairs": repairs})
        fake.script(head(), chunk(b"".join([*FAULTY, DONE])), end())
        async with openai.AsyncOpenAI(base_url=f"{edge.url}/v1", api_key="dummy", max_retries=0) as client:
            stream: Any = client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hi"}])
            if repairs is None:
                async with stream as running:
                    answer = await running.get_final_completion()
                called = answer.choices[0].message.tool_calls or []
                assert [(call.id, call.function.arguments) for call in called] == [("c1", '{"a":1}'), ("c2", "{}")]
                assert answer.id == "id-100"
            else:
                with pytest.raises(TypeError):
                    async with stream as running:
                        await running.get_final_completion()


@pytest.mark.parametrize("split", [True, False])
async def test_a_client_that_reads_by_lines_can_read_the_longest_text(
    serve: Serve, fake: FakeModel, *, split: bool
) -> None:
    """As Open WebUI does; in front of any server, unless it is switched off."""
    edge = await serve(upstream={} if split else {"repairs": []})
    text = "word " * (TOO_LONG_FOR_AIOHTTP // 5)
    fake.script(head(), chunk(chat_role() + chat_token(text) + chat_finish() + DONE), end())

    async def read_lines() -> str:
        async with (
            hang_limit(),
            aiohttp.ClientSession() as session,
            session.post(edge.url + CHAT, json=chat_body()) as response,
        ):
            chunks = [orjson.loads(line[6:]) async for line in response.content if line.startswith(b"data: {")]
        return "".join(piece["choices"][0]["delta"].get("content", "") for piece in chunks)

    if split:
        assert await read_lines() == text
    else:
        with pytest.raises((ValueError, aiohttp.http_exceptions.LineTooLong)):
            await read_lines()
