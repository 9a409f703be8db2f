"""What an Ollama says: lines of its chat and generate answers, as its API reference has them.

In: words. Out: bytes of one line, or lists of steps. Must not: know sockets.
"""

from typing import Any

import orjson
from fakes.answers import WORDS
from fakes.steps import Step, chunk, end, head, json_answer

Json = dict[str, Any]
AT = "2026-11-25T10:00:00.123456Z"
HEADERS = {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
MEASURED = {
    "total_duration": 5_000_000_000,
    "load_duration": 1_500_000_000,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 500_000_000,
    "eval_count": 3,
    "eval_duration": 2_000_000_000,
}


def line(payload: Json) -> bytes:
    return orjson.dumps(payload) + b"\n"


def said(model: str = "m", **message: Any) -> bytes:
    """One line of ``/api/chat``."""
    told = {"role": "assistant", "content": "", **message}
    return line({"model": model, "created_at": AT, "message": told, "done": False})


def token(text: str) -> bytes:
    return said(content=text)


def last(reason: str = "stop", **measured: Any) -> bytes:
    """The line that ends an answer of ``/api/chat``."""
    message = {"role": "assistant", "content": ""}
    ended = {"model": "m", "created_at": AT, "message": message, "done": True, "done_reason": reason}
    return line({**ended, **MEASURED, **measured})


def generated(text: str) -> bytes:
    """One line of ``/api/generate``."""
    return line({"model": "m", "created_at": AT, "response": text, "done": False})


def generated_last(reason: str = "stop") -> bytes:
    return line(
        {
            "model": "m",
            "created_at": AT,
            "response": "",
            "done": True,
            "done_reason": reason,
            "context": [1],
            **MEASURED,
        }
    )


def error(text: str = "the model broke") -> bytes:
    return line({"error": text})


def lines_head() -> Step:
    return head(200, HEADERS)


def ollama_answer(lines: list[bytes]) -> list[Step]:
    """A complete stream, one chunk for each line."""
    return [lines_head(), *map(chunk, lines), end()]


def be_ollama(fake: Any, *models: str, version: str = "0.13.0") -> None:
    """Make a fake model server known as an Ollama with these models."""
    cards = [{"id": name, "object": "model", "created": 1, "owned_by": "library"} for name in models]
    tags = [{"name": name, "model": name, "size": 9, "details": {"family": "llama"}} for name in models]
    for path, body in {
        "/v1/models": {"object": "list", "data": cards or None},
        "/api/tags": {"models": tags},
        "/api/version": {"version": version},
        "/api/ps": {"models": []},
    }.items():
        fake.get[path] = (200, {"Content-Type": "application/json"}, orjson.dumps(body))
    fake.get["/"] = (200, {"Content-Type": "text/plain"}, b"Ollama is running")


def short_answer(path: str, asked: Json) -> list[Step]:
    """A short valid answer: a stream unless none is wanted, or only the model is to be loaded."""
    chat = path == "/api/chat"
    if not asked.get("messages" if chat else "prompt"):
        return json_answer({"model": "m", "created_at": AT, **_whole(chat, ""), "done": True, "done_reason": "load"})
    if asked.get("stream") is False:
        told = {"model": "m", "created_at": AT, **_whole(chat, "".join(WORDS)), "done": True, "done_reason": "stop"}
        return json_answer({**told, **MEASURED})
    if chat:
        return ollama_answer([*map(token, WORDS), last()])
    return ollama_answer([*map(generated, WORDS), generated_last()])


def _whole(chat: bool, text: str) -> Json:
    return {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
