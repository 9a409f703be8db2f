"""Cuts a chat chunk that is too long for one line into several of the same shape.

In: a decoded chunk, or a run of events. Out: chunks that fold into the same answer, or where a long line is. Must not:
cut anything but text that clients join: an inline image stays as long as it is.

Clients that read a stream by lines with aiohttp die of one over 128 KiB: https://github.com/open-webui/open-webui/issues/10302,
#17626, #19800.
"""

from collections.abc import Iterator
from typing import Any

from edge.protocol.json_text import dumps

Chunk = dict[str, Any]

LONG_LINE = 48 * 1024  # bytes; no line of text gets longer
_PIECE = LONG_LINE // 3  # a piece of reasoning may be told under both its names

_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
_TEXTS = ("reasoning_content", "reasoning", "content", "refusal")  # in the order in which a model says them


def head_of(chunk: Chunk) -> Chunk:
    """The fields that all chunks of a stream have."""
    return {name: chunk[name] for name in _HEAD if name in chunk}


def has_long_line(run: bytes) -> bool:
    """Whether a line in it is over ``LONG_LINE``."""
    return long_line(run, 0) < len(run)


def long_line(run: bytes, start: int) -> int:
    """Where from ``start`` on the first line over ``LONG_LINE`` begins; the end if there is none.

    It leaps from line end to line end as far as it may: some 0.2 µs for 48 KiB. A lone CR is no line end here, so
    that too much is found where a server uses those.
    """
    while len(run) - start > LONG_LINE:
        after = run.rfind(b"\n", start, start + LONG_LINE + 1) + 1
        if not after:
            return start
        start = after
    return len(run)


def split(chunk: Chunk) -> list[Chunk]:
    """The same, for a chunk with choices, in chunks of one piece of text each; itself if there is no text to cut."""
    pieces = [piece for choice in chunk["choices"] for piece in _pieces(choice)]
    if len(pieces) < 2:
        return [chunk]
    head = head_of(chunk)
    parts = [{**head, "choices": [piece]} for piece in pieces]
    # What is told once is told first, but for the count of all of it.
    parts[0] = {**{name: value for name, value in chunk.items() if name != "usage"}, **parts[0]}
    if "usage" in chunk:
        parts[-1]["usage"] = chunk["usage"]
    return parts


def _pieces(choice: Any) -> Iterator[Any]:
    """A choice in pieces: the first has whatever is not text, the last has how it ends."""
    delta = choice.get("delta") if isinstance(choice, dict) else None
    deltas = list(_deltas(delta)) if isinstance(delta, dict) else []
    if len(deltas) < 2:
        yield choice
        return
    plain = {"index": choice.get("index", 0), "finish_reason": None}
    yield {**choice, "delta": deltas[0], "finish_reason": None}
    for piece in deltas[1:-1]:
        yield {**plain, "delta": piece}
    ends = {name: choice[name] for name in ("finish_reason", "stop_reason") if name in choice}
    yield {**plain, "delta": deltas[-1], **ends}


def _deltas(delta: Chunk) -> Iterator[Chunk]:
    rest = dict(delta)
    pieces: list[Chunk] = []
    for name in _TEXTS:
        text = rest.get(name)
        if text and isinstance(text, str):
            # Reasoning that is told under both names stays so: who reads either must not be told it twice.
            names = [other for other in _TEXTS if rest.get(other) == text]
            for other in names:
                del rest[other]
            pieces += [dict.fromkeys(names, piece) for piece in cut(text)]
    calls = rest.get("tool_calls")
    if isinstance(calls, list):
        begun, pieces_of_calls = _calls(calls)
        rest["tool_calls"] = begun
        pieces += pieces_of_calls
    if any(rest.values()):
        yield rest
    yield from pieces


def _calls(calls: list[Any]) -> tuple[list[Any], list[Chunk]]:
    """The calls without their arguments, and these in pieces."""
    begun: list[Any] = []
    pieces: list[Chunk] = []
    for call in calls:
        function = call.get("function") if isinstance(call, dict) else None
        arguments = function.get("arguments") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(arguments, str):
            begun.append(call)
            continue
        begun.append({**call, "function": {**function, "arguments": ""}})
        whose = {"index": call["index"]} if "index" in call else {}
        pieces += [{"tool_calls": [{**whose, "function": {"arguments": piece}}]} for piece in cut(arguments)]
    return begun, pieces


def cut(text: str) -> Iterator[str]:
    """Pieces of a text, cut between code points, that are no longer than ``_PIECE`` as JSON."""
    if len(text) < 2 or len(dumps(text)) <= _PIECE:
        yield text
        return
    half = len(text) // 2
    yield from cut(text[:half])
    yield from cut(text[half:])
