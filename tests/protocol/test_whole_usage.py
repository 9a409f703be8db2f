"""What one JSON body says of its cost is found, wherever it stands, and text cannot pass for it."""

from typing import Any

import orjson
import pytest

from edge.protocol.batch import Usage
from edge.protocol.surface import Surface
from edge.protocol.whole_answer import usage_in

S = Surface
OPENAI = {"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2}}
LIE = '","usage":{"prompt_tokens":0},"'


@pytest.mark.parametrize(
    ("surface", "body", "usage"),
    [
        (S.CHAT, {"choices": [{"message": {"content": LIE}}], "usage": OPENAI}, Usage(7, 9, 2)),
        (S.COMPLETIONS, {"usage": OPENAI, "choices": [{"text": LIE}]}, Usage(7, 9, 2)),
        (S.RESPONSES, {"usage": {"input_tokens": 3, "output_tokens": 4}}, Usage(3, 4)),
        (S.MESSAGES, {"content": [], "usage": {"input_tokens": 3, "output_tokens": 4}}, Usage(3, 4)),
        (S.EMBEDDINGS, {"data": [0.25] * 200_000, "usage": {"prompt_tokens": 5}}, Usage(5)),
        (S.EMBEDDINGS, {"usage": {"prompt_tokens": 5}, "data": [0.25] * 200_000}, Usage(5)),
        (S.RERANK, {"results": [], "usage": {"total_tokens": 5}}, Usage()),
        (S.OLLAMA_EMBED, {"embeddings": [[0.5]], "prompt_eval_count": 8}, Usage(8)),
        (
            S.OLLAMA_CHAT,
            {"message": {"tool_calls": [{"arguments": {"eval_count": 0}}]}, "prompt_eval_count": 8, "eval_count": 2},
            Usage(8, 2),
        ),
        (S.OLLAMA_CHAT, {"message": {"content": '"eval_count":1'}}, None),
        (S.CHAT, {"choices": [], "usage": None}, None),
        (S.CHAT, {"text": LIE}, None),
        (S.TRANSCRIPTIONS, {"text": "hello"}, None),
    ],
)
@pytest.mark.parametrize("spaced", [False, True])
def test_usage_is_found(surface: Surface, body: dict[str, Any], usage: Usage | None, spaced: bool) -> None:
    assert usage_in(surface, orjson.dumps(body, option=orjson.OPT_INDENT_2 if spaced else None)) == usage


@pytest.mark.parametrize("body", [b"", b'{"usage": {', b'{"usage": {"a"', b'"usage":{' + b'"a":[' * 5000, b"\xff\xfe"])
def test_what_is_broken_says_nothing(body: bytes) -> None:
    assert usage_in(S.CHAT, body) is None
