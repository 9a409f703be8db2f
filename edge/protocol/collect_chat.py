"""Builds a ``chat.completion`` or a ``text_completion`` out of the chunks of a stream.

In: decoded chunks. Out: the answer that the upstream would have given without ``stream``.
Must not: raise on any JSON.
"""

from typing import Any

from edge.protocol.collect_choices import ChoicesCollector
from edge.protocol.message_content import read_content
from edge.protocol.tool_calls import CallNumbers, no_arguments

# What a message may hold in place of content.
_INSTEAD = ("tool_calls", "function_call", "refusal", "audio", "reasoning")


class ChatCollector(ChoicesCollector):
    """The collector of ``/v1/chat/completions``."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[int, CallNumbers] = {}

    def choice(self, choice: dict[str, Any], number: int) -> dict[str, Any]:
        """See ``ChoicesCollector``: calls have an index of their own, and content is text."""
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            return choice
        calls, content = delta.get("tool_calls"), delta.get("content")
        if isinstance(content, list):
            delta = _with_text(delta)
        if isinstance(calls, list) and calls:
            numbers = self._calls.setdefault(number, CallNumbers())
            numbered = [{**call, "index": numbers.number(call)} if isinstance(call, dict) else call for call in calls]
            delta = {**delta, "tool_calls": numbered}
        return {**choice, "delta": delta}

    def answer(self) -> dict[str, object]:
        """The answer; each choice's deltas have become its message."""
        head = self.head()
        # Without content, OpenAI and vLLM say null beside tool calls; llama.cpp, known by its timings, says "".
        blank = "" if "timings" in head else None
        choices = self.choices()
        for choice in choices:
            message = choice["message"] = _message(choice.pop("delta", None), blank)
            if choice["finish_reason"] == "tool_calls" and not message.get("tool_calls"):
                choice["finish_reason"] = "stop"  # a client that waits for a call would wait for ever
        return {**head, "object": "chat.completion", "choices": choices}


class CompletionsCollector(ChoicesCollector):
    """The collector of ``/v1/completions``."""

    def answer(self) -> dict[str, object]:
        """The answer; text is joined, logprobs (lists, in OpenAI's or in llama.cpp's shape) are extended."""
        choices = [{"text": "", **choice} for choice in self.choices()]
        return {**self.head(), "object": "text_completion", "choices": choices}


def _message(delta: object, blank: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None, **(delta if isinstance(delta, dict) else {})}
    if not message["content"]:
        message["content"] = blank if any(message.get(name) for name in _INSTEAD) else ""
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        message["tool_calls"] = [_whole_call(call) for call in calls]
    return message


def _with_text(delta: dict[str, Any]) -> dict[str, Any]:
    """The delta with the text of its parts; as it is if one of them is not known."""
    said = read_content(delta["content"])
    if said.unknown:
        return delta
    thought = {"reasoning_content": said.thought} if said.thought else {}
    return {**delta, "content": said.text, **thought}


def _whole_call(call: Any) -> Any:
    """A tool call as non-stream answers have it.

    Its index only told which deltas belong together, and its arguments are JSON.
    """
    if not isinstance(call, dict):
        return call
    whole = {name: value for name, value in call.items() if name != "index"}
    function = whole.get("function")
    if isinstance(function, dict) and no_arguments(str(function.get("arguments") or "")):
        whole["function"] = {**function, "arguments": "{}"}
    return whole
