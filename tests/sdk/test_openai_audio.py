"""Audio over the official OpenAI SDK: its own forms, its streams, its errors."""

import io
from typing import Any

import openai
import pytest
from fakes.model_server import FakeModel, json_answer, sse, stream_answer, whole
from support.forms import noise
from support.running import Serve
from support.sdk import OpenAITo

ALLOWED = {"relay": ["/v1/audio/transcriptions"]}


def wav() -> io.BytesIO:
    audio = io.BytesIO(noise(300_000))
    audio.name = "speech.wav"
    return audio


async def test_a_transcript(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*json_answer({"text": "Hello there.", "usage": {"type": "duration", "seconds": 3}}))
    edge = await serve(upstream=ALLOWED)
    answer = await openai_to(edge).audio.transcriptions.create(model="m", file=wav())
    assert answer.text == "Hello there."
    assert noise(300_000) in fake.requests[0].body
    assert (await edge.record())["model"] == "m"


async def test_a_transcript_as_text(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*whole(b"Hello there.\n", 200, {"Content-Type": "text/plain; charset=utf-8"}))
    client = openai_to(await serve(upstream=ALLOWED))
    answer: Any = await client.audio.transcriptions.create(model="m", file=wav(), response_format="text")
    assert answer == "Hello there.\n"


async def test_a_streamed_transcript(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(
        *stream_answer(
            [
                sse({"type": "transcript.text.delta", "delta": "Hel"}),
                sse({"type": "transcript.text.delta", "delta": "lo"}),
                sse({"type": "transcript.text.done", "text": "Hello"}),
            ]
        )
    )
    client = openai_to(await serve(upstream=ALLOWED))
    stream = await client.audio.transcriptions.create(model="m", file=wav(), stream=True)
    assert [event.type for event in [event async for event in stream]] == [
        *["transcript.text.delta"] * 2,
        "transcript.text.done",
    ]


async def test_a_stream_that_is_cut_raises(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*stream_answer([sse({"type": "transcript.text.delta", "delta": "Hel"})]))
    client = openai_to(await serve(upstream=ALLOWED))
    stream = await client.audio.transcriptions.create(model="m", file=wav(), stream=True)
    with pytest.raises(openai.APIError, match="ended before the answer was finished"):
        async for _ in stream:
            pass


async def test_a_refusal_raises(serve: Serve, fake: FakeModel, openai_to: OpenAITo) -> None:
    fake.script(*json_answer({"error": {"message": "Maximum file size exceeded"}}, 413))
    client = openai_to(await serve(upstream=ALLOWED))
    with pytest.raises(openai.APIStatusError, match="Maximum file size exceeded") as caught:
        await client.audio.transcriptions.create(model="m", file=wav())
    assert caught.value.status_code == 413
