"""llama.cpp where its first token is part of a character: clients get the beginning that it leaves out.

And where it passes over what a Messages client asks: it is asked in other words.
"""

from typing import Any

import anthropic
import openai
import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chunk,
    end,
    head,
    messages_block_start,
    messages_block_stop,
    messages_delta,
    messages_error,
    messages_event,
    messages_events,
    messages_start,
    messages_stop,
    messages_token,
)
from support.messages import assert_well_formed
from support.raw import CHAT, MESSAGES, Answer, ask
from support.running import Running, Serve

HI: Any = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
ENDED = messages_block_stop() + messages_delta() + messages_stop()
SAID = [messages_block_start(), messages_token("😀"), messages_token(" hello"), ENDED]
each_read = pytest.mark.parametrize("every", [None, 7], ids=["one read", "cut"])


@pytest.fixture
async def llama(serve: Serve, fake: FakeModel) -> Running:
    """An Edge in front of what calls itself llama.cpp."""
    fake.server_header = "llama.cpp"
    return await serve()


def payloads(answer: Answer) -> list[dict[str, Any]]:
    lines = answer.body.decode().split("\n")
    return [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]


@each_read
async def test_a_chat_stream_begins_with_the_role(llama: Running, fake: FakeModel, every: int | None) -> None:
    said = [chat_token("😀"), chat_token(" hello"), chat_finish(), DONE]
    fake.script(head(), chunk(b"".join(said), every=every), end())
    async with (
        openai.AsyncOpenAI(base_url=f"{llama.url}/v1", api_key="dummy", max_retries=0) as client,
        client.chat.completions.stream(model="m", messages=HI) as stream,
    ):
        answer = await stream.get_final_completion()
    assert (answer.choices[0].message.role, answer.choices[0].message.content) == ("assistant", "😀 hello")


@each_read
async def test_a_messages_stream_begins_with_its_start(llama: Running, fake: FakeModel, every: int | None) -> None:
    fake.script(head(), chunk(b"".join(SAID), every=every), end())
    async with (
        anthropic.AsyncAnthropic(base_url=llama.url, api_key="dummy", max_retries=0) as client,
        client.messages.stream(model="m", max_tokens=9, messages=HI) as stream,
    ):
        answer = await stream.get_final_message()
    assert (answer.role, answer.model, answer.stop_reason, answer.usage.output_tokens) == (
        "assistant",
        "m",
        "end_turn",
        3,
    )
    assert [(block.type, getattr(block, "text", "")) for block in answer.content] == [("text", "😀 hello")]
    record = await llama.record()
    assert (record["outcome"], record["tokens_out"]) == ("complete", 3)


@pytest.mark.parametrize("lacking", ["message", "block", "both"])
async def test_whatever_is_lacking_is_made_up_and_nothing_else(llama: Running, fake: FakeModel, lacking: str) -> None:
    start, block = messages_start(), messages_block_start()
    begun = {"message": block, "block": start, "both": b""}[lacking]
    rest = b"".join(SAID[1:])
    fake.script(head(), chunk(begun + rest), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, "stream": True})
    assert answer.body.endswith(rest)
    *told, last = payloads(answer)
    assert last == {"type": "message_stop"}
    assert_well_formed(told)


async def test_a_whole_message_is_made_of_it_too(llama: Running, fake: FakeModel) -> None:
    fake.script(head(), chunk(b"".join(SAID)), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI})
    assert (answer.status, answer.json["role"], answer.json["model"]) == (200, "assistant", "m")
    assert answer.json["content"] == [{"type": "text", "text": "😀 hello"}]
    assert answer.json["usage"] == {"input_tokens": 0, "output_tokens": 3}
    assert answer.json["id"].startswith("msg_")


async def test_a_start_that_comes_late_is_not_told_twice(llama: Running, fake: FakeModel) -> None:
    fake.script(head(), chunk(messages_block_start() + messages_start() + b"".join(SAID[1:])), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, "stream": True})
    assert_well_formed(payloads(answer)[:-1])
    assert (await llama.record())["tokens_in"] == 7


async def test_an_error_needs_no_start(llama: Running, fake: FakeModel) -> None:
    fake.script(head(), chunk(messages_event("ping") + messages_error("it broke")), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, "stream": True})
    assert (answer.status, answer.json["error"]["message"]) == (502, "it broke")


@each_read
async def test_a_beginning_that_is_there_keeps_its_bytes(llama: Running, fake: FakeModel, every: int | None) -> None:
    whole = b"".join(messages_events())
    fake.script(head(), chunk(whole, every=every), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, "stream": True})
    assert answer.body == whole
    fake.script(head(), chunk(b"".join([chat_role(), chat_token("a"), chat_finish(), DONE]), every=every), end())
    answer = await ask(llama.port, CHAT, {"model": "m", "messages": HI, "stream": True})
    assert answer.body == b"".join([chat_role(), chat_token("a"), chat_finish(), DONE])


async def test_without_repairs_it_stays_as_it_was_sent(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"repairs": [], "surfaces": ["messages"]})
    fake.script(head(), chunk(b"".join(SAID)), end())
    answer = await ask(edge.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, "stream": True})
    assert answer.body == b"".join(SAID)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "wish",
    [
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        {"output_format": {"type": "json_schema", "schema": SCHEMA}},
    ],
    ids=["output_config", "output_format"],
)
async def test_a_schema_that_its_messages_pass_over_is_asked_for_in_chat(
    llama: Running, fake: FakeModel, wish: dict[str, Any], *, large: bool
) -> None:
    """However large the request is: a large one is translated in another process."""
    fake.script(head(), *(chunk(event) for event in chat_events(['{"n":', "1}"])), end())
    said = [{"role": "user", "content": "x" * 1_100_000 if large else "hi"}]
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": said, **wish})
    assert (answer.status, answer.json["content"]) == (200, [{"type": "text", "text": '{"n":1}'}])
    (request,) = fake.requests
    assert request.path == CHAT
    assert request.json["response_format"]["json_schema"]["schema"] == SCHEMA


@pytest.mark.parametrize("wish", [{}, {"output_config": {"effort": "low"}}, {"output_config": {"format": None}}])
async def test_a_message_without_a_schema_is_relayed(llama: Running, fake: FakeModel, wish: dict[str, Any]) -> None:
    fake.script(head(), chunk(b"".join(messages_events())), end())
    answer = await ask(llama.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, **wish})
    assert answer.status == 200
    assert [request.path for request in fake.requests] == [MESSAGES]


async def test_a_schema_is_relayed_where_chat_is_not_spoken(serve: Serve, fake: FakeModel) -> None:
    """There are no other words to ask in."""
    fake.server_header = "llama.cpp"
    edge = await serve(upstream={"surfaces": ["messages"]})
    fake.script(head(), chunk(b"".join(messages_events())), end())
    wish = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    answer = await ask(edge.port, MESSAGES, {"model": "m", "max_tokens": 9, "messages": HI, **wish})
    assert answer.status == 200
    assert [request.path for request in fake.requests] == [MESSAGES]
