"""Canonical events as a Messages stream: blocks one after the other, each opened, filled and closed.

In: canonical events. Out: Messages events. Must not: have two blocks open at once. Where the pieces of several tool
calls come mixed, the later call waits until the arguments of the earlier one are whole.

How many tokens the prompt had is only known at the end: ``message_start`` says 0, ``message_delta`` says it.
"""

import re
from collections import deque

from typing_extensions import override

from edge.bounds import TOOL_ARGUMENTS_CHARS
from edge.protocol.batch import Usage
from edge.protocol.dialect import BadStream, Said
from edge.protocol.events import (
    Annotation,
    Event,
    Finish,
    Reasoning,
    Refusal,
    Start,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.messages.format import MessagesFormat, empty_message
from edge.protocol.sse import encode
from edge.protocol.surface_format import Opened, Progress, SurfaceFormat
from edge.protocol.transcode_ports import MARK, Answering, BaseEncoder, Piece

# The citations that the surface knows; those of others cannot be shown.
_CITATIONS = frozenset(
    {
        "char_location", "page_location", "content_block_location", "search_result_location",
        "web_search_result_location",
    }
)  # fmt: skip
_KINDS: dict[Said, str] = {"text": "text", "thought": "thinking"}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
_JSON_MARK = re.compile(r'\\.|[\\"{}\[\]]', re.DOTALL)


class _Block:
    """A content block.

    Attributes:
        waiting: Its deltas, as long as another block is open.
        whole: It can be closed as soon as another one has begun.
        sealed: It has been signed; nothing can be added.
    """

    def __init__(self, kind: str, begun: dict[str, object], *, whole: bool = True) -> None:
        self.kind = kind
        self.begun = {"type": kind, **begun}
        self.waiting: list[dict[str, object]] = []
        self.whole = whole
        self.sealed = False


class _Call(_Block):
    """A tool call, which is whole when its JSON is."""

    def __init__(self, identity: str, name: str) -> None:
        super().__init__("tool_use", {"id": identity, "name": name, "input": {}}, whole=False)
        self._depth = 0
        self._quoted = False
        self._cut = ""  # a backslash whose other half is in the next piece

    def read(self, json: str) -> None:
        """Follow the JSON text from bracket to bracket, each character once."""
        json, self._cut = self._cut + json, ""
        for match in _JSON_MARK.finditer(json):
            mark = match[0]
            if mark == '"':
                self._quoted = not self._quoted
            elif mark == "\\":
                self._cut = mark
            elif not self._quoted and mark in "{[":
                self._depth += 1
            elif not self._quoted and mark in "}]":
                self._depth -= 1
                self.whole = self.whole or self._depth <= 0


class MessagesEncoder(BaseEncoder):
    """A ``transcode_ports.Encoder`` of Messages events."""

    format: type[SurfaceFormat] = MessagesFormat

    def __init__(self, answering: Answering) -> None:
        self._id = answering.id
        self._model = answering.prepared.model or ""
        self._open: _Block | None = None
        self._index = -1  # of the open block, or of the last one
        self._queue: deque[_Block] = deque()  # begun, but not open yet
        self._queued_chars = 0
        self._calls: dict[int, _Call] = {}
        self._refused = False
        self._has_start = False  # the client already has a message_start
        self._finish = Finish("stop")
        self._around: list[bytes] | None = None  # what stands around a text in the open block

    @override
    def add(self, event: Event) -> list[Piece]:  # noqa: PLR0911 - one case per kind of event
        """There is one choice: the surface's clients cannot ask for more."""
        match event:
            case Text(text, 0):
                return self._text({"type": "text_delta", "text": text})
            case Reasoning(text, signature, 0):
                return self._thought(text, signature)
            case ToolCallArguments(call, json, 0):
                return self._argued(self._calls.get(call), json)
            case Start(model):
                self._model = model or self._model
                return [] if self._has_start else [self._started()]
            case ToolCallStart(call, identity, name, 0):
                block = self._calls[call] = _Call(identity or f"toolu_{self._id[:20]}{call:02d}", name)
                return self._begun(block)
            case Refusal(text, 0):
                self._refused = True
                return self._text({"type": "text_delta", "text": text})
            case Annotation(data, 0) if str(data.get("type")) in _CITATIONS:
                return self._text({"type": "citations_delta", "citation": data})
            case Finish(choice=0):
                self._finish = event
                return self._closed()
        return []

    @override
    def plain(self, said: Said, escaped: bytes) -> bytes | None:
        block = self._open
        if block is None or block.sealed or block.kind != _KINDS[said]:
            return None
        if self._around is None:
            (event,) = self.add(Text(MARK) if said == "text" else Reasoning(MARK))
            self._around = self.frame(event).rsplit(MARK.encode(), 1)
        return escaped.join(self._around)

    @override
    def end(self, usage: Usage | None) -> list[Piece]:
        finish = self._finish
        reason, sequence = _STOPS[finish.reason], None
        if finish.reason == "stop":
            # Ollama says "stop" after tool calls too; an SDK's tool loop waits for the other.
            if self._calls:
                reason = "tool_use"
            elif self._refused:
                reason = "refusal"
            elif finish.stop_sequence is not None:
                reason, sequence = "stop_sequence", finish.stop_sequence
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        fields: dict[str, object] = {"type": "message_delta", "delta": delta, "usage": usage_object(usage or Usage())}
        return [*self._closed(), ("message_delta", fields)]

    @override
    def frame(self, piece: Piece) -> bytes:
        return encode(piece[1], piece[0])

    @override
    def begun(self, opened: Opened) -> None:
        self._has_start = True

    @override
    def progress(self) -> Progress:
        return Progress(block=None if self._open is None else (self._index, self._open.kind))

    # --- blocks ---------------------------------------------------------------------------------------------------

    def _started(self) -> Piece:
        message = empty_message(f"msg_{self._id}", self._model)
        return "message_start", {"type": "message_start", "message": message}

    def _text(self, delta: dict[str, object]) -> list[Piece]:
        block = self._last("text")
        if block is not None:
            return self._filled(block, delta)
        block = _Block("text", {"text": ""})
        return [*self._begun(block), *self._filled(block, delta)]

    def _thought(self, text: str, signature: str) -> list[Piece]:
        block, pieces = self._last("thinking"), []
        if block is None:
            block = _Block("thinking", {"thinking": "", "signature": ""})
            pieces = self._begun(block)
        if text:
            pieces += self._filled(block, {"type": "thinking_delta", "thinking": text})
        if signature:
            block.sealed = True
            pieces += self._filled(block, {"type": "signature_delta", "signature": signature})
        return pieces

    def _argued(self, call: _Call | None, json: str) -> list[Piece]:
        """What follows a call that is closed is lost: its JSON is whole without it."""
        if call is None or (call is not self._open and call not in self._queue):
            return []
        call.read(json)
        return [*self._filled(call, {"type": "input_json_delta", "partial_json": json}), *self._advanced()]

    def _last(self, kind: str) -> _Block | None:
        """The block that began last, if it is of this kind and can take more."""
        block = self._queue[-1] if self._queue else self._open
        return block if block is not None and block.kind == kind and not block.sealed else None

    def _begun(self, block: _Block) -> list[Piece]:
        self._queue.append(block)
        return self._advanced()

    def _filled(self, block: _Block, delta: dict[str, object]) -> list[Piece]:
        if block is self._open:
            return [self._delta(delta)]
        block.waiting.append(delta)
        self._queued_chars += sum(len(value) for value in delta.values() if isinstance(value, str))
        if self._queued_chars > TOOL_ARGUMENTS_CHARS:
            raise BadStream(f"over {TOOL_ARGUMENTS_CHARS} characters wait for a tool call's arguments to be whole")
        return []

    def _advanced(self, *, at_last: bool = False) -> list[Piece]:
        """Open what waits, as far as the blocks before it are whole, or whatever they are ``at_last``."""
        pieces: list[Piece] = []
        while self._queue and (self._open is None or self._open.whole or at_last):
            pieces += self._stopped()
            block = self._open = self._queue.popleft()
            self._index += 1
            self._around = None
            begun = {"type": "content_block_start", "index": self._index, "content_block": block.begun}
            pieces.append(("content_block_start", begun))
            pieces += map(self._delta, block.waiting)
            block.waiting = []
        return pieces

    def _closed(self) -> list[Piece]:
        return [*self._advanced(at_last=True), *self._stopped()]

    def _stopped(self) -> list[Piece]:
        if self._open is None:
            return []
        self._open = None
        return [("content_block_stop", {"type": "content_block_stop", "index": self._index})]

    def _delta(self, delta: dict[str, object]) -> Piece:
        return "content_block_delta", {"type": "content_block_delta", "index": self._index, "delta": delta}


def usage_object(usage: Usage) -> dict[str, object]:
    """Anthropic's usage, as far as the upstream's figures go: ``input_tokens`` leaves out what came from a cache."""
    fields: dict[str, object] = {
        "input_tokens": max(0, (usage.prompt or 0) - (usage.cached or 0)),
        "output_tokens": usage.completion or 0,
    }
    if usage.cached is not None:
        fields["cache_read_input_tokens"] = usage.cached
    if usage.reasoning is not None:
        fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    return fields
