"""Who has to do with a connection to an upstream: whose request it carries, and where it waits between two.

In: nothing. Out: two protocols. Must not: know how a connection works.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # which calls these
    from edge.upstream.relay.connection import Connection, Head


class Asker:
    """Whose request it is. Called from the event loop, in this order; after ``let_go`` or ``abort`` not at all."""

    __slots__ = ()

    def headed(self, head: "Head") -> Callable[[bytes], None]:
        """The answer has begun; returns what takes the body, one call for each network read that has some of it."""
        raise NotImplementedError

    def whole(self) -> None:
        """The body has ended as its framing says."""
        raise NotImplementedError

    def broke(self, fault: Exception, *, heard: bool) -> None:
        """It ended otherwise: ``Malformed``, ``Ended`` or the transport's error; ``heard``: some byte had come."""
        raise NotImplementedError


class Home:
    """Where connections wait between two requests."""

    __slots__ = ()

    def idle(self, connection: "Connection") -> None:
        """It can be used again."""
        raise NotImplementedError

    def gone(self, connection: "Connection") -> None:
        """It is closed."""
        raise NotImplementedError
