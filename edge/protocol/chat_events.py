"""Chat completions as canonical events, both ways.

In: decoded chunks, or canonical events. Out: the other. Must not: raise on any JSON of an upstream's.
"""

from typing import Any

from edge.errors import EdgeError
from edge.protocol.batch import Usage
from edge.protocol.chat import read_usage
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reason,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.shapes import openai_body
from edge.protocol.sse import COMMENT_HEARTBEAT, DONE, encode
from edge.protocol.transcoding import Answering, Piece

_MARK = "0c3f1f3e"  # stands for a text; nothing behind it can hold it

_REASONS: dict[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class ChatDecoder:
    """A ``transcoding.Decoder`` of chunks."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._started = False
        self._calls: dict[int, list[object]] = {}  # of each choice: the upstream's index of each call, in order

    def add(self, event: dict[str, object]) -> None:
        """See ``transcoding.Decoder``."""
        if not isinstance(event, dict):
            return
        choices = event.get("choices")
        if not self._started and (choices or event.get("model")):  # Azure's first chunk has neither
            self._start(event)
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                self._choice(choice, choice.get("delta"))

    def answer(self) -> dict[str, object]:
        """Nothing: it is the encoder's collector that has the answer."""
        return {}

    def whole(self, answer: dict[str, object]) -> Usage | None:
        """See ``transcoding.Decoder``."""
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        self._start(answer)
        for choice in choices:
            if isinstance(choice, dict):
                self._choice(choice, choice.get("message"))
        usage = answer.get("usage")
        return read_usage(usage) if isinstance(usage, dict) else None

    def _start(self, event: dict[str, object]) -> None:
        self._started = True
        model = event.get("model")
        self.events.append(Start(model if isinstance(model, str) else ""))

    def _choice(self, choice: dict[str, Any], delta: object) -> None:
        number = choice.get("index")
        index = number if isinstance(number, int) else 0
        if isinstance(delta, dict):
            self._delta(delta, index)
        finish = choice.get("finish_reason")
        if finish:
            stopped = choice.get("stop_reason")  # vLLM: the stop sequence, or the number of a token
            known = _REASONS.get(finish, "stop") if isinstance(finish, str) else "stop"
            self.events.append(Finish(known, stopped if isinstance(stopped, str) else None, index))

    def _delta(self, delta: dict[str, Any], index: int) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            self.events.append(Reasoning(thought, "", index))
        content = delta.get("content")
        if content and isinstance(content, str):
            self.events.append(Text(content, index))
        refusal = delta.get("refusal")
        if refusal and isinstance(refusal, str):
            self.events.append(Refusal(refusal, index))
        annotations = delta.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else ():
            if isinstance(annotation, dict):
                self.events.append(Annotation(annotation, index))
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._call(call, index)

    def _call(self, call: dict[str, Any], index: int) -> None:
        known = self._calls.setdefault(index, [])
        # Some leave the index out, which is only clear where each delta holds whole calls: then a name begins one.
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        name, identity, key = function.get("name"), call.get("id"), call.get("index")
        if not isinstance(key, int):
            key = f"#{len(known)}" if name or not known else known[-1]
        if key not in known:
            known.append(key)
            self.events.append(
                ToolCallStart(
                    len(known) - 1,
                    identity if isinstance(identity, str) else "",
                    name if isinstance(name, str) else "",
                    index,
                )
            )
        arguments = function.get("arguments")
        if arguments and isinstance(arguments, str):
            self.events.append(ToolCallArguments(known.index(key), arguments, index))


class ChunkEncoder:
    """What encoders of OpenAI's chunks share: one head, then usage if it was asked for, then ``[DONE]``.

    Args:
        prefix: Of the answer's id.
        kind: What a chunk calls itself.
    """

    terminator = DONE

    def __init__(self, answering: Answering, prefix: str, kind: str) -> None:
        prepared = answering.prepared
        self._head: dict[str, object] = {
            "id": f"{prefix}-{answering.id}",
            "object": kind,
            "created": answering.created,
            "model": prepared.model or "",
        }
        self._usage_wanted = not prepared.strip_usage

    def end(self, usage: Usage | None) -> list[Piece]:
        """See ``transcoding.Encoder``."""
        if usage is None or not self._usage_wanted:
            return []
        return [(None, {**self._head, "choices": [], "usage": usage_object(usage)})]

    def frame(self, piece: Piece) -> bytes:
        """See ``transcoding.Encoder``."""
        return encode(piece[1])

    def heartbeat(self, *, handed_over: bool) -> bytes:  # noqa: ARG002 - a comment fits anywhere
        """See ``transcoding.Encoder``."""
        return COMMENT_HEARTBEAT

    def error_event(self, error: EdgeError, request_id: str) -> bytes:  # noqa: ARG002 - the envelope has no place for it
        """See ``transcoding.Encoder``."""
        return encode(openai_body(error))


class ChatEncoder(ChunkEncoder):
    """A ``transcoding.Encoder`` of chat chunks, role first."""

    def __init__(self, answering: Answering) -> None:
        super().__init__(answering, "chatcmpl", "chat.completion.chunk")
        self._id = answering.id
        self._ends: tuple[bytes, bytes] | None = None
        self._called: set[int] = set()  # choices with tool calls

    def add(self, event: Event) -> list[Piece]:  # noqa: PLR0911 - one case per kind of event
        """See ``transcoding.Encoder``."""
        match event:
            case Text(text, index):
                return [self._delta(index, {"content": text})]
            case Reasoning(text, _, index):
                return [self._delta(index, {"reasoning_content": text, "reasoning": text})] if text else []
            case ToolCallArguments(call, json, index):
                return [self._delta(index, {"tool_calls": [{"index": call, "function": {"arguments": json}}]})]
            case Start(model):
                self._head["model"] = model or self._head["model"]
                self._ends = None
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

    def text_ends(self) -> tuple[bytes, bytes] | None:
        """See ``transcoding.Encoder``."""
        if self._ends is None:
            before, _, after = self.frame(self._delta(0, {"content": _MARK})).rpartition(_MARK.encode())
            self._ends = before, after
        return self._ends

    def _delta(self, index: int, delta: dict[str, object]) -> Piece:
        return self._choice({"index": index, "delta": delta, "finish_reason": None})

    def _choice(self, choice: dict[str, object]) -> Piece:
        return None, {**self._head, "choices": [choice]}


def usage_object(usage: Usage) -> dict[str, object]:
    """OpenAI's usage object, as far as the upstream's figures go."""
    prompt, completion = usage.prompt or 0, usage.completion or 0
    told: dict[str, object] = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    if usage.cached is not None:
        told["prompt_tokens_details"] = {"cached_tokens": usage.cached}
    if usage.reasoning is not None:
        told["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning}
    return told
