"""The simulator's answers as chunks of chat completions or of completions.

In: canonical events. Out: payloads, and the count of tokens in them. Must not: know how they are sent.
Format: https://platform.openai.com/docs/api-reference/chat/streaming
"""

from typing import Any, ClassVar

from edge.protocol.batch import Usage
from edge.protocol.chat.collect import ChatCollector, CompletionsCollector
from edge.protocol.events import Event, Finish, Reasoning, Text, ToolCallArguments, ToolCallStart
from edge.protocol.openai_usage import usage_object

Chunk = dict[str, Any]


class Chunks:
    """Makes the chunks of one answer.

    Args:
        identity: Hex digits, unique to the answer.
    """

    prefix: ClassVar[str]
    object: ClassVar[str]
    collector: ClassVar[type[ChatCollector | CompletionsCollector]]

    def __init__(self, identity: str, model: str, created: int) -> None:
        self._head = {"id": self.prefix + identity, "object": self.object, "created": created, "model": model}
        self._identity = identity
        self._tokens = 0
        self._thoughts = 0

    def begin(self, choice: int) -> list[Chunk]:
        """What comes before the first token of a choice."""
        raise NotImplementedError

    def event(self, event: Event) -> Chunk:
        """The chunk of one event."""
        self._tokens += isinstance(event, Text | Reasoning | ToolCallArguments)
        self._thoughts += isinstance(event, Reasoning)
        return self._chunk(self._choice(event))

    def usage(self, prompt: int) -> Chunk:
        """The chunk with the token counts of the prompt and of the whole answer."""
        usage = Usage(prompt, self._tokens, reasoning=self._thoughts or None)
        return {**self._head, "choices": [], "usage": usage_object(usage)}

    def _choice(self, event: Event) -> Chunk:
        raise NotImplementedError

    def _chunk(self, choice: Chunk) -> Chunk:
        return {**self._head, "choices": [choice]}


class ChatChunks(Chunks):
    """Those of ``/v1/chat/completions``."""

    prefix, object, collector = "chatcmpl-", "chat.completion.chunk", ChatCollector

    def begin(self, choice: int) -> list[Chunk]:
        """The role."""
        return [self._chunk(_delta(choice, {"role": "assistant", "content": ""}))]

    def _choice(self, event: Event) -> Chunk:
        match event:
            case Text(text, choice):
                return _delta(choice, {"content": text})
            case Reasoning(text, _, choice):
                return _delta(choice, {"reasoning_content": text})
            case ToolCallStart(call, _, name, choice):
                identity = f"call_{self._identity[:20]}{choice:02d}{call:02d}"
                function = {"name": name, "arguments": ""}
                begun = {"index": call, "id": identity, "type": "function", "function": function}
                return _delta(choice, {"tool_calls": [begun]})
            case ToolCallArguments(call, json, choice):
                return _delta(choice, {"tool_calls": [{"index": call, "function": {"arguments": json}}]})
            case Finish(reason, stopped, choice):
                return _finished({"index": choice, "delta": {}}, reason, stopped)
        raise TypeError(event)


class CompletionsChunks(Chunks):
    """Those of ``/v1/completions``, where there is nothing but text."""

    prefix, object, collector = "cmpl-", "text_completion", CompletionsCollector

    def begin(self, choice: int) -> list[Chunk]:  # noqa: ARG002 - see below
        """Nothing: the first token begins it."""
        return []

    def _choice(self, event: Event) -> Chunk:
        match event:
            case Text(text, choice):
                return {"index": choice, "text": text, "logprobs": None, "finish_reason": None}
            case Finish(reason, stopped, choice):
                return _finished({"index": choice, "text": "", "logprobs": None}, reason, stopped)
        raise TypeError(event)


def _delta(choice: int, delta: Chunk) -> Chunk:
    return {"index": choice, "delta": delta, "finish_reason": None}


def _finished(choice: Chunk, reason: str, stopped: str | None) -> Chunk:
    """With vLLM's word for the stop sequence, where there was one."""
    return {**choice, "finish_reason": reason, **({} if stopped is None else {"stop_reason": stopped})}
