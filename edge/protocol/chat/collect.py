"""Builds a ``chat.completion`` or a ``text_completion`` out of the chunks of a stream.

In: decoded chunks. Out: the answer that the upstream would have given without ``stream``.
Must not: raise on any JSON.
"""

from typing import Any

from typing_extensions import override

from edge.protocol.dialect import Collector
from edge.protocol.fold_deltas import fold, item_index, whole
from edge.protocol.message_content import read_content
from edge.protocol.tool_calls import CallNumbers, no_arguments

# Fields of a chunk that its non-stream answer does not have, or has in another form.
_CHUNK_ONLY = frozenset({"choices", "object", "obfuscation"})
# What a server measures; sent together, hence kept together.
_MEASURED = ("usage", "timings")


class ChoicesCollector(Collector):
    """Folds OpenAI-shaped chunks into the fields of the answer."""

    def __init__(self) -> None:
        self._head: dict[str, object] = {}
        self._choices: dict[int, object] = {}
        self._latest = 0
        self._totals: dict[int, dict[str, object]] = {}
        self._shares: dict[int, dict[str, object]] = {}

    @override
    def add(self, event: dict[str, object]) -> None:
        """Take one chunk; what is not a chunk is ignored (llama.cpp really sends ``data: null``)."""
        if not isinstance(event, dict):
            return
        listed = event.get("choices")
        choices = [choice for choice in listed if isinstance(choice, dict)] if isinstance(listed, list) else []
        for choice in choices:
            self._latest = item_index(choice) or 0
            fields = self.choice(choice, self._latest)
            self._choices[self._latest] = fold(self._choices.get(self._latest), fields)
        for name, value in event.items():
            if name not in _CHUNK_ONLY and (value is not None or name not in self._head):
                self._head[name] = value
        measured = {name: event[name] for name in _MEASURED if event.get(name) is not None}
        if measured:
            (self._shares if choices else self._totals)[self._latest] = measured

    def choice(self, choice: dict[str, Any], number: int) -> dict[str, Any]:  # noqa: ARG002 - a subclass looks at it
        """What to fold of choice ``number``."""
        return choice

    def head(self) -> dict[str, object]:
        """The fields beside the choices: the last value that is not null of each."""
        # A chunk without choices reports for the whole answer, unless there are several: llama.cpp reports each choice
        # after its end (or, for completions, on its last chunk) and its non-stream answer has the first one's.
        reports = self._totals or self._shares
        return {**self._head, **reports[min(reports)]} if reports else dict(self._head)

    def choices(self) -> list[dict[str, Any]]:
        """The choices, in order, each with the fields that every non-stream choice has."""
        found = []
        for index in sorted(self._choices):
            choice = whole(self._choices[index])
            found.append({"finish_reason": None, **choice, "index": index})
        return found


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

    @override
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

    @override
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

    Its index only said which deltas belong together, and its arguments are JSON.
    """
    if not isinstance(call, dict):
        return call
    whole = {name: value for name, value in call.items() if name != "index"}
    function = whole.get("function")
    if isinstance(function, dict) and no_arguments(str(function.get("arguments") or "")):
        whole["function"] = {**function, "arguments": "{}"}
    return whole
