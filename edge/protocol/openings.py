"""The event that begins an answer, where it may go out before the upstream has anything to relay.

In: what the upstream has sent so far, or nothing. Out: its own such event, else one that Edge makes; and what of it has
to hold from then on. Must not: decide when.

Codex gives up on a stream without events after 300 s, and Claude Code on one with nothing but pings after 30 of them;
clients of both surfaces allow no event that they would count before this one.
"""

import time
from collections.abc import Mapping
from typing import Protocol

from edge.protocol.dialect import Opened
from edge.protocol.messages import codec as messages_codec
from edge.protocol.responses import codec as responses_codec
from edge.protocol.surface import Surface


class Opening(Protocol):
    """A surface whose answers begin with an event of their own.

    Attributes:
        at_commit: It goes out with the status; else when the first lively heartbeat is due.
    """

    at_commit: bool

    def found(self, held: bytes) -> tuple[bytes, Opened] | None:
        """The upstream's own, if these whole events begin with it."""

    def event(self, opened: Opened) -> bytes:
        """One that Edge makes."""

    def new(self, identity: str, model: str) -> Opened:
        """What it is to tell; ``identity``: hex digits to make the answer's id of, unique to the exchange."""


class _Created:
    """``response.created``."""

    at_commit = True
    found = staticmethod(responses_codec.found_created)
    event = staticmethod(responses_codec.created_event)

    def new(self, identity: str, model: str) -> Opened:
        """See ``Opening``."""
        return Opened(f"resp_{identity}", int(time.time()), model)


class _Started:
    """``message_start``."""

    at_commit = False
    found = staticmethod(messages_codec.found_start)
    event = staticmethod(messages_codec.start_event)

    def new(self, identity: str, model: str) -> Opened:
        """See ``Opening``."""
        return Opened(f"msg_{identity}", int(time.time()), model)


OPENINGS: Mapping[Surface, Opening] = {Surface.RESPONSES: _Created(), Surface.MESSAGES: _Started()}
