"""Canonical events written as chat chunks.

In: canonical events. Out: chunks, as text. Must not: know the upstream's surface.
"""

from typing import Any

from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.chat.format import ChatFormat
from edge.protocol.dialect import Said
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
from edge.protocol.openai_usage import usage_object
from edge.protocol.sse import encode
from edge.protocol.surface_format import SurfaceFormat
from edge.protocol.transcode_ports import MARK, Answering, BaseEncoder, Piece


class ChunkEncoder(BaseEncoder):
    """What encoders of OpenAI's chunks share: one head, then usage if it was asked for, then ``[DONE]``.

    Args:
        prefix: Of the answer's id.
        kind: What a chunk calls itself.
    """

    format: type[SurfaceFormat] = ChatFormat

    def __init__(self, answering: Answering, prefix: str, kind: str) -> None:
        prepared = answering.prepared
        self._head: dict[str, object] = {
            "id": f"{prefix}-{answering.id}",
            "object": kind,
            "created": answering.created,
            "model": prepared.model or "",
        }
        self._usage_wanted = not prepared.strip_usage

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        if usage is None or not self._usage_wanted:
            return []
        return [(None, {**self._head, "choices": [], "usage": usage_object(usage)})]

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode(piece[1])


class ChatEncoder(ChunkEncoder):
    """A ``transcode_ports.Encoder`` of chat chunks, role first."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering, "chatcmpl", "chat.completion.chunk")
        self._id = answering.id
        self._around: dict[Said, list[bytes]] = {}  # what stands around a text
        self._called: set[int] = set()  # choices with tool calls
        self._logprobs: dict[int, list[dict[str, Any]]] = {}  # of each choice: those of the text that comes next

    @override
    def add(self, event: Event) -> list[Piece]:  # noqa: PLR0911 - one case per kind of event
        match event:
            case Text(text, index):
                return [self._delta(index, {"content": text}, self._logprobs.pop(index, None))]
            case Logprobs(tokens, index):
                self._logprobs[index] = tokens
                return []
            case Reasoning(text, _, index):
                return [self._delta(index, {"reasoning_content": text, "reasoning": text})] if text else []
            case ToolCallArguments(call, json, index):
                return [self._delta(index, {"tool_calls": [{"index": call, "function": {"arguments": json}}]})]
            case Start(model):
                self._head["model"] = model or self._head["model"]
                self._around = {}
                return [self._delta(0, {"role": "assistant", "content": ""})]
            case ToolCallStart(call, identity, name, index):
                self._called.add(index)
                function = {"name": name, "arguments": ""}
                identity = identity or f"call_{self._id[:20]}{index:02d}{call:02d}"
                begun = {"index": call, "id": identity, "type": "function", "function": function}
                return [self._delta(index, {"tool_calls": [begun]})]
            case Refusal(text, index):
                return [self._delta(index, {"refusal": text})]
            case Annotation(data, index):
                return [self._delta(index, {"annotations": [data]})]
            case Finish(reason, _, index):
                # Ollama says "stop" after tool calls too; an SDK's tool loop waits for the other.
                said = "tool_calls" if reason == "stop" and index in self._called else reason
                return [self._choice({"index": index, "delta": {}, "finish_reason": said})]

    @override
    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        around = self._around.get(said)
        if around is None:
            event = self.add(Text(MARK) if said == "text" else Reasoning(MARK))
            around = self._around[said] = self.frame(event[0]).rsplit(MARK.encode(), 1 if said == "text" else 2)
        return escaped.join(around)

    def _delta(self, index: int, delta: dict[str, object], logprobs: list[dict[str, Any]] | None = None) -> Piece:
        choice: dict[str, object] = {"index": index, "delta": delta, "finish_reason": None}
        if logprobs is not None:
            choice["logprobs"] = {"content": logprobs, "refusal": None}
        return self._choice(choice)

    def _choice(self, choice: dict[str, object]) -> Piece:
        return None, {**self._head, "choices": [choice]}
