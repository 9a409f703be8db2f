"""Whether an Ollama has cut a prompt to its context length, which it does silently and answers with 200.

In: the body that was sent, the limit as far as it is known, and the prompt's length as the server counted it. Out: an
estimate, and a verdict. Must not: tokenise: an estimate is said to be one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

_BYTES_PER_TOKEN = 4  # English; code and other scripts take more tokens, so the estimate is a low one
_SURE = 1.5  # an estimate this much above what was counted is no error of the estimate
_SMALL = 1024  # no context is smaller, so that shorter prompts need no look
_NO_TEXT = frozenset({"images", "model", "options", "format", "keep_alive"})


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of a prompt before it is answered, in tokens.

    Attributes:
        limit: The context length that was asked for; 0 if the server chose it.
        estimate: Of the prompt's length.
    """

    limit: int
    estimate: int

    @property
    def too_long(self) -> bool:
        """The prompt cannot fit."""
        return 0 < self.limit < self.estimate

    def cut(self, counted: int | None) -> bool:
        """Whether the prompt was cut, now that the server has counted ``counted`` tokens."""
        if counted is None:
            return self.too_long
        if self.limit:
            return self.too_long or counted >= self.limit
        return counted >= _SMALL and self.estimate > _SURE * counted


def context_of(body: bytes) -> Context:
    """What is known of the prompt in a request for Ollama."""
    if len(body) <= _SMALL * _BYTES_PER_TOKEN and b'"num_ctx"' not in body:
        return Context(0, len(body) // _BYTES_PER_TOKEN)
    request = orjson.loads(body)
    options = request.get("options")
    limit = options.get("num_ctx") if isinstance(options, dict) else None
    size = sum(len(text.encode("utf-8", "surrogatepass")) for text in _texts(request))
    return Context(limit if isinstance(limit, int) else 0, size // _BYTES_PER_TOKEN)


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
