"""Anthropic Messages as canonical events, both ways.

In: decoded payloads of a Messages stream, or canonical events. Out: the other. Must not: raise on any JSON of an
upstream's, or send a block that is not closed before the next one begins.
"""

from typing import Any

import orjson

from edge.errors import EdgeError
from edge.protocol.batch import Usage
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
from edge.protocol.messages import PING, read_usage
from edge.protocol.shapes import anthropic_body
from edge.protocol.sse import encode
from edge.protocol.transcoding import Answering, Piece

_REASONS: dict[object, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_SPELLED: dict[Reason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_MARK = "0c3f1f3e"  # stands for a text; nothing behind it can hold it


class MessagesDecoder:
    """A ``transcoding.Decoder`` of Messages events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._calls: dict[object, int] = {}  # number of the call by index of its block

    def add(self, event: dict[str, object]) -> None:
        """See ``transcoding.Decoder``."""
        if not isinstance(event, dict):
            return
        match event.get("type"):
            case "message_start":
                message = event.get("message")
                model = message.get("model") if isinstance(message, dict) else None
                self.events.append(Start(model if isinstance(model, str) else ""))
            case "content_block_start":
                block = event.get("content_block")
                if isinstance(block, dict):
                    self._block(event.get("index"), block)
            case "content_block_delta":
                delta = event.get("delta")
                if isinstance(delta, dict):
                    self._delta(event.get("index"), delta)
            case "message_delta":
                self._finish(event.get("delta"))

    def answer(self) -> dict[str, object]:
        """Nothing: it is the encoder's collector that has the answer."""
        return {}

    def whole(self, answer: dict[str, object]) -> Usage | None:
        """See ``transcoding.Decoder``."""
        content = answer.get("content")
        if not isinstance(content, list):
            return None
        self.add({"type": "message_start", "message": answer})
        for index, block in enumerate(content):
            if isinstance(block, dict):
                self._block(index, block)
        self._finish(answer)
        usage = answer.get("usage")
        return read_usage(usage) if isinstance(usage, dict) else None

    def _block(self, index: object, block: dict[str, Any]) -> None:
        """A block begins; in a whole answer it is all there."""
        match block.get("type"):
            case "text":
                self._say(Text, block.get("text"))
            case "thinking":
                self._say(Reasoning, block.get("thinking"))
                self._sign(block.get("signature"))
            case "tool_use":
                call = self._calls[index] = len(self._calls)
                identity, name, given = block.get("id"), block.get("name"), block.get("input")
                self.events.append(
                    ToolCallStart(
                        call,
                        identity if isinstance(identity, str) else "",
                        name if isinstance(name, str) else "",
                    )
                )
                if given and isinstance(given, dict):
                    self.events.append(ToolCallArguments(call, orjson.dumps(given).decode()))

    def _delta(self, index: object, delta: dict[str, Any]) -> None:
        match delta.get("type"):
            case "text_delta":
                self._say(Text, delta.get("text"))
            case "thinking_delta":
                self._say(Reasoning, delta.get("thinking"))
            case "signature_delta":
                self._sign(delta.get("signature"))
            case "input_json_delta":
                piece = delta.get("partial_json")
                if piece and isinstance(piece, str) and index in self._calls:
                    self.events.append(ToolCallArguments(self._calls[index], piece))
            case "citations_delta":
                citation = delta.get("citation")
                if isinstance(citation, dict):
                    self.events.append(Annotation(citation))

    def _finish(self, said: object) -> None:
        reason = said.get("stop_reason") if isinstance(said, dict) else None
        if reason:
            sequence = said.get("stop_sequence") if isinstance(said, dict) else None
            found = sequence if isinstance(sequence, str) else None
            self.events.append(Finish(_REASONS.get(reason, "stop"), found))

    def _say(self, kind: type[Text] | type[Reasoning], text: object) -> None:
        if text and isinstance(text, str):
            self.events.append(kind(text))

    def _sign(self, signature: object) -> None:
        if signature and isinstance(signature, str):
            self.events.append(Reasoning("", signature))


class MessagesEncoder:
    """A ``transcoding.Encoder`` of Messages: one block open at a time, closed before the next.

    Upstreams may interleave the pieces of several calls: what comes before the open call's arguments are whole waits.
    """

    terminator = b""  # ``message_stop`` is part of the end

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._index = -1  # of the block that is open, or was last
        self._kind = ""  # of the block that is open; empty if none is
        self._call = -1  # whose block is open
        self._arguments: list[str] = []  # of that call, so far
        self._waiting: list[Event] = []
        self._finish: Finish | None = None
        self._called = False

    def add(self, event: Event) -> list[Piece]:
        """See ``transcoding.Encoder``."""
        if isinstance(event, Finish):
            self._finish = event
            return []
        mine = isinstance(event, ToolCallArguments) and event.call == self._call
        if not mine and (self._waiting or (self._kind == "tool_use" and not self._whole())):
            self._waiting.append(event)
            return []
        return self._say(event)

    def _whole(self) -> bool:
        """The open call's arguments are complete."""
        try:
            orjson.loads("".join(self._arguments))
        except orjson.JSONDecodeError:
            return False
        return True

    def _say(self, event: Event) -> list[Piece]:
        match event:
            case Text(text) | Refusal(text):
                return [*self._in("text", {"type": "text", "text": ""}), self._delta("text", text)]
            case Reasoning(text, signature):
                return self._think(text, signature)
            case ToolCallArguments(_, json):
                self._arguments.append(json)
                return [self._json(json)]
            case Start(model):
                return [self._start(model)]
            case ToolCallStart():
                return self._begin_call(event)
        return []  # citations are in the provider's own spelling, which no other surface shares

    def text_ends(self) -> tuple[bytes, bytes] | None:
        """See ``transcoding.Encoder``: as long as a block of text is open."""
        if self._kind != "text":
            return None
        before, _, after = self.frame(self._delta("text", _MARK)).rpartition(_MARK.encode())
        return before, after

    def end(self, usage: Usage | None) -> list[Piece]:
        """See ``transcoding.Encoder``."""
        pieces = self._said_late()
        pieces += self._close()
        finish = self._finish or Finish("stop")
        reason = _SPELLED[finish.reason]
        if reason == "end_turn" and self._called:
            reason = "tool_use"  # Ollama says "stop" after tool calls too
        elif reason == "end_turn" and finish.stop_sequence is not None:
            reason = "stop_sequence"
        delta = {"stop_reason": reason, "stop_sequence": finish.stop_sequence}
        pieces.append(("message_delta", {"type": "message_delta", "delta": delta, "usage": usage_object(usage)}))
        pieces.append(("message_stop", {"type": "message_stop"}))
        return pieces

    def _said_late(self) -> list[Piece]:
        """What had to wait, with the pieces of each call together."""
        waited, self._waiting = self._waiting, []
        pieces: list[Piece] = []
        for event in waited:
            if isinstance(event, ToolCallStart):
                own = [one for one in waited if isinstance(one, ToolCallArguments) and one.call == event.call]
                pieces += self._say(event)
                for one in own:
                    pieces += self._say(one)
            elif not isinstance(event, ToolCallArguments):
                pieces += self._say(event)
        return pieces

    def frame(self, piece: Piece) -> bytes:
        """See ``transcoding.Encoder``."""
        return encode(piece[1], piece[0])

    def heartbeat(self, *, handed_over: bool) -> bytes:  # noqa: ARG002 - a ping fits anywhere
        """See ``transcoding.Encoder``."""
        return PING

    def error_event(self, error: EdgeError, request_id: str) -> bytes:
        """See ``transcoding.Encoder``."""
        return encode(anthropic_body(error, request_id), "error")

    def _start(self, model: str) -> Piece:
        message: dict[str, object] = {
            "id": f"msg_{self._answering.id}",
            "type": "message",
            "role": "assistant",
            "model": model or self._answering.prepared.model or "",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},  # not known yet: ``message_delta`` tells both
        }
        return "message_start", {"type": "message_start", "message": message}

    def _think(self, text: str, signature: str) -> list[Piece]:
        pieces = self._in("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        if text:
            pieces.append(self._delta("thinking", text))
        if signature:
            # It seals the block: what is thought after it is another one.
            pieces += [self._delta("signature", signature), *self._close()]
        return pieces

    def _begin_call(self, event: ToolCallStart) -> list[Piece]:
        identity = event.id or f"toolu_{self._answering.id[:20]}{event.call:02d}"
        block: dict[str, object] = {"type": "tool_use", "id": identity, "name": event.name, "input": {}}
        pieces = [*self._close(), *self._in("tool_use", block)]
        self._call, self._called = event.call, True
        return pieces

    def _in(self, kind: str, block: dict[str, object]) -> list[Piece]:
        """Open a block of this kind, unless it is open."""
        if self._kind == kind:
            return []
        pieces = self._close()
        self._index += 1
        self._kind = kind
        begun = {"type": "content_block_start", "index": self._index, "content_block": block}
        return [*pieces, ("content_block_start", begun)]

    def _close(self) -> list[Piece]:
        if not self._kind:
            return []
        self._kind, self._call = "", -1
        self._arguments.clear()
        return [("content_block_stop", {"type": "content_block_stop", "index": self._index})]

    def _delta(self, name: str, value: str) -> Piece:
        delta = {"type": f"{name}_delta", name: value}
        return "content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _json(self, piece: str) -> Piece:
        delta = {"type": "input_json_delta", "partial_json": piece}
        return "content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta}


def usage_object(usage: Usage | None) -> dict[str, object]:
    """Anthropic's usage object, which leaves out of the input what was read from the cache."""
    if usage is None:
        return {"input_tokens": 0, "output_tokens": 0}
    cached = usage.cached or 0
    told: dict[str, object] = {
        "input_tokens": max(0, (usage.prompt or 0) - cached),
        "output_tokens": usage.completion or 0,
    }
    return {**told, "cache_read_input_tokens": cached} if cached else told
