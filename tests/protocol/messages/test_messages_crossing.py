"""Recorded and published streams, crossed between chat and Messages: each answer is the same in both, however cut."""

from pathlib import Path
from typing import Any

import orjson
import pytest
from fakes import answers as say
from fakes import ollama
from hypothesis import given
from support.messages import assert_well_formed
from support.streams import FORGERIES, cut, cuts, goldens, unhurried

from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode import Transcoder, transcoder
from edge.protocol.transcode_ports import Answering

STEPS = pytest.mark.parametrize("step", [0, 1, 300, 2**20])  # bytes of a read; 0 for whole events
OF_ONE_CHOICE = [path for path in goldens("chat") if path.stem not in ("chat_n2", "chat_openai_choices")]


def reads(stream: bytes, step: int) -> list[bytes]:
    if not step:
        return [event + b"\n\n" for event in stream.split(b"\n\n") if event]
    return cut(stream, range(0, len(stream), step))


def crossing(client: Surface, source: Surface, *, collect: bool = False) -> Transcoder:
    body = {"model": "m", "max_tokens": 9, "messages": [], "stream": True, "stream_options": {"include_usage": True}}
    prepared = prepare(client, orjson.dumps(body))
    read = DIALECTS[source].codec(prepared, 2**20, frozenset())
    crossed = transcoder(read, source, Answering(prepared, "0123456789abcdef" * 2, 1))
    if collect:
        crossed.collect(DIALECTS[client].collector(prepared))
    return crossed


def crossed(client: Surface, source: Surface, pieces: list[bytes]) -> Any:
    """The answer as it is collected; and as many pieces without a collector, whose stream must tell the same."""
    collecting, streaming = crossing(client, source, collect=True), crossing(client, source)
    stream = b""
    for piece in pieces:
        collecting.feed(piece)
        stream += streaming.feed(piece).data
    collecting.eof()
    stream += streaming.eof().data
    assert collecting.finished(clean_eof=True)
    collector = DIALECTS[client].collector(prepare(client, b'{"messages": [], "max_tokens": 9}'))
    payloads = [orjson.loads(event.split(b"data: ", 1)[1]) for event in stream.split(b"\n\n")[:-1] if b"{" in event]
    if client is Surface.MESSAGES:
        assert payloads[-1] == {"type": "message_stop"}
        assert_well_formed(payloads[:-1])
    for payload in payloads:
        collector.add(payload)
    answer = orjson.loads(orjson.dumps(collecting.answer()))
    assert orjson.loads(orjson.dumps(collector.answer())) == answer
    return answer


@pytest.mark.parametrize("path", OF_ONE_CHOICE, ids=lambda path: path.stem)
@STEPS
def test_a_chat_stream_as_a_message(path: Path, step: int) -> None:
    stream, whole = path.read_bytes(), orjson.loads(path.with_suffix(".json").read_bytes())
    answer = crossed(Surface.MESSAGES, Surface.CHAT, reads(stream, step))
    (choice,) = whole["choices"]
    message, blocks = choice["message"], answer["content"]
    said = "".join(block["text"] for block in blocks if block["type"] == "text")
    assert said == (message.get("content") or "") + (message.get("refusal") or "")
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    assert thought == (message.get("reasoning_content") or message.get("reasoning") or "")
    calls = [call["function"] for call in message.get("tool_calls") or []]
    calls += [message["function_call"]] if message.get("function_call") else []
    used = [(block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    assert used == [(call["name"], orjson.loads(call["arguments"])) for call in calls]
    if "usage" in whole and b'"usage":{' in stream.replace(b" ", b""):
        assert answer["usage"]["output_tokens"] == whole["usage"]["completion_tokens"]


@pytest.mark.parametrize("path", goldens("messages"), ids=lambda path: path.stem)
@STEPS
def test_a_messages_stream_as_a_chat_completion(path: Path, step: int) -> None:
    stream, whole = path.read_bytes(), orjson.loads(path.with_suffix(".json").read_bytes())
    answer = crossed(Surface.CHAT, Surface.MESSAGES, reads(stream, step))
    (choice,) = answer["choices"]
    message, blocks = choice["message"], whole["content"]
    assert (message["content"] or "") == "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = "".join(block["thinking"] for block in blocks if block["type"] == "thinking")
    assert message.get("reasoning_content", "") == thought
    used = [(block["id"], block["name"]) for block in blocks if block["type"] == "tool_use"]
    calls = message.get("tool_calls") or []
    assert [call["function"]["name"] for call in calls] == [name for _, name in used]
    assert choice["finish_reason"] in ("stop", "length", "tool_calls")
    assert answer["usage"]["completion_tokens"] == whole["usage"]["output_tokens"]


@pytest.mark.parametrize("text", FORGERIES)
@pytest.mark.parametrize("source", [Surface.CHAT, Surface.OLLAMA_CHAT, Surface.MESSAGES])
def test_text_that_looks_like_the_wire_forges_nothing(source: Surface, text: str) -> None:
    client = Surface.CHAT if source is Surface.MESSAGES else Surface.MESSAGES
    events = {
        Surface.CHAT: [say.chat_role(), *[say.chat_token(text)] * 3, say.chat_finish(), say.DONE],
        Surface.OLLAMA_CHAT: [*[ollama.token(text)] * 3, ollama.last()],
        Surface.MESSAGES: say.messages_events([text] * 3),
    }[source]
    for pieces in (events, [b"".join(events)]):
        answer = crossed(client, source, pieces)
        told = answer["choices"][0]["message"]["content"] if client is Surface.CHAT else answer["content"][0]["text"]
        assert told == text * 3


@unhurried
@given(cuts)
def test_where_the_network_cuts_does_not_matter(positions: list[int]) -> None:
    (path,) = [path for path in goldens("chat") if path.stem == "chat_vllm_reasoning_tools"]
    stream = path.read_bytes()
    answer = crossed(Surface.MESSAGES, Surface.CHAT, cut(stream, positions))
    assert answer == crossed(Surface.MESSAGES, Surface.CHAT, [stream])
