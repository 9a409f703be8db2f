"""Thoughts on their way through a Responses client, which may only keep what it cannot read.

In: a thought and its signature. Out: what stands in ``encrypted_content``, and the thought again. Must not: fail on
what somebody else has encrypted, which nobody here can read.

Clients such as Codex ask for ``reasoning.encrypted_content`` and send that back alone. Models that think between calls
go on better with their thoughts, and Anthropic refuses a turn whose signed thought is missing. Nothing is secret in it.
"""

import base64
import binascii

import orjson

from edge.protocol.canonical import ThinkingPart

_MARK = "edge:"


def seal(text: str, signature: str) -> str:
    """What the client is to send back."""
    return _MARK + base64.b64encode(orjson.dumps([text, signature])).decode()


def unseal(sealed: str) -> ThinkingPart | None:
    """The thought, if it was sealed here."""
    if not sealed.startswith(_MARK):
        return None
    try:
        text, signature = orjson.loads(base64.b64decode(sealed.removeprefix(_MARK), validate=True))
    except (binascii.Error, ValueError, TypeError):
        return None
    return ThinkingPart(text, signature) if isinstance(text, str) and isinstance(signature, str) else None
