"""Whether one JSON body is an answer of its surface at all.

In: a decoded body with status 200. Out: what is wrong with it. Must not: judge what the model said.
"""

from typing import Any

from edge.protocol.finish_reasons import broke, broke_message
from edge.protocol.surface import Surface

# The field without which there is no answer, and whether it may be empty.
_NEEDED: dict[Surface, tuple[str, bool]] = {
    Surface.CHAT: ("choices", False),
    Surface.COMPLETIONS: ("choices", False),
    Surface.MESSAGES: ("content", True),
    Surface.RESPONSES: ("output", True),
    Surface.EMBEDDINGS: ("data", True),
}


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
