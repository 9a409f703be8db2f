"""A Messages stream written and read in a test: its payloads, and what they come to, whatever their pieces.

In: canonical events. Out: payloads that have been found well-formed, or values to compare.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from edge.protocol.batch import Usage
from edge.protocol.events import (
    Annotation,
    Event,
    Reasoning,
    Text,
    ToolCallArguments,
    ToolCallStart,
)
from edge.protocol.messages.collect import MessagesCollector
from edge.protocol.messages.encode import MessagesEncoder
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode_ports import Answering

CITED = {"type": "char_location", "cited_text": "x", "document_index": 0, "start_char_index": 0, "end_char_index": 1}


def encoder() -> MessagesEncoder:
    body = {"model": "m", "max_tokens": 9, "messages": [], "stream": True}
    return MessagesEncoder(Answering(prepare(Surface.MESSAGES, orjson.dumps(body)), "0123456789abcdef" * 2, 1))


def written(events: Iterable[Event], usage: Usage | None = None) -> list[dict[str, Any]]:
    """The payloads of a whole answer, after a look at their names and their order."""
    writer = encoder()
    pieces = [piece for event in events for piece in writer.add(event)] + writer.end(usage)
    assert all(name == payload["type"] for name, payload in pieces)
    payloads: list[Any] = [orjson.loads(orjson.dumps(payload)) for _, payload in pieces]
    assert_well_formed(payloads)
    return payloads


def assert_well_formed(payloads: list[dict[str, Any]]) -> None:
    """Start, blocks numbered from 0 and open one at a time, one message_delta at the end."""
    kinds = [payload["type"] for payload in payloads]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_delta"
    assert "message_start" not in kinds[1:]
    assert "message_delta" not in kinds[:-1]
    opened, latest = False, -1
    for payload in payloads[1:-1]:
        if payload["type"] == "content_block_start":
            latest += 1
        assert opened is (payload["type"] != "content_block_start")
        opened = payload["type"] != "content_block_stop"
        assert payload["index"] == latest
    assert not opened


def message(events: Iterable[Event], usage: Usage | None = None) -> Any:
    collector = MessagesCollector()
    for payload in written(events, usage):
        collector.add(payload)
    return collector.answer()


def call(number: int, *pieces: str) -> list[Event]:
    """A tool call, its arguments in pieces."""
    return [ToolCallStart(number, f"c{number}", "f"), *(ToolCallArguments(number, piece) for piece in pieces)]


class Shape:
    """What an answer is made of: blocks in the order in which they began, and single events in theirs."""

    def __init__(self, events: Iterable[Event], *, ids: bool = True) -> None:
        self.blocks: list[list[Any]] = []
        self._calls: dict[int, list[Any]] = {}
        self._ids = ids
        for event in events:
            self._add(event)
        for found in self._calls.values():
            found[-1] = _parsed(found[-1])

    def _add(self, event: Event) -> None:
        match event:
            case ToolCallStart(number, identity, name):
                self._calls[number] = ["call", identity if self._ids else "", name, ""]
                self.blocks.append(self._calls[number])
            case ToolCallArguments(number, json):
                self._calls[number][-1] += json
            case Text(text):
                self._last("text", "", [])[1] += text
            case Annotation(data):
                self._last("text", "", [])[2].append(data)
            case Reasoning(text, signature):
                block = self._last("thought", "", "")
                if block[2]:  # it is signed
                    block = ["thought", "", ""]
                    self.blocks.append(block)
                block[1] += text
                block[2] = signature
            case _:
                self.blocks.append(["event", event])

    def _last(self, kind: str, *empty: Any) -> list[Any]:
        if self.blocks[-1][0] != kind:
            self.blocks.append([kind, *empty])
        return self.blocks[-1]


def shape(events: Iterable[Event], *, ids: bool = True) -> list[Any]:
    """See ``Shape``; without ``ids`` the calls of two answers to one request are alike."""
    return Shape(events, ids=ids).blocks


def _parsed(arguments: str) -> Any:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return {"INVALID_JSON": arguments}
