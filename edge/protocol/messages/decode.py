"""The events of a Messages stream as canonical events.

In: decoded payloads. Out: canonical events. Must not: raise on any JSON of an upstream's.

What runs at Anthropic itself (its own search, its own code) is left out, as is thought that only Anthropic can read: no
other surface has a place for them.
"""

from typing import Any

from typing_extensions import override

from edge.protocol.batch import Usage
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reason,
    Reasoning,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.fold_deltas import item_index
from edge.protocol.json_text import dumps
from edge.protocol.messages.codec import read_usage
from edge.protocol.tool_calls import Arguments
from edge.protocol.transcode_ports import Decoder

_REASONS: dict[object, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # not whole either: Anthropic would go on if it were asked to
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
# What each kind of delta brings, by the name of its field.
_DELTAS = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "signature",
    "input_json_delta": "partial_json",
    "citations_delta": "citation",
}


class MessagesDecoder(Decoder):
    """A ``transcode_ports.Decoder`` of Messages events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.unreadable = ""
        self._calls: dict[int | None, int] = {}  # by the index of a block that is a tool call
        self._arguments: dict[int | None, Arguments] = {}  # of those that are open

    @override
    def add(self, event: dict[str, object]) -> None:
        if not isinstance(event, dict):
            return
        delta = event.get("delta")
        if event.get("type") == "content_block_delta" and isinstance(delta, dict):
            self._delta(item_index(event), delta)
            return
        match event:
            case {"type": "content_block_start", "content_block": dict(block)}:
                self._block(item_index(event), block)
            case {"type": "content_block_stop"}:
                self._stop(item_index(event))
            case {"type": "message_start", "message": dict(message)}:
                self._start(message)
            case {"type": "message_delta", "delta": dict(delta)}:
                self._finish(delta)

    def answer(self) -> dict[str, object]:
        """Nothing: it is the encoder's collector that has the answer."""
        return {}

    @override
    def whole(self, answer: dict[str, object]) -> Usage | None:
        content = answer.get("content")
        if not isinstance(content, list):
            return None
        self._start(answer)
        for index, block in enumerate(content):
            if isinstance(block, dict):
                self._block(index, block)
                self._stop(index)
        self._finish(answer)
        usage = answer.get("usage")
        return read_usage(usage) if isinstance(usage, dict) else None

    def _start(self, message: dict[str, Any]) -> None:
        model = message.get("model")
        self.events.append(Start(model if isinstance(model, str) else ""))

    def _block(self, index: int | None, block: dict[str, Any]) -> None:
        """The beginning of a block, or all of it."""
        match block:
            case {"type": "tool_use"}:
                call = self._calls[index] = len(self._calls)
                self._arguments[index] = Arguments()
                identity, name, given = block.get("id"), block.get("name"), block.get("input")
                self.events.append(
                    ToolCallStart(
                        call, identity if isinstance(identity, str) else "", name if isinstance(name, str) else ""
                    )
                )
                if given and isinstance(given, dict):
                    self._argue(index, dumps(given).decode())
            case {"type": "text" | "thinking" as kind}:
                self._delta(index, {"type": f"{kind}_delta", kind: block.get(kind)})
                if block.get("signature"):
                    self._delta(index, {"type": "signature_delta", "signature": block["signature"]})
                cited = block.get("citations")
                for citation in cited if isinstance(cited, list) else ():
                    self._delta(index, {"type": "citations_delta", "citation": citation})

    def _delta(self, index: int | None, delta: dict[str, Any]) -> None:
        name = _DELTAS.get(str(delta.get("type")), "")
        held = delta.get(name)
        if name == "citation":
            if isinstance(held, dict):
                self.events.append(Annotation(held))
        elif not held or not isinstance(held, str):
            return
        elif name == "text":
            self.events.append(Text(held))
        elif name == "thinking":
            self.events.append(Reasoning(held))
        elif name == "signature":
            self.events.append(Reasoning("", held))
        elif index in self._arguments:
            self._argue(index, held)

    def _argue(self, index: int | None, piece: str) -> None:
        self._emit(index, self._arguments[index].add(piece))

    def _emit(self, index: int | None, json: str) -> None:
        if json:
            self.events.append(ToolCallArguments(self._calls[index], json))

    def _stop(self, index: int | None) -> None:
        """A call without arguments has none in any piece; elsewhere their text is parsed, and must be JSON."""
        arguments = self._arguments.pop(index, None)
        if arguments is not None:
            self._emit(index, arguments.end())

    def _finish(self, said: dict[str, Any]) -> None:
        reason, sequence = said.get("stop_reason"), said.get("stop_sequence")
        if reason:
            known = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
            if known == "tool_calls" and not self._calls:
                known = "stop"
            self.events.append(Finish(known, sequence if isinstance(sequence, str) else None))
