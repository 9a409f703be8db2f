"""The ``content`` of a chat message or delta that an upstream sent: a string, or a list of parts.

In: decoded JSON. Out: text and thought. Must not: pass over a part that it does not know.
"""

from typing import Any, NamedTuple


class Content(NamedTuple):
    """What it says; ``unknown`` is a shape that could not be read."""

    text: str = ""
    thought: str = ""
    unknown: str = ""


def read_content(content: Any) -> Content:
    """Read it. Mistral's models send thinking and text as a list of parts."""
    if content is None or isinstance(content, str):
        return Content(content or "")
    if not isinstance(content, list):
        return Content(unknown=type(content).__name__)
    text, thought = [], []
    for part in content:
        match part:
            case str():
                text.append(part)
            case {"type": "text" | "output_text", "text": str(said)}:
                text.append(said)
            case {"type": "thinking", "thinking": str(said)}:
                thought.append(said)
            case {"type": "thinking", "thinking": list(said)}:
                thought.append(read_content(said).text)
            case {"type": "refusal", "refusal": str(said)}:
                text.append(said)
            case {"type": kind}:
                return Content(unknown=f"a part of type {str(kind)[:40]!r}")
            case _:
                return Content(unknown="a part without a type")
    return Content("".join(text), "".join(thought))
