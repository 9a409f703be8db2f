"""Builds an Anthropic ``message`` out of the events of a Messages stream.

In: decoded event payloads. Out: the message that the upstream would have given without ``stream``.
Must not: raise on any JSON.
"""

from typing import Any

import orjson
from typing_extensions import override

from edge.protocol.dialect import Collector
from edge.protocol.fold_deltas import fold, item_index, whole
from edge.protocol.json_text import loads


class MessagesCollector(Collector):
    """The collector of ``/v1/messages``."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {"type": "message", "role": "assistant"}
        self._blocks: dict[int, object] = {}
        self._inputs: dict[int, list[str]] = {}

    @override
    def add(self, event: dict[str, object]) -> None:
        """Take one event; pings, ends, unknown types and odd shapes are ignored."""
        if not isinstance(event, dict):
            return
        match event.get("type"):
            case "message_start":
                self._start(event.get("message"))
            case "content_block_start":
                self._start_block(item_index(event), event.get("content_block"))
            case "content_block_delta":
                self._extend_block(item_index(event), event.get("delta"))
            case "message_delta":
                self._finish(event)

    @override
    def answer(self) -> dict[str, object]:
        """The message, with its content blocks in order."""
        return {**self._message, "content": [self._block(index) for index in sorted(self._blocks)]}

    def _start(self, message: object) -> None:
        if isinstance(message, dict):
            self._message.update(message)
            content = message.get("content")
            for index, block in enumerate(content if isinstance(content, list) else []):
                self._start_block(index, block)

    def _start_block(self, index: int | None, block: object) -> None:
        if index is not None and isinstance(block, dict):
            self._blocks[index] = fold(None, block)

    def _extend_block(self, index: int | None, delta: object) -> None:
        if index is None or index not in self._blocks or not isinstance(delta, dict):
            return
        fields = {name: value for name, value in delta.items() if name != "type"}
        partial = fields.pop("partial_json", None)
        if isinstance(partial, str):
            self._inputs.setdefault(index, []).append(partial)
        if "citation" in fields:
            fields["citations"] = [fields.pop("citation")]
        # All other deltas, known or not, name the block's field that they lengthen.
        self._blocks[index] = fold(self._blocks[index], fields)

    def _finish(self, event: dict[str, object]) -> None:
        for name, value in event.items():
            if name == "delta" and isinstance(value, dict):
                self._message.update(value)
            elif name == "usage" and isinstance(value, dict):
                self._count(value)
            elif name not in ("type", "delta", "usage") and value is not None:
                self._message[name] = value

    def _count(self, usage: dict[str, object]) -> None:
        """Figures are cumulative: the later one wins, field by field."""
        held = self._message.get("usage")
        newer = {name: value for name, value in usage.items() if value is not None}
        self._message["usage"] = {**(held if isinstance(held, dict) else {}), **newer}

    def _block(self, index: int) -> dict[str, Any]:
        block: dict[str, Any] = whole(self._blocks[index])
        streamed = "".join(self._inputs.get(index, []))
        if streamed:
            block["input"] = _parsed(streamed)
        elif str(block.get("type", "")).endswith("tool_use"):
            block.setdefault("input", {})
        return block


def _parsed(text: str) -> object:
    """A tool's input; what is not JSON (cut by max_tokens) is kept under the key that Anthropic's guide suggests."""
    try:
        return loads(text)
    except orjson.JSONDecodeError:
        return {"INVALID_JSON": text} if text.strip() else {}
