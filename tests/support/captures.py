"""Recorded answers of a real Ollama and a real vLLM: replayed by the fake model server, and read on their own.

In: ``tests/captures``. Out: the steps that send an answer again, and what it says. Must not: use Edge's own decoders.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from fakes import ollama
from fakes.model_server import FakeModel, Step, chunk, end, fin, head, whole

from support.raw import CHAT, COMPLETIONS, MESSAGES, RESPONSES
from support.vllm import as_vllm

HOME = Path(__file__).parents[1] / "captures"
MODELS = {"ollama": ("smollm2", "tooly", "thinky", "smolemb"), "vllm": ("smollm2", "thinky", "emb")}
SURFACES = {
    CHAT: "chat",
    COMPLETIONS: "completions",
    MESSAGES: "messages",
    RESPONSES: "responses",
    "/api/chat": "ollama_chat",
    "/api/generate": "ollama_generate",
}
_LEFT_OUT = b"[... left out ...]"
_SIZE = re.compile(rb"[0-9a-f]+")
_TYPES = {".sse": "text/event-stream", ".ndjson": "application/x-ndjson", ".json": "application/json"}
_STREAMS = (".sse", ".ndjson", ".http")


@dataclass(frozen=True)
class Capture:
    """One exchange; ``data`` is the body, in ``.http`` files all that came."""

    server: str
    name: str
    path: str
    method: str
    body: Any
    status: int
    content_type: str
    file: Path

    def __str__(self) -> str:
        return f"{self.server}-{self.name}"

    @cached_property
    def data(self) -> bytes:
        return self.file.read_bytes()

    @property
    def streamed(self) -> bool:
        return self.file.suffix in _STREAMS and self.status == 200

    @property
    def surface(self) -> str:
        return SURFACES[self.path]

    def events(self) -> list[bytes]:
        """The stream's events, each with what ends it."""
        data = self._unframed() if self.file.suffix == ".http" else self.data
        mark = b"\n" if self.file.suffix == ".ndjson" else b"\n\n"
        return [piece + mark for piece in data.split(mark) if piece]

    def payloads(self) -> list[dict[str, Any]]:
        """What the events hold, but for the terminator; or the whole answer."""
        if not self.streamed:
            return [orjson.loads(self.data)]
        lines = [line for event in self.events() for line in event.splitlines() if line]
        texts = [line.removeprefix(b"data: ") for line in lines if line.startswith((b"data: ", b"{"))]
        return [orjson.loads(text) for text in texts if text != b"[DONE]"]

    def steps(self, *, at_once: bool = False) -> list[Step]:
        """The answer again: a stream an event at a time, or ``at_once`` in one piece."""
        cut = self.file.suffix == ".http" and not self.data.endswith(b"\r\n0\r\n\r\n")
        headers = {"Content-Type": self.content_type}
        if not self.streamed:
            return whole(self.data, self.status, headers)
        pieces = [b"".join(self.events())] if at_once else self.events()
        return [head(200, {**headers, "Transfer-Encoding": "chunked"}), *map(chunk, pieces), fin() if cut else end()]

    def _unframed(self) -> bytes:
        """The body of an ``.http`` file: the whole events before and after what was left out."""
        _, _, rest = self.data.partition(b"\r\n\r\n")
        pieces = [piece for piece in rest.split(b"\r\n") if not _SIZE.fullmatch(piece)]
        before, gap, after = b"".join(pieces).partition(_LEFT_OUT)
        if not gap:
            return before
        began, mark, _ = before.rpartition(b"\n\n")
        return began + mark + after.partition(b"\n\n")[2]


def _read(request: Path) -> Capture:
    told = orjson.loads(request.read_bytes())
    name = request.name.removesuffix(".request.json")
    (file,) = [path for path in request.parent.glob(f"{name}.*") if path != request]
    return Capture(
        request.parent.name, name, told["path"], told["method"], told.get("body"), told["status"],
        told.get("content_type") or _TYPES[file.suffix], file,
    )  # fmt: skip


def captures() -> list[Capture]:
    """All of them."""
    return [_read(path) for path in sorted(HOME.glob("*/*.request.json"))]


def be(fake: FakeModel, server: str) -> None:
    """Make the fake known as the server that was recorded."""
    if server == "ollama":
        ollama.be_ollama(fake, *MODELS["ollama"])
    else:
        as_vllm(fake, *MODELS["vllm"])


@dataclass
class Gist:
    """What an answer says, of its first choice."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str]] | None = None
    finish: str | None = None
    usage: tuple[int, int] | None = None
    logprobs: list[Any] | None = None
    error: str | None = None


def gist(capture: Capture) -> Gist:
    """Read a recorded answer."""
    told = Gist(calls=[], logprobs=[])
    reader = {"chat": _chat, "completions": _chat, "messages": _messages}.get(capture.surface, _ollama)
    for payload in capture.payloads():
        if "detail" in payload:
            told.error = payload["detail"]
        elif payload.get("error"):
            error = payload["error"]
            told.error = error if isinstance(error, str) else error["message"]
        else:
            reader(told, payload)
    return told


def _chat(told: Gist, payload: dict[str, Any]) -> None:
    if usage := payload.get("usage"):
        told.usage = (usage["prompt_tokens"], usage["completion_tokens"])
    for choice in payload["choices"]:
        if choice["index"]:
            continue
        said = choice.get("delta") or choice.get("message") or choice
        told.text += said.get("content") or said.get("text") or ""
        told.thought += said.get("reasoning") or said.get("reasoning_content") or ""
        told.finish = choice.get("finish_reason") or told.finish
        told.logprobs += (choice.get("logprobs") or {}).get("content") or []
        for place, call in enumerate(said.get("tool_calls") or ()):
            function, at = call["function"], call.get("index", place)
            assert told.calls is not None
            if at == len(told.calls):
                told.calls.append((function["name"], ""))
            name, before = told.calls[at]
            told.calls[at] = (name, before + (function.get("arguments") or ""))


def _ollama(told: Gist, line: dict[str, Any]) -> None:
    said = line.get("message", line)
    told.text += said.get("content") or said.get("response") or ""
    told.thought += said.get("thinking") or ""
    told.logprobs += line.get("logprobs") or []
    for call in said.get("tool_calls") or ():
        told.calls.append((call["function"]["name"], orjson.dumps(call["function"]["arguments"]).decode()))
    if line.get("done"):
        told.finish = line["done_reason"]
        told.usage = (line.get("prompt_eval_count", 0), line.get("eval_count", 0))


def _messages(told: Gist, payload: dict[str, Any]) -> None:
    blocks = payload.get("content") or [payload.get("content_block") or {}, payload.get("delta") or {}]
    for block in blocks:
        told.text += block.get("text") or ""
        told.thought += block.get("thinking") or ""
        if block.get("type") == "tool_use":
            given = block.get("input")
            told.calls.append((block["name"], orjson.dumps(given).decode() if given else ""))
        if "partial_json" in block:
            name, before = told.calls[-1]
            told.calls[-1] = (name, before + block["partial_json"])
        told.finish = block.get("stop_reason") or told.finish
    told.finish = payload.get("stop_reason") or told.finish
    usage = {**((payload.get("message") or {}).get("usage") or {}), **(payload.get("usage") or {})}
    known = told.usage or (0, 0)
    if usage:
        prompt = sum(usage.get(name) or 0 for name in ("input_tokens", "cache_read_input_tokens"))
        told.usage = (prompt or known[0], usage.get("output_tokens") or known[1])
