"""A collected stream is the upstream's own non-stream answer, for every recorded and every published pair."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from edge.protocol.collect_chat import ChatCollector, CompletionsCollector
from edge.protocol.collect_messages import MessagesCollector
from edge.protocol.collect_responses import ResponsesCollector
from edge.protocol.dialect import Collector
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


@pytest.mark.parametrize("stream", pairs("published"))
def test_published(stream: Path) -> None:
    """Streams in the vendors' published shapes make their published answers, to the last value."""
    assert answered(stream) == collected(stream)


@pytest.mark.parametrize("folder", ["llama_cpp", "published"])
def test_every_surface_is_covered(folder: str) -> None:
    assert set(COLLECTORS) == {path.stem.split("_")[0] for path in (GOLDEN / folder).glob("*.sse")}
