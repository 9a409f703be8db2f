"""Ollama as a model server and as a client sees it: lines, whole answers, and a fake server that passes for one.

In: words. Out: steps for the fake model server, and the lines of an answer. Must not: know which test it is for.
"""

from typing import Any

import orjson
from fakes.model_server import FakeModel
from fakes.steps import Step, chunk, end, head

from support.raw import Answer

CHAT, GENERATE, EMBED, EMBEDDINGS = "/api/chat", "/api/generate", "/api/embed", "/api/embeddings"
NDJSON = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
JSON = {"Content-Type": "application/json"}
WORDS = ("Hel", "lo", " there")
HI = {"role": "user", "content": "hi"}
DETAILS = {"format": "gguf", "family": "llama", "parameter_size": "8.0B", "quantization_level": "Q4_K_M"}
FIGURES = {
    "total_duration": 9, "load_duration": 1, "prompt_eval_count": 7, "prompt_eval_duration": 2, "eval_count": 3,
    "eval_duration": 5,
}  # fmt: skip


def line(payload: dict[str, Any]) -> bytes:
    return orjson.dumps({"model": "llama3:8b", "created_at": "2025-01-01T00:00:00Z", **payload}) + b"\n"


def generate_lines(words: tuple[str, ...] = WORDS, reason: str = "stop") -> list[bytes]:
    """The lines of ``/api/generate``."""
    last = line({"response": "", "done": True, "done_reason": reason, **FIGURES})
    return [*(line({"response": word, "done": False}) for word in words), last]


def lines_answer(told: list[bytes]) -> list[Step]:
    """A complete answer, one chunk for each line."""
    return [head(200, NDJSON), *map(chunk, told), end()]


def lines_of(answer: Answer) -> list[dict[str, Any]]:
    """What a client reads; the last line must be whole."""
    assert answer.body.endswith(b"\n")
    return [orjson.loads(told) for told in answer.body.splitlines()]


def text_of(told: list[dict[str, Any]]) -> str:
    """All text of a chat or a generate."""
    return "".join(entry["message"]["content"] if "message" in entry else entry["response"] for entry in told)


def pass_for_ollama(fake: FakeModel) -> None:
    """From now on it is recognised as one, with one model."""
    fake.models = ["llama3:8b"]
    listed = {
        "name": "llama3:8b", "model": "llama3:8b", "size": 4_000_000_000, "digest": "d1" * 32,
        "modified_at": "2025-01-01T00:00:00Z", "details": DETAILS,
    }  # fmt: skip
    fake.get["/"] = (200, {"Content-Type": "text/plain"}, b"Ollama is running")
    fake.get["/api/tags"] = (200, JSON, orjson.dumps({"models": [listed]}))
