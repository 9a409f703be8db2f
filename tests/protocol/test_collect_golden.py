"""A collected stream is the upstream's own non-stream answer, for every recorded and every published pair."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from edge.protocol.chat.collect import ChatCollector, CompletionsCollector
from edge.protocol.dialect import Collector
from edge.protocol.messages.collect import MessagesCollector
from edge.protocol.responses.collect import ResponsesCollector
from edge.protocol.sse import events

GOLDEN = Path(__file__).parents[1] / "golden"
COLLECTORS: dict[str, type[Collector]] = {
    "chat": ChatCollector,
    "completions": CompletionsCollector,
    "messages": MessagesCollector,
    "responses": ResponsesCollector,
}

# What may differ between two answers of llama.cpp to one request. Everything else must be equal, keys included.
EXEMPT = {
    "id": "text ids are drawn anew for each answer (token ids, numbers, must be equal)",
    "created": "the second in which it was answered",
    "created_at": "likewise",
    "timings": "measured in each run; the names must be equal",
}
ONLY_UNSTREAMED = "completed_at"  # llama.cpp's streamed response object does not have it


def pairs(folder: str) -> list[Any]:
    return [pytest.param(path, id=path.stem) for path in sorted((GOLDEN / folder).glob("*.sse"))]


def collected(stream: Path) -> dict[str, object]:
    collector = COLLECTORS[stream.stem.split("_")[0]]()
    for event in events(stream.read_bytes()):
        if event.data != b"[DONE]":
            collector.add(orjson.loads(event.data))
    return collector.answer()


def answered(stream: Path) -> dict[str, object]:
    answer: dict[str, object] = orjson.loads(stream.with_suffix(".json").read_bytes())
    return answer


def comparable(value: Any) -> Any:
    """The value without what may differ from run to run."""
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: comparable(item) for name, item in value.items() if name != ONLY_UNSTREAMED}
    for name in EXEMPT.keys() & plain.keys():
        if name == "timings":
            plain[name] = sorted(plain[name])
        elif name != "id" or isinstance(plain[name], str):
            plain[name] = type(plain[name]).__name__
    return plain


@pytest.mark.parametrize("stream", pairs("llama_cpp"))
def test_llama_cpp(stream: Path) -> None:
    """The real server's stream makes the real server's answer."""
    assert comparable(answered(stream)) == comparable(collected(stream))


# Of a vLLM: what differs between two answers to one request, or that the stream cannot know.
VLLM_EXEMPT = {
    "id": "drawn anew for each answer",
    "created": "the second in which it was answered",
    "created_at": "likewise",
    "stop_sequence": "null in a stream, and not there in the whole answer",
}
VLLM_BLANK = {"chat_tools_required", "chat_tool_named"}  # content "" beside calls, where OpenAI, and Edge, say null
ONLY_NULL_IN_WHOLE = {
    "refusal", "annotations", "audio", "function_call", "reasoning", "routed_experts", "service_tier", "metrics",
    "prompt_logprobs", "kv_transfer_params", "ec_transfer_params", "prompt_tokens_details", "completion_tokens_details",
    "multimodal_tokens",
}  # fmt: skip


def vllm_differences(direct: Any, collected: Any, path: str = "") -> list[str]:
    """The fields in which a collected answer is not what the server answers itself, by their paths."""
    if isinstance(direct, list) and isinstance(collected, list) and len(direct) == len(collected):
        pairs = zip(direct, collected, strict=True)
        return [found for one, other in pairs for found in vllm_differences(one, other, path)]
    if not (isinstance(direct, dict) and isinstance(collected, dict)):
        return [] if direct == collected else [path]
    found = []
    for name in direct.keys() | collected.keys():
        null_in_whole = name in ONLY_NULL_IN_WHOLE and direct.get(name, 0) is None and name not in collected
        if name not in VLLM_EXEMPT and not null_in_whole:
            absent = object()
            found += vllm_differences(direct.get(name, absent), collected.get(name, absent), f"{path}.{name}")
    return found


@pytest.mark.parametrize("stream", pairs("vllm"))
def test_vllm(stream: Path) -> None:
    """Of a vLLM that is not known as one (a proxy before it writes its own list), answers are collected too."""
    direct, made = answered(stream), collected(stream)
    asked = orjson.loads(stream.with_suffix(".request.json").read_bytes())["body"]
    if stream.stem.startswith(("chat", "completions")) and "stream_options" not in asked:
        direct.pop("usage")  # which Edge always asks for
    assert sorted(vllm_differences(direct, made)) == ([".choices.message.content"] if stream.stem in VLLM_BLANK else [])
    if "system_fingerprint" in direct:
        assert made["system_fingerprint"] == direct["system_fingerprint"]


@pytest.mark.parametrize("stream", pairs("published"))
def test_published(stream: Path) -> None:
    """Streams in the vendors' published shapes make their published answers, to the last value."""
    assert answered(stream) == collected(stream)


@pytest.mark.parametrize("folder", ["llama_cpp", "published", "vllm"])
def test_every_surface_is_covered(folder: str) -> None:
    assert set(COLLECTORS) == {path.stem.split("_")[0] for path in (GOLDEN / folder).glob("*.sse")}
