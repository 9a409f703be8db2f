"""Canonical events as Ollama's lines.

In: canonical events. Out: the lines of ``/api/chat`` or ``/api/generate``. Must not: send half a tool call.

The durations of the last line are what Edge's own clock says: ``prompt_eval_duration`` from the request to the first
event with content, ``eval_duration`` from there to the end. ``load_duration`` is not known, so it is 0.
"""

import time
from collections.abc import Callable
from typing import Any

import orjson
from typing_extensions import override

from edge.bounds import TOOL_ARGUMENTS_CHARS
from edge.protocol.batch import Usage
from edge.protocol.dialect import BadStream, Said
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Logprobs,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.json_text import loads
from edge.protocol.ollama.format import OllamaFormat, now_text
from edge.protocol.ollama.ndjson import encode_line
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Progress, SurfaceFormat
from edge.protocol.transcode_ports import MARK, Answering, BaseEncoder, Piece

# Ollama has no word for tool calls, and none for filters: that one goes out as it is.
_REASONS = {"tool_calls": "stop"}


class OllamaEncoder(BaseEncoder):
    """A ``transcode_ports.Encoder`` of lines; the last one ends the answer, and nothing follows it."""

    format: type[SurfaceFormat] = OllamaFormat  # ``/api/generate`` has no terminator either

    def __init__(self, answering: Answering, clock: Callable[[], float] = time.monotonic) -> None:
        prepared = answering.prepared
        self._surface = prepared.surface
        self._chat = prepared.surface is Surface.OLLAMA_CHAT
        self._model = prepared.model or ""
        self._clock = clock
        self._begun = clock()
        self._first: float | None = None  # when content first came
        self._calls: list[tuple[ToolCallStart, list[str]]] = []
        self._calls_chars = 0
        self._reason = "stop"
        self._around: dict[Said, tuple[bytes, bytes, bytes]] = {}  # what stands around a time and a text
        self._logprobs: list[dict[str, Any]] = []  # of the next line

    @override
    def add(self, event: Event) -> list[Piece]:  # noqa: PLR0911 - one case per kind of event
        """There is one choice: Ollama's clients cannot ask for more."""
        if self._first is None and not isinstance(event, Start | Finish):
            self._first = self._clock()
        match event:
            case Logprobs(tokens):
                waiting = self._without_text()
                self._logprobs = [_token(token) for token in tokens]
                return waiting
            case Text(text) | Refusal(text):
                return [self._line({"content": text})]
            case Reasoning(text):
                return [self._line({"content": "", "thinking": text})] if text else []
            case ToolCallStart():
                self._calls.append((event, []))
                return self._without_text()
            case ToolCallArguments(call, json):
                self._argue(call, json)
                return self._without_text()
            case Finish(reason):
                self._reason = _REASONS.get(reason, reason)
                return self._called(cut=reason == "length")
            case Start(model):
                self._model = model or self._model
                self._around = {}
                return []
            case Annotation():
                return []

    @override
    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        if self._first is None:
            return None
        around = self._around.get(said)
        if around is None:
            (event,) = self.add(Text(MARK) if said == "text" else Reasoning(MARK))
            (_, line) = event
            line["created_at"] = MARK
            before, middle, after = self.frame(event).rsplit(MARK.encode(), 2)
            around = self._around[said] = before, middle, after
        before, middle, after = around
        return b"%b%b%b%b%b" % (before, now_text().encode(), middle, escaped, after)

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        now = self._clock()
        first = now if self._first is None else self._first
        line = self._line({"content": ""})[1]
        counted = usage or Usage()
        line.update(
            done=True,
            done_reason=self._reason,
            total_duration=_ns(now - self._begun),
            load_duration=0,
            prompt_eval_count=counted.prompt or 0,
            prompt_eval_duration=_ns(first - self._begun),
            eval_count=counted.completion or 0,
            eval_duration=_ns(now - first),
        )
        return [(None, line)]

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode_line(piece[1])

    @override
    def progress(self) -> Progress:
        return Progress(model=self._model)

    def _line(self, fields: dict[str, Any]) -> Piece:
        head: dict[str, object] = {"model": self._model, "created_at": now_text()}
        likely: dict[str, object] = {}
        if self._logprobs:
            likely, self._logprobs = {"logprobs": self._logprobs}, []
        if self._chat:
            return None, {**head, "message": {"role": "assistant", **fields}, "done": False, **likely}
        content = fields.pop("content")
        return None, {**head, "response": content, **fields, "done": False, **likely}

    def _without_text(self) -> list[Piece]:
        """As an Ollama does, a line of log probabilities alone: of tokens that are a call's, which comes whole."""
        return [self._line({"content": ""})] if self._logprobs else []

    def _argue(self, call: int, json: str) -> None:
        self._calls_chars += len(json)
        if self._calls_chars > TOOL_ARGUMENTS_CHARS:
            raise BadStream(f"the model's tool calls are over {TOOL_ARGUMENTS_CHARS} characters")
        for begun, pieces in self._calls:
            if begun.call == call:
                pieces.append(json)

    def _called(self, *, cut: bool) -> list[Piece]:
        """All calls in one line, each whole; what a length limit has cut is left out, and the reason says so.

        Raises:
            BadStream: what the model wrote as arguments is no JSON object, which is what Ollama's clients are given,
                or is nested too deep.
        """
        fields = []
        for number, (begun, pieces) in enumerate(self._calls):
            arguments = _object("".join(pieces))
            if arguments is None:
                if cut:
                    continue
                raise BadStream(f"the model's arguments for {begun.name} are no JSON object")
            call: dict[str, object] = {"function": {"index": number, "name": begun.name, "arguments": arguments}}
            fields.append({"id": begun.id, **call} if begun.id else call)
        if not fields:
            return []
        line = self._line({"content": "", "tool_calls": fields})
        try:
            self.frame(line)
        except orjson.JSONEncodeError:  # it reads three times as deep as it writes
            raise BadStream("the model's arguments are nested too deep to be written as JSON") from None
        return [line]


def _token(fields: dict[str, Any]) -> dict[str, Any]:
    """One token, as Ollama gives it: what is not known, or not asked for, is left out."""
    entry = {name: fields[name] for name in ("token", "logprob", "bytes") if fields.get(name) is not None}
    top = fields.get("top_logprobs")
    others = [_token(other) for other in top if isinstance(other, dict)] if isinstance(top, list) else []
    return {**entry, "top_logprobs": others} if others else entry


def _object(json: str) -> dict[str, Any] | None:
    try:
        value = loads(json or "{}")
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
