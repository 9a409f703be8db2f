"""Builds the one line that Ollama answers with ``"stream": false`` out of the lines of a stream.

In: decoded lines. Out: the last line, with the text, the thinking and the tool calls of all. Must not: raise on any
JSON.
"""

from typing import Any

from typing_extensions import override

from edge.protocol.dialect import Collector

_JOINED = ("content", "response", "thinking")


class OllamaCollector(Collector):
    """The collector of ``/api/chat`` and ``/api/generate``."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}
        self._calls: list[object] = []
        self._logprobs: list[object] = []
        self._message: dict[str, Any] | None = None

    @override
    def add(self, event: dict[str, object]) -> None:
        """Take one line."""
        if not isinstance(event, dict):
            return
        self._last = {**self._last, **event}
        message = event.get("message")
        if isinstance(message, dict):
            self._message = {**(self._message or {}), **message}
        held = message if isinstance(message, dict) else event
        for name in _JOINED:
            text = held.get(name)
            if isinstance(text, str) and text:
                self._texts.setdefault(name, []).append(text)
        logprobs = event.get("logprobs")
        if isinstance(logprobs, list):
            self._logprobs += logprobs
        calls = held.get("tool_calls")
        if isinstance(calls, list):
            self._calls += calls

    @override
    def answer(self) -> dict[str, object]:
        """The answer."""
        fields: dict[str, object] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._calls:
            fields["tool_calls"] = self._calls
        last = {**self._last, "logprobs": self._logprobs} if self._logprobs else self._last
        if self._message is None:
            return {**last, **fields}
        return {**last, "message": {**self._message, "content": "", **fields}}
