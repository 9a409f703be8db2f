"""Whether an Ollama has cut a prompt to its context length, which it does silently and answers with 200.

In: the body that was sent, the limit as far as it is known, and the prompt's length as the server counted it. Out: an
estimate, and a verdict. Must not: tokenise: an estimate is said to be one.

With ``"truncate": false`` an Ollama refuses what does not fit, with exact figures. Else it drops whole old
messages, and cuts what is still too long to the ``num_keep`` tokens at its front and half of the window. Of that a
client learns nothing but the count of what is left. What cannot be seen: a prompt of which little was dropped, where
the count stays below the limit and near the estimate.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edge.protocol.json_text import loads

_BYTES_PER_TOKEN = 4  # English; code and other scripts take more tokens, so the estimate is a low one
_SURE = 1.5  # an estimate this much above what was counted is no error of the estimate
_SMALL = 1024  # no context is smaller, so that shorter prompts need no look
_NUM_KEEP = 4  # Ollama's default
_NO_TEXT = frozenset({"images", "model", "options", "format", "keep_alive"})
_TRUNCATE_SINCE = (0, 12, 6)  # earlier versions do not know the field in /api/chat and /api/generate
_DEVELOPMENT = (0, 0, 0)  # what a build from sources calls itself
_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a prompt before it is answered, in tokens.

    Attributes:
        limit: The context length that was asked for; 0 if the server chose it.
        estimate: Of the prompt's length.
        keep: How many at its front are never cut.
        refused: The server was asked to refuse it if it does not fit.
    """

    limit: int
    estimate: int
    keep: int = _NUM_KEEP
    refused: bool = False

    @property
    def too_long(self) -> bool:
        """The prompt cannot fit."""
        return 0 < self.limit < self.estimate

    def cut(self, counted: int | None) -> bool:
        """Whether the prompt was cut, now that the server has counted ``counted`` tokens."""
        if counted is None:
            return self.too_long
        shrunk = self.estimate > _SURE * counted
        if not self.limit:
            return counted >= _SMALL and shrunk
        halved = self.limit - (self.limit - self.keep) // 2
        return self.too_long or counted >= self.limit or shrunk or (counted == halved < self.estimate)


def context_of(body: bytes) -> Context:
    """What is known of the prompt in a request for Ollama."""
    if len(body) <= _SMALL * _BYTES_PER_TOKEN and not any(name in body for name in (b'"num_ctx"', b'"truncate"')):
        return Context(0, len(body) // _BYTES_PER_TOKEN)
    request = loads(body)
    options = request.get("options")
    options = options if isinstance(options, dict) else {}
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(request))
    return Context(
        _whole(options.get("num_ctx"), 0),
        size // _BYTES_PER_TOKEN,
        _whole(options.get("num_keep"), _NUM_KEEP),
        request.get("truncate") is False,
    )


def takes_truncate(version: str) -> bool:
    """Whether an Ollama of this version refuses what it must not cut; one that does not say may be older."""
    found = _VERSION.match(version)
    fields = tuple(map(int, found.groups())) if found else (0, 0, 1)
    return fields == _DEVELOPMENT or fields >= _TRUNCATE_SINCE


def _whole(value: object, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _texts(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += [held for name, held in one.items() if name not in _NO_TEXT]
