"""What takes the body of a server's answer, and what that needs of the call.

In: nothing. Out: the interface of all bodies. Must not: know any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from edge.errors import EdgeError
from edge.policy.lifecycle import Happened
from edge.upstream.base import Call, Sink

End = Callable[[Happened, EdgeError | None], None]


class Body(Protocol):
    """Takes one body. ``whole`` and ``broke`` exclude each other."""

    def take(self, data: bytes) -> None:
        """What one network read brought; never raises."""

    def whole(self) -> None:
        """It ended as its framing says."""

    def broke(self, why: str) -> None:
        """It ended otherwise."""


@dataclass(frozen=True, slots=True)
class Receiver:
    """Whom an answer is for.

    Attributes:
        name: Of the upstream that gives it.
        call: What was asked.
        sink: What is pushed into.
        end: Ends the call.
        use: Told of another body that takes what comes from the next read on, at most once.
    """

    name: str
    call: Call
    sink: Sink
    end: End
    use: Callable[[Body], None]
