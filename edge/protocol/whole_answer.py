"""Answers in one JSON body: whether one is an answer of its surface at all, and the usage that it reports.

In: a body with status 200. Out: what is wrong with it; token counts. Must not: judge what the model said.
"""

import json
import re
from typing import Any

from edge.protocol.batch import Usage
from edge.protocol.finish_reasons import broke, broke_message
from edge.protocol.messages.codec import read_usage as read_anthropic
from edge.protocol.ollama.decode import read_usage as read_ollama
from edge.protocol.openai_usage import read_usage as read_openai
from edge.protocol.surface import OLLAMA, Surface

# The field without which there is no answer, and whether it may be empty.
_NEEDED: dict[Surface, tuple[str, bool]] = {
    Surface.CHAT: ("choices", False),
    Surface.COMPLETIONS: ("choices", False),
    Surface.MESSAGES: ("content", True),
    Surface.RESPONSES: ("output", True),
    Surface.EMBEDDINGS: ("data", True),
}

_USAGE = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
_COUNT = re.compile(rb'(?<!\\)"(prompt_eval_count|eval_count)"\s*:\s*(\d{1,15})')
_LOOKED_AT = 4096  # of a usage object
_ENDS = 65536  # of a body: servers put it first or last


def flaw(surface: Surface, answer: Any) -> str:
    """Why this is no answer; empty if it is one."""
    needed = _NEEDED.get(surface)
    if needed is None:
        return ""
    if not isinstance(answer, dict):
        return "it sent JSON that is no answer"
    name, may_be_empty = needed
    held = answer.get(name)
    if not isinstance(held, list) or not (held or may_be_empty):
        return f"it sent an answer without {name}"
    if name == "choices":
        finishes = [choice.get("finish_reason") for choice in held if isinstance(choice, dict)]
        return next((broke_message(finish) for finish in finishes if broke(finish)), "")
    return ""


def usage_in(surface: Surface, body: bytes) -> Usage | None:
    """The token counts that the body reports, found without parsing it, since embeddings can be megabytes; or None.

    Text that a model wrote is never taken for them: in a JSON string the quotes around a name are escaped.
    """
    ends = body if len(body) <= 2 * _ENDS else body[:_ENDS] + body[-_ENDS:]
    if surface in OLLAMA:
        counts = {name.decode(): int(value) for name, value in _COUNT.findall(ends)}
        return read_ollama(counts) if counts else None
    found = [match.end() for match in _USAGE.finditer(ends)]
    if not found:
        return None
    text = ends[found[-1] : found[-1] + _LOOKED_AT].decode("utf-8", "replace")
    try:
        usage, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return (read_anthropic if surface is Surface.MESSAGES else read_openai)(usage)
