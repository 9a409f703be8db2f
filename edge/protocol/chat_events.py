"""Chat completions as canonical events, both ways.

In: decoded chunks, or canonical events. Out: the other. Must not: raise on any JSON of an upstream's.
"""

from typing import Any

from edge.errors import EdgeError
from edge.protocol import finish_reasons
from edge.protocol.batch import Usage
from edge.protocol.chat import read_usage
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
from edge.protocol.json_text import dumps
from edge.protocol.message_content import read_content
from edge.protocol.shapes import openai_body
from edge.protocol.sse import COMMENT_HEARTBEAT, DONE, encode
from edge.protocol.tool_calls import Arguments, CallNumbers
from edge.protocol.transcoding import MARK, Answering, BaseEncoder, Piece


class ChatDecoder:
    """A ``transcoding.Decoder`` of chunks."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._started = False
        self.unreadable = ""
        self._calls: dict[int, _Calls] = {}  # of each choice

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

    def _likely(self, told: dict[str, Any], index: int) -> None:
        lists = [told.get(name) for name in ("content", "refusal")]
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


class ChunkEncoder(BaseEncoder):
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

    def heartbeat(self, *, lively: bool) -> bytes:  # noqa: ARG002 - a comment fits anywhere
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
        self._around: dict[Said, list[bytes]] = {}  # what stands around a text
        self._called: set[int] = set()  # choices with tool calls
        self._logprobs: dict[int, list[dict[str, Any]]] = {}  # of each choice: those of the text that comes next

    def add(self, event: Event) -> list[Piece]:  # noqa: PLR0911 - one case per kind of event
        """See ``transcoding.Encoder``."""
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

    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        """See ``transcoding.Encoder``."""
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
