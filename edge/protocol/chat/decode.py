"""Chat chunks read into canonical events.

In: decoded chunks. Out: canonical events. Must not: raise on any JSON that an upstream sends.
"""

from typing import Any

from typing_extensions import override

from edge.protocol import finish_reasons
from edge.protocol.batch import Usage
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
from edge.protocol.json_text import dumps
from edge.protocol.message_content import read_content
from edge.protocol.openai_usage import read_usage
from edge.protocol.tool_calls import Arguments, CallNumbers
from edge.protocol.transcode_ports import Decoder


class ChatDecoder(Decoder):
    """A ``transcode_ports.Decoder`` of chunks."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._started = False
        self.unreadable = ""
        self._calls: dict[int, _Calls] = {}  # of each choice

    @override
    def add(self, event: dict[str, object]) -> None:
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

    @override
    def whole(self, answer: dict[str, object]) -> Usage | None:
        choices = answer.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        self._start(answer)
        for choice in in_order(choices):
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
        likely = choice.get("logprobs")
        if likely and isinstance(likely, dict):
            self._likely(likely, index)
        if isinstance(delta, dict):
            self._delta(delta, index)
        finish = choice.get("finish_reason")
        if finish:
            stopped = choice.get("stop_reason")  # vLLM: the stop sequence, or the number of a token
            means = finish_reasons.reason(finish)
            called = self._calls[index].end() if index in self._calls else []
            self.events += called
            if means == "tool_calls" and (index not in self._calls or not self._calls[index].announced):
                means = "stop"  # a client that waits for a call would wait for ever
            self.events.append(Finish(means, stopped if isinstance(stopped, str) else None, index))

    def _delta(self, delta: dict[str, Any], index: int) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if thought and isinstance(thought, str):
            self.events.append(Reasoning(thought, "", index))
        content = delta.get("content")
        if content:
            self._content(content, index)
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
                self.events += self._calls_of(index).add(call)
        old = delta.get("function_call")
        if isinstance(old, dict):
            self.events += self._calls_of(index).add({"index": 0, "function": old})

    def _calls_of(self, index: int) -> "_Calls":
        calls = self._calls.get(index)
        if calls is None:
            calls = self._calls[index] = _Calls(index)
        return calls

    def _likely(self, fields: dict[str, Any], index: int) -> None:
        lists = [fields.get(name) for name in ("content", "refusal")]
        tokens = [token for each in lists if isinstance(each, list) for token in each if isinstance(token, dict)]
        if tokens:
            self.events.append(Logprobs(tokens, index))

    def _content(self, content: object, index: int) -> None:
        said = read_content(content)
        if said.unknown:
            self.unreadable = f"content that is {said.unknown}"
        if said.thought:
            self.events.append(Reasoning(said.thought, "", index))
        if said.text:
            self.events.append(Text(said.text, index))


def in_order(choices: list[object]) -> list[dict[str, Any]]:
    """The choices of a whole answer by their index, which need not be their place; without one it is their place."""
    placed = [(place, choice) for place, choice in enumerate(choices) if isinstance(choice, dict)]
    numbered = [choice if isinstance(choice.get("index"), int) else {**choice, "index": at} for at, choice in placed]
    return sorted(numbered, key=lambda choice: choice["index"])


class _Call:
    """One call: announced when its name is known; what comes before that waits."""

    __slots__ = ("announced", "arguments", "held", "id", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.id = ""
        self.announced = False
        self.arguments = Arguments()
        self.held = ""


class _Calls:
    """The calls of one choice."""

    def __init__(self, choice: int) -> None:
        self._choice = choice
        self._numbers = CallNumbers()
        self._calls: dict[int, _Call] = {}

    @property
    def announced(self) -> bool:
        """Whether there is any call."""
        return any(call.announced for call in self._calls.values())

    def add(self, delta: dict[str, Any]) -> list[Event]:
        """The events of one delta."""
        number = self._numbers.number(delta)
        call = self._calls.get(number)
        if call is None:
            call = self._calls[number] = _Call(len(self._calls))
        function = delta.get("function")
        function = function if isinstance(function, dict) else {}
        identity, name, arguments = delta.get("id"), function.get("name"), function.get("arguments")
        if isinstance(identity, str) and identity and not call.id:
            call.id = identity
        events: list[Event] = []
        if name and isinstance(name, str) and not call.announced:
            events += self._announce(call, name)
        if isinstance(arguments, dict):
            arguments = dumps(arguments).decode()
        if arguments and isinstance(arguments, str):
            events += self._argue(call, call.arguments.add(arguments))
        return events

    def end(self) -> list[Event]:
        """What is still to be said when the choice ends: calls without a name, calls without arguments."""
        events: list[Event] = []
        for call in self._calls.values():
            rest = call.arguments.end()
            if call.announced or call.held or rest != "{}":
                events += [] if call.announced else self._announce(call, "")
                events += self._argue(call, rest)
        return events

    def _announce(self, call: _Call, name: str) -> list[Event]:
        call.announced = True
        held, call.held = call.held, ""
        return [ToolCallStart(call.number, call.id, name, self._choice), *self._argue(call, held)]

    def _argue(self, call: _Call, json: str) -> list[Event]:
        if not call.announced:
            call.held += json
            return []
        return [ToolCallArguments(call.number, json, self._choice)] if json else []
