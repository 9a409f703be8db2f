"""What Edge says in Ollama's own API: a line without content, and an error as a string under ``error``.

In, out, must not: see ``protocol.surface_format``.
"""

import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar

from edge.errors import EdgeError, UpstreamSaid
from edge.protocol.json_text import dumps
from edge.protocol.ollama.ndjson import encode_line
from edge.protocol.surface import Surface
from edge.protocol.surface_format import Progress, SurfaceFormat


class OllamaFormat(SurfaceFormat):
    """A ``SurfaceFormat`` of lines, those of ``/api/chat``."""

    __slots__ = ()

    surface: ClassVar[Surface] = Surface.OLLAMA_CHAT

    def beat(self, progress: Progress | None, *, lively: bool) -> bytes:  # noqa: ARG002 - a line fits anywhere
        """A line without content; the format has no comments."""
        model = None if progress is None else progress.model
        return encode_line(empty_line(self.surface, self._model if model is None else model))

    def error(self, error: EdgeError, progress: Progress) -> bytes:  # noqa: ARG002 - a string has no place for it
        """A line with a string under ``error``."""
        return encode_line({"error": error.message})

    def error_body(self, error: EdgeError) -> bytes:
        """A string under ``error``."""
        body = error.body if isinstance(error, UpstreamSaid) else None
        own = None if body is None else body.get("error")
        return dumps({"error": own if isinstance(own, str) else error.message})


class GenerateFormat(OllamaFormat):
    """The lines of ``/api/generate``."""

    __slots__ = ()

    surface = Surface.OLLAMA_GENERATE


def empty_line(surface: Surface, model: str) -> dict[str, object]:
    """A line that adds nothing to the answer."""
    head: dict[str, object] = {"model": model, "created_at": now_text()}
    if surface is Surface.OLLAMA_GENERATE:
        return {**head, "response": "", "done": False}
    return {**head, "message": {"role": "assistant", "content": ""}, "done": False}


def now_text(seconds: float | None = None) -> str:
    """A time as Ollama writes it."""
    seconds = time.time() if seconds is None else seconds
    whole = int(seconds)
    return f"{_second_text(whole)}.{int((seconds - whole) * 1e6):06d}Z"


@lru_cache(maxsize=4)
def _second_text(seconds: int) -> str:
    """Kept, since each line of an answer has a time: 0.4 µs in place of 1.3."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
