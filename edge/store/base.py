"""The store ports: what is to outlive an exchange, whoever keeps it: this process, a file or a server.

In: turns, by principal and session. Out: the same, as far as the bounds allow. Must not: know who speaks when; that one
request at a time changes a session is the caller's to see to.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

from edge.settings import Sessions as SessionSettings


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation. ``at`` is Unix time; ``partial``: the answer broke off here."""

    role: Literal["user", "assistant"]
    content: str
    at: float
    partial: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    """What is kept of a session: a question and its answer by turns, the oldest first."""

    turns: tuple[Turn, ...]
    created: float
    updated: float


class SessionStore(Protocol):
    """Keeps conversations, each of one principal."""

    async def read(self, principal: str, session: str) -> Conversation | None:
        """What is kept of a session; None if there is none."""

    async def append(self, principal: str, session: str, question: Turn, answer: Turn) -> None:
        """Add both or neither; what is over the bounds then goes."""

    async def delete(self, principal: str, session: str) -> bool:
        """Forget a session; whether there was one."""

    async def close(self) -> None:
        """Let go of files and connections."""


def within(turns: tuple[Turn, ...], bounds: SessionSettings, now: float) -> tuple[Turn, ...]:
    """The latest turns that the bounds allow; the oldest go in pairs, so that a question always comes first."""
    size = sum(len(turn.content.encode()) for turn in turns)
    first = 0
    while first < len(turns) and (
        len(turns) - first > bounds.max_turns or size > bounds.max_bytes or turns[first + 1].at < now - bounds.max_age_s
    ):
        size -= sum(len(turn.content.encode()) for turn in turns[first : first + 2])
        first += 2
    return turns[first:]
