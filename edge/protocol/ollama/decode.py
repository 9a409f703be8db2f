"""Ollama's lines as canonical events.

In: decoded lines. Out: canonical events. Must not: raise on any JSON of an upstream's.
"""

from typing import Any

from typing_extensions import override

from edge.protocol.batch import Usage, count_in
from edge.protocol.events import Event, Finish, Logprobs, Reasoning, Start, Text, ToolCallArguments, ToolCallStart
from edge.protocol.json_text import dumps
from edge.protocol.tool_calls import no_arguments
from edge.protocol.transcode_ports import Decoder


class OllamaDecoder(Decoder):
    """A ``transcode_ports.Decoder`` of the lines of ``/api/chat`` and ``/api/generate``."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unreadable = ""
        self._started = False
        self._calls = 0

    @override
    def add(self, event: dict[str, object]) -> None:
        if not isinstance(event, dict):
            return
        if not self._started:
            self._started = True
            model = event.get("model")
            self.events.append(Start(model if isinstance(model, str) else ""))
        message = event.get("message")
        held, text = (message, "content") if isinstance(message, dict) else (event, "response")
        self._message(held.get("thinking"), held.get(text), held.get("tool_calls"), read_logprobs(event))
        if event.get("done") is True:
            self.events.append(Finish("length" if event.get("done_reason") == "length" else "stop"))

    def answer(self) -> dict[str, object]:
        """Nothing: it is the encoder's collector that has the answer."""
        return {}

    @override
    def whole(self, answer: dict[str, object]) -> Usage | None:
        """A whole answer is one line."""
        if "message" not in answer and "response" not in answer:
            return None
        # Ollama stops a model that repeats itself, and says neither done nor why.
        self.add(answer if answer.get("done") is True else {**answer, "done": True, "done_reason": "length"})
        return read_usage(answer)

    def _message(self, thought: object, content: object, calls: object, logprobs: list[dict[str, Any]] | None) -> None:
        if thought and isinstance(thought, str):
            self.events.append(Reasoning(thought))
        if isinstance(content, str) and (content or (logprobs and not thought and not calls)):
            if logprobs:
                self.events.append(Logprobs(logprobs))
            self.events.append(Text(content))
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._call(call)

    def _call(self, call: dict[str, Any]) -> None:
        """A call comes whole, its arguments as an object."""
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        identity, name, arguments = call.get("id"), function.get("name"), function.get("arguments")
        self.events.append(
            ToolCallStart(
                self._calls,
                identity if isinstance(identity, str) else "",
                name if isinstance(name, str) else "",
            )
        )
        json = arguments if isinstance(arguments, str) else dumps(arguments or {}).decode()
        json = "{}" if no_arguments(json) else json
        self.events.append(ToolCallArguments(self._calls, json))
        self._calls += 1


def read_logprobs(line: dict[str, Any]) -> list[dict[str, Any]] | None:
    """What a line says of its tokens; OpenAI's clients need the alternatives to be there, be it as an empty list."""
    fields = line.get("logprobs")
    if not isinstance(fields, list) or not fields:
        return None
    return [{"top_logprobs": [], **entry} for entry in fields if isinstance(entry, dict)]


def read_usage(line: dict[str, Any]) -> Usage:
    """The counts of a last line."""
    return Usage(prompt=count_in(line, "prompt_eval_count"), completion=count_in(line, "eval_count"))
