"""Half characters: servers that cut text by UTF-16 units send an emoji as two escapes, each in an event of its own.

In: events that a strict parser refuses. Out: them decoded, each half with the one that it belongs to. Must not: be
asked for events that a strict parser takes; let a half through, which nobody could write as UTF-8.
"""

import json
import re
from typing import Any

from edge.protocol.json_text import loads

# The escape of half a character; whole ones are two of them, so that finding one proves nothing yet.
HALF = re.compile(rb"\\u[dD][89a-fA-F]")

_LONE = re.compile("[\ud800-\udfff]")
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"


class Halves:
    """Decodes the events of one stream; it holds the first halves that have come so far."""

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], str] = {}  # by the place of the text that they end

    def loads(self, data: bytes) -> Any:
        """The event's JSON.

        Raises:
            ValueError: it is none, for another reason too.
        """
        try:
            if HALF.search(data) is None:
                value = loads(data)
                if isinstance(value, float):
                    raise ValueError("a bare NaN is no event")
                return value
            return self._joined(json.loads(data.decode()), ())
        except RecursionError:
            raise ValueError("nested too deep") from None

    def _joined(self, value: Any, place: tuple[object, ...]) -> Any:
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, list):
            return [self._joined(item, place) for item in value]
        if isinstance(value, dict):
            inside = (*place, value.get("index") if isinstance(value.get("index"), int) else None)
            return {self._bare(name): self._joined(item, (*inside, name)) for name, item in value.items()}
        return value

    def _text(self, text: str, place: tuple[object, ...]) -> str:
        if not text:
            return text
        text = self._held.pop(place, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[place], text = text[-1], text[:-1]
        return self._bare(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))

    def _bare(self, text: str) -> str:
        """What is left as half a character belongs to nothing."""
        return _LONE.sub(_UNKNOWN, text)
