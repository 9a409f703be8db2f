"""Builds a ``chat.completion`` or a ``text_completion`` out of the chunks of a stream.

In: decoded chunks. Out: the answer that the upstream would have given without ``stream``.
Must not: raise on any JSON.
"""

from typing import Any

from edge.protocol.collect_choices import ChoicesCollector

# What a message may hold in place of content.
_INSTEAD = ("tool_calls", "function_call", "refusal", "audio")


class ChatCollector(ChoicesCollector):
    """The collector of ``/v1/chat/completions``."""

    def answer(self) -> dict[str, object]:
        """The answer; each choice's deltas have become its message."""
        head = self.head()
        # Without content, OpenAI and vLLM say null beside tool calls; llama.cpp, known by its timings, says "".
        blank = "" if "timings" in head else None
        choices = self.choices()
        for choice in choices:
            choice["message"] = _message(choice.pop("delta", None), blank)
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
        message["tool_calls"] = [_without_index(call) for call in calls]
    return message


def _without_index(call: Any) -> Any:
    """A tool call as non-stream answers have it: its index only told which deltas belong together."""
    return {name: value for name, value in call.items() if name != "index"} if isinstance(call, dict) else call
