"""Each text gets its own vector, and counts that cannot be are not reckoned with."""

from typing import Any

import pytest

from edge.errors import UpstreamBroken
from edge.protocol.canonical import Target
from edge.protocol.embeddings import translate
from edge.protocol.openai_usage import read_usage
from edge.protocol.surface import Surface


def reshaped(surface: Surface, body: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return translate(surface, {"model": "m", **body}, Target(surface, "u", cloud=False))[2](answer)


def items(*numbers: int | None) -> list[dict[str, Any]]:
    return [{"embedding": [at], **({} if at is None else {"index": at})} for at in numbers]


def test_vectors_go_by_index_and_without_one_as_they_lie() -> None:
    asked = {"input": ["a", "b", "c"]}
    assert reshaped(Surface.OLLAMA_EMBED, asked, {"data": items(2, 0, 1)})["embeddings"] == [[0], [1], [2]]
    bare = [{"embedding": [7]}, {"embedding": [8]}, {"embedding": [9]}]
    assert reshaped(Surface.OLLAMA_EMBED, asked, {"data": bare})["embeddings"] == [[7], [8], [9]]


@pytest.mark.parametrize("data", [items(0), items(0, 0), items(0, 2), items(0, 1, 2), [], None])
def test_vectors_that_do_not_fit_the_texts_are_an_error(data: Any) -> None:
    with pytest.raises(UpstreamBroken):
        reshaped(Surface.OLLAMA_EMBED, {"input": ["a", "b"]}, {"data": data})


def test_ollamas_other_ways_are_counted_too() -> None:
    assert reshaped(Surface.OLLAMA_EMBEDDINGS, {"prompt": "a"}, {"data": items(0)}) == {"embedding": [0]}
    with pytest.raises(UpstreamBroken, match="2 embeddings for 1"):
        reshaped(Surface.OLLAMA_EMBEDDINGS, {"prompt": "a"}, {"data": items(0, 1)})
    with pytest.raises(UpstreamBroken, match="1 embeddings for 2"):
        reshaped(Surface.EMBEDDINGS, {"input": ["a", "b"]}, {"embeddings": [[1.0]]})


@pytest.mark.parametrize("count", [-1, 10**15, True, 1.5, "7"])
def test_counts_that_cannot_be_are_left_out(count: object) -> None:
    usage = read_usage({"prompt_tokens": count, "completion_tokens": 3})
    assert (usage.prompt, usage.completion) == (None, 3)
