"""The line with which Claude Code begins its system prompt, for Anthropic's bookkeeping: nobody else has a use for it.

In: the ``system`` of a Messages request. Out: the same without the line. Must not: touch anything else of a prompt.

A value in the line (``cch=``) changes with each request. As the first tokens of the prompt it makes a server read all
of it anew: a real llama.cpp took 14.7 s with it, and 0.7 s without (39 and 197 of 198 tokens from its cache).
"""

from typing import Any

CHANGE = "billing-line"  # in ``x-edge-changed``
_BEGINS = "x-anthropic-billing-header:"


def without_billing_line(system: Any) -> Any:
    """The system prompt (a string, or a list of blocks) without the line."""
    if isinstance(system, str):
        return _without(system)
    if not isinstance(system, list):
        return system
    return [block for block in map(_block, system) if block is not None]


def _block(block: Any) -> Any:
    """A block without the line; None if there was nothing else in it."""
    text = block.get("text") if isinstance(block, dict) else None
    if not isinstance(text, str) or not text.startswith(_BEGINS):
        return block
    rest = _without(text)
    return {**block, "text": rest} if rest else None


def _without(text: str) -> str:
    return text.partition("\n")[2].lstrip("\n") if text.startswith(_BEGINS) else text
