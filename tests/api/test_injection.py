"""What a model or its server writes cannot end, forge or add an event of the stream it travels in."""

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_delta,
    chat_events,
    chat_finish,
    chat_token,
    chunk,
    end,
    head,
    messages_events,
    responses_events,
    sse,
    stream_answer,
)
from support.raw import CHAT, MESSAGES, RESPONSES, ask, chat_body, split_events
from support.running import Serve
from support.shapes import EVERY_SURFACE, valid_body

HOSTILE = [
    "\n\n", "\r\r", "\r\n\r\n", "\ndata: [DONE]\n\n", "\nevent: error\ndata: {}\n\n", "\nid: 7\nretry: 1\n", "\x00",
    "\u2028\u2029\x85\x0b\x0c\x1c", "\ufeff", '"}]}\n\ndata: {"error":{"message":"x"}}\n\n', "\U0001f600", ": ping\n",
]  # fmt: skip


def spoken(path: str) -> list[bytes]:
    words = list(HOSTILE)
    return {CHAT: chat_events, MESSAGES: messages_events, RESPONSES: responses_events}[path](words)


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES])
async def test_a_models_text_cannot_end_or_forge_an_event(serve: Serve, fake: FakeModel, path: str) -> None:
    events = spoken(path)
    fake.script(*stream_answer(events))
    edge = await serve(upstream=EVERY_SURFACE)
    answer = await ask(edge.port, path, valid_body(path, stream=True, stream_options={"include_usage": True}))
    assert (answer.status, answer.clean) == (200, True)
    assert answer.events == events
    assert (await edge.record())["outcome"] == "complete"


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_models_text_is_whole_in_a_collected_answer(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(*stream_answer(spoken(path)))
    edge = await serve(upstream=EVERY_SURFACE)
    answer = await ask(edge.port, path, valid_body(path))
    text = answer.json["choices"][0]["message"]["content"] if path == CHAT else answer.json["content"][0]["text"]
    assert text == "".join(HOSTILE)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("text", HOSTILE)
async def test_an_upstreams_error_text_cannot_end_or_forge_an_event(
    serve: Serve, fake: FakeModel, path: str, text: str
) -> None:
    """One event more than there was, and it is the error."""
    begun = {CHAT: [chat_token("a")], MESSAGES: messages_events(["a"])[:3]}[path]
    fake.script(head(), *(chunk(event) for event in begun), chunk(sse({"error": f"no {text} more"})), end())
    edge = await serve(upstream=EVERY_SURFACE)
    answer = await ask(edge.port, path, valid_body(path, stream=True))
    *before, last = answer.events
    assert not answer.clean
    assert before == begun
    (data,) = [line for line in last.split(b"\n") if line.startswith(b"data: ")]
    assert orjson.loads(data[6:])["error"]["message"] == f"no {text} more"
    assert DONE not in answer.body


async def test_unicode_line_ends_that_an_upstream_sends_unescaped_make_no_further_events(
    serve: Serve, fake: FakeModel
) -> None:
    """Those of Unicode are none in SSE, though some libraries split lines at them."""
    token = chat_delta({"content": "a\u2028b"}).replace(b"a\\u2028b", "a\u2028b".encode())
    fake.script(*stream_answer([token, chat_finish(), DONE]))
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert answer.clean
    assert len(split_events(answer.body)) == 3
