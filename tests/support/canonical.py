"""Comparing what answers come to, event by event or as a whole; and what encoders are told to make them.

In: canonical events. Out: values that are equal where the answers are. Must not: encode or decode.
"""

from collections.abc import Iterable
from typing import Any

import orjson

from edge.protocol.dialects import SPECS
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
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.protocol.transcode_ports import Answering

Gist = dict[tuple[object, ...], Any]


def gist(events: Iterable[Event]) -> Gist:
    """What an answer comes to, for whom the order of its different parts is nothing."""
    found: Gist = {}
    for event in events:
        match event:
            case Start(model):
                found["model",] = model
            case Annotation(data, choice):
                found.setdefault((choice, "annotations"), []).append(data)
            case ToolCallStart(call, identity, name, choice):
                found[choice, call] = (identity, name)
            case ToolCallArguments(call, json, choice):
                _lengthen(found, (choice, call, "arguments"), json)
            case Finish(reason, stopped, choice):
                found[choice, "finish"] = (reason, stopped)
            case Reasoning(text, signature, choice):
                _lengthen(found, (choice, "signature" if signature else "reasoning"), signature or text)
            case Text(text, choice) | Refusal(text, choice):
                _lengthen(found, (choice, type(event).__name__), text)
    # Text of JSON may be spelled in more than one way.
    return {key: orjson.loads(held) if key[-1] == "arguments" else held for key, held in found.items()}


def _lengthen(found: Gist, key: tuple[object, ...], piece: str) -> None:
    found[key] = found.get(key, "") + piece


def joined(events: Iterable[Event]) -> list[Event]:
    """The events, with pieces of the same thing that follow each other made one."""
    told: list[Event] = []
    for event in events:
        last = told[-1] if told else None
        match last, event:
            case (Text(a, at), Text(b, to)) if at == to:
                told[-1] = Text(a + b, at)
            case (Refusal(a, at), Refusal(b, to)) if at == to:
                told[-1] = Refusal(a + b, at)
            case (Reasoning(a, "", at), Reasoning(b, "", to)) if at == to:
                told[-1] = Reasoning(a + b, "", at)
            case (ToolCallArguments(n, a, at), ToolCallArguments(m, b, to)) if (n, at) == (m, to):
                told[-1] = ToolCallArguments(n, a + b, at)
            case _:
                told.append(event)
    return told


# A request in each surface that generates, which any upstream could answer.
ASKED: dict[Surface, dict[str, Any]] = {
    Surface.CHAT: {"messages": [{"role": "user", "content": "hi"}], "stream_options": {"include_usage": True}},
    Surface.COMPLETIONS: {"prompt": "hi", "stream_options": {"include_usage": True}},
    Surface.MESSAGES: {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9},
    Surface.RESPONSES: {"input": "hi"},
    Surface.OLLAMA_CHAT: {"messages": [{"role": "user", "content": "hi"}]},
    Surface.OLLAMA_GENERATE: {"prompt": "hi"},
    Surface.SESSION: {"message": "hi"},
}


def answering(surface: Surface, choices: int = 1) -> Answering:
    """What an encoder is told of such a request; always with the same id and time."""
    body = {"model": "asked", "stream": True, **ASKED[surface], **({"n": choices} if choices > 1 else {})}
    prepared = prepare(surface, orjson.dumps(body))
    return Answering(
        prepared, "0123456789abcdef" * 2, 1_700_000_000, SPECS[surface].parse(orjson.loads(prepared.body)).echo
    )
