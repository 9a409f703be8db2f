"""The size of a prompt is estimated alike on every surface, and pictures are not read as text."""

from typing import Any

import orjson
import pytest

from edge.protocol.prompt_size import prompt_tokens
from edge.protocol.request import prepare
from edge.protocol.session.parse import prepared, read
from edge.protocol.surface import Surface

TEXT = "word " * 4000  # 5,000 tokens at four bytes each
PICTURE = "data:image/png;base64," + "A" * 400_000
S = Surface


def estimate(surface: Surface, body: dict[str, Any]) -> int:
    return prompt_tokens(surface, body, len(orjson.dumps(body)))


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        (S.CHAT, {"model": "m", "messages": [{"role": "user", "content": TEXT}]}),
        (S.CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": TEXT}]}]}),
        (S.CHAT, {"messages": [], "tools": [{"function": {"name": "f", "description": TEXT}}]}),
        (S.COMPLETIONS, {"prompt": TEXT}),
        (S.COMPLETIONS, {"prompt": list(range(5000))}),
        (S.RESPONSES, {"instructions": TEXT[:5000], "input": [{"role": "user", "content": TEXT[5000:]}]}),
        (S.MESSAGES, {"system": TEXT, "messages": []}),
        (S.OLLAMA_GENERATE, {"model": "x" * 9000, "prompt": TEXT}),
        (S.EMBEDDINGS, {"input": [TEXT[:10_000], TEXT[10_000:]]}),
        (S.EMBEDDINGS, {"input": [list(range(2500)), list(range(2500))]}),
        (S.RERANK, {"query": "q", "documents": [TEXT]}),
    ],
)
def test_text_is_a_token_for_four_bytes(surface: Surface, body: dict[str, Any]) -> None:
    assert 5000 <= estimate(surface, body) <= 5020


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        {"messages": [{"content": [{"source": {"type": "base64", "data": PICTURE[22:]}}]}]},
        {"messages": [{"content": "what is it?", "images": [PICTURE[22:]]}]},
        {"input": [{"content": [{"type": "input_file", "file_data": PICTURE}]}]},
    ],
)
def test_a_picture_is_a_picture(body: dict[str, Any]) -> None:
    assert 1600 <= estimate(S.CHAT, body) <= 1630


def test_other_scripts_are_counted_by_their_bytes() -> None:
    assert estimate(S.CHAT, {"prompt": "漢" * 4000}) == 3000


def test_short_requests_are_told_by_their_length_and_counting_is_free() -> None:
    assert prompt_tokens(S.CHAT, {"messages": []}, 15) == 4
    assert estimate(S.COUNT_TOKENS, {"messages": TEXT}) == 0


def test_what_is_prepared_has_its_estimate() -> None:
    assert prepare(S.CHAT, orjson.dumps({"messages": [{"content": TEXT}]})).tokens == 5004
    assert prepare(S.EMBEDDINGS, orjson.dumps({"input": TEXT})).tokens == 5000
    session = prepared(read({"message": "and?"}), [("user", TEXT), ("assistant", "yes")], 100, 0.0)
    assert 5000 <= session.tokens <= 5020
