"""Session requests: a message of a conversation that Edge remembers, into the canonical request.

In: a client's body or query; then the same with the conversation so far in it. Out: ``Wanted``, ``Prepared``, ``Ask``.
Must not: take the conversation from a client.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge.protocol.canonical import Ask, Message, TextPart
from edge.protocol.fields import Fields
from edge.protocol.json_text import dumps
from edge.protocol.prompt_size import prompt_tokens
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface

DEFAULT_SESSION = "default"
# Fit for a path: no dots alone, nothing to be escaped.
SESSION_PATTERN = "[A-Za-z0-9][A-Za-z0-9._:@~-]{0,127}"
_SESSION = re.compile(SESSION_PATTERN)
_OURS = "edge"  # the field of a prepared body that holds what is no client's to say

Said = tuple[Literal["user", "assistant"], str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks.

    Attributes:
        metadata: It wants the events about the answer.
        ignored: Names of the fields that mean nothing here.
    """

    message: str
    session_id: str
    model: str | None
    system: str | None
    metadata: bool
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ours:
    """What Edge adds to it.

    Attributes:
        turns: Who has said what so far.
        keep_bytes: How much of the answer may be kept.
        accepted_at: When the request came, on the monotonic clock.
        max_tokens: How many tokens the answer may have; None is no limit.
    """

    turns: tuple[Said, ...] = ()
    keep_bytes: int = 0
    accepted_at: float | None = None
    max_tokens: int | None = None


def read(body: dict[str, Any], name: str = "message", most_bytes: int | None = None) -> Wanted:
    """Read a client's request.

    Args:
        body: As it came.
        name: How the message is called.
        most_bytes: The most it may have.

    Raises:
        BadRequest: a field is malformed; it is named.
    """
    fields = Fields(body)
    fields.known("stream", _OURS)
    message = fields.needed_text(name)
    if not message.strip():
        raise fields.wrong(name, "must not be empty")
    if most_bytes is not None and len(message.encode()) > most_bytes:
        raise fields.wrong(name, f"must be at most {most_bytes} bytes long (half of sessions.max_bytes)")
    session_id = fields.text("session_id")
    if session_id is not None and not is_session(session_id):
        raise fields.wrong(
            "session_id", "must be 1 to 128 letters, digits or . _ : @ ~ - and begin with one of the first"
        )
    if fields.flag("stream") is False:
        raise fields.wrong("stream", "a session's answers are always streamed; leave it out")
    wanted = {"model": fields.text("model") or None, "system": fields.text("system") or None}
    metadata = fields.flag("metadata") or False
    return Wanted(message, session_id or DEFAULT_SESSION, **wanted, metadata=metadata, ignored=tuple(fields.rest()))


def is_session(text: str) -> bool:
    """Whether this can be a session's id."""
    return _SESSION.fullmatch(text) is not None


def prepared(
    wanted: Wanted, turns: Iterable[Said], keep_bytes: int, accepted_at: float, max_tokens: int | None = None
) -> Prepared:
    """The request as an exchange takes it."""
    ours = Ours(tuple(turns), keep_bytes, accepted_at, max_tokens)
    fields = {name: value for name, value in asdict(wanted).items() if name != "ignored"}
    body = dumps({**dict.fromkeys(wanted.ignored, True), **fields, _OURS: ours})
    size = len(wanted.message.encode())
    tokens = prompt_tokens(Surface.SESSION, {**fields, "turns": ours.turns}, len(body))
    return Prepared(Surface.SESSION, wanted.model, True, True, body, False, 1, size, tokens=tokens)


def ours(body: dict[str, Any]) -> Ours:
    """What Edge has added to a prepared body."""
    added = body.get(_OURS)
    return Ours(**added) if isinstance(added, dict) else Ours()


def parse(body: dict[str, Any]) -> Ask:
    """Read a prepared request.

    Raises:
        BadRequest: a field is malformed.
    """
    wanted = read(body)
    messages = [Message("system", (TextPart(wanted.system),), "system")] if wanted.system else []
    messages += [Message(role, (TextPart(text),), "message") for role, text in ours(body).turns]
    messages.append(Message("user", (TextPart(wanted.message),), "message"))
    most = ours(body).max_tokens
    return Ask(model=wanted.model, messages=messages, max_tokens=most, ignored=list(wanted.ignored))
