"""A real model's answers on another surface than its own: Messages over its chat, and chat over its Messages."""

from typing import Any

import pytest
from support.hanging import HANG_S
from support.llama import idle
from support.running import Serve
from support.sdk import AnthropicTo, OpenAITo

from edge.cli.llama_server import MODEL_NAME, LlamaServer

pytestmark = pytest.mark.real

ASK: Any = {
    "model": MODEL_NAME,
    "messages": [{"role": "user", "content": "Name three colours, please."}],
    "max_tokens": 12,
    "extra_body": {"temperature": 0, "seed": 7, "cache_prompt": False},
}


async def test_messages_over_chat_say_what_the_servers_own_messages_do(
    serve: Serve, llama: LlamaServer, anthropic_to: AnthropicTo
) -> None:
    own = anthropic_to(await serve(llama.url), timeout=HANG_S)
    translated = anthropic_to(await serve(llama.url, upstream={"surfaces": ["chat"]}), timeout=HANG_S)
    expected = await own.messages.create(**ASK)
    whole = await translated.messages.create(**ASK)
    async with translated.messages.stream(**ASK) as stream:
        streamed = await stream.get_final_message()
    for message in (whole, streamed):
        assert [block.text for block in message.content] == [block.text for block in expected.content]
        assert message.stop_reason == expected.stop_reason == "max_tokens"
        assert message.usage.output_tokens == expected.usage.output_tokens == 12
    await idle(llama)


async def test_chat_over_messages_says_what_the_servers_own_chat_does(
    serve: Serve, llama: LlamaServer, openai_to: OpenAITo
) -> None:
    own = openai_to(await serve(llama.url), timeout=HANG_S)
    translated = openai_to(await serve(llama.url, upstream={"surfaces": ["messages"]}), timeout=HANG_S)
    expected = (await own.chat.completions.create(**ASK)).choices[0]
    whole = (await translated.chat.completions.create(**ASK)).choices[0]
    chunks = [chunk async for chunk in await translated.chat.completions.create(**ASK, stream=True)]
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert expected.message.content == whole.message.content == streamed
    assert expected.finish_reason == whole.finish_reason == chunks[-1].choices[0].finish_reason == "length"
    await idle(llama)
