"""What an answer of one JSON body says that it has cost, found without parsing it: embeddings can be megabytes.

In: the body, in the client's surface. Out: token counts, or None. Must not: take text that a model wrote for it: in a
JSON string the quotes around a name are escaped.
"""

import json
import re

from edge.protocol.batch import Usage
from edge.protocol.messages.codec import read_usage as read_anthropic
from edge.protocol.ollama.decode import read_usage as read_ollama
from edge.protocol.openai_usage import read_usage as read_openai
from edge.protocol.surface import OLLAMA, Surface

_USAGE = re.compile(rb'(?<!\\)"usage"\s*:\s*(?=\{)')
_COUNT = re.compile(rb'(?<!\\)"(prompt_eval_count|eval_count)"\s*:\s*(\d{1,15})')
_LOOKED_AT = 4096  # of a usage object
_ENDS = 65536  # of a body: servers put it first or last


def usage_in(surface: Surface, body: bytes) -> Usage | None:
    """The counts; None where it says nothing of them."""
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
