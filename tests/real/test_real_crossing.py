"""A real model behind surfaces that its server does not speak here: all of them translated from chat."""

from typing import Any

import pytest
from anthropic import AsyncAnthropic
from support.hanging import HANG_S, hang_limit
from support.llama import LONG, generating, idle
from support.raw import RawClient
from support.running import Running, Serve
from support.sdk import AnthropicTo

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

SESSION = "/v1/chat/stream"
CHAT_ALONE = {"surfaces": ["chat"]}
HI: Any = [{"role": "user", "content": "Say hello, please."}]


@pytest.fixture
async def edge(serve: Serve, llama: LlamaServer) -> Running:
    return await serve(llama.url, upstream=CHAT_ALONE, stream={"grace_s": 0.1})


@pytest.fixture
async def claude(edge: Running, anthropic_to: AnthropicTo) -> AsyncAnthropic:
    return anthropic_to(edge, timeout=HANG_S)


async def test_messages_are_answered_through_chat(edge: Running, claude: AsyncAnthropic) -> None:
    asked: Any = {"model": MODEL_NAME, "max_tokens": 12, "messages": HI, "system": "You are brief."}
    whole = await claude.messages.create(**asked, extra_body={"temperature": 0})
    assert whole.content[0].type == "text"
    assert whole.content[0].text
    assert whole.usage.input_tokens > 5
    async with claude.messages.stream(**asked, extra_body={"temperature": 0}) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        final = await stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text  # type: ignore[union-attr]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason in ("end_turn", "max_tokens")
    for number in range(2):
        record = await edge.record(number)
        assert (record["surface"], record["outcome"], record["tokens_from"]) == ("messages", "complete", "reported")


async def test_a_messages_reader_that_leaves_stops_the_model(
    edge: Running, llama: LlamaServer, claude: AsyncAnthropic
) -> None:
    asked: Any = {"model": MODEL_NAME, "max_tokens": 2000, "messages": [{"role": "user", "content": LONG}]}
    async with claude.messages.stream(**asked) as stream:
        async for _ in stream.text_stream:
            await generating(llama)
            break
    await idle(llama)
    assert (await edge.record())["outcome"] == "client_gone"


async def test_a_session_keeps_what_its_reader_did_not_wait_for(edge: Running, llama: LlamaServer) -> None:
    async with hang_limit(), RawClient(edge.port) as client:
        await client.post(SESSION, {"message": LONG, "session_id": "s"})
        await client.until(b'"chunk_index":4')
    await idle(llama)
    await edge.record()
    async with hang_limit(), RawClient(edge.port) as client:
        await client.get("/v1/sessions/s")
        asked, answered = (await client.answer()).json["turns"]
    assert (asked["role"], asked["content"]) == ("user", LONG)
    assert (answered["role"], answered["partial"]) == ("assistant", True)
    assert answered["content"]
