"""The ports of a generation: the exchange that it belongs to, and the attempt that is under way.

In: nothing. Out: their interfaces. Must not: do anything.
"""

from collections.abc import Callable

from edge.policy.lifecycle import AttemptState, LifecycleEvent, Outcome
from edge.policy.queue.refusal import Place


class GenerationOwner:
    """The exchange, as its generation sees it."""

    __slots__ = ()

    @property
    def keeps_answer(self) -> bool:
        """Whether ``settle`` stores the answer, which has to be done before a reader sees the end."""
        raise NotImplementedError

    @property
    def place(self) -> Place | None:
        """Where in the queue the request waits for a slot; None if it does not."""
        raise NotImplementedError

    def wanted(self) -> bool:
        """Whether another request waits for the slot of this attempt."""
        raise NotImplementedError

    def changed(self) -> None:
        """The state changed: from now on time belongs to another phase."""
        raise NotImplementedError

    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        """Generating has ended. Call ``announce``, now or soon: it shows the readers how it ended."""
        raise NotImplementedError

    def detached(self) -> None:
        """The last reader has left; the generation goes on for one that may come back."""
        raise NotImplementedError


class RunningAttempt:
    """The attempt that is under way, for its generation; ``attempt.Attempt``.

    Attributes:
        other_events: Data-bearing events without generated content.
        clients_turn: The client is to bring more of the request's body.
    """

    __slots__ = ()

    state: AttemptState
    other_events: int
    clients_turn: bool

    @property
    def held_events(self) -> bytes | None:
        """The events before the first content; None if there are none, or they have gone out."""
        raise NotImplementedError

    def drop_first(self, size: int) -> None:
        """The first of the held events, of so many bytes, has gone out by itself."""
        raise NotImplementedError

    def drop_held(self) -> bool:
        """The held events will not go out; whether there were any."""
        raise NotImplementedError

    def release(self) -> None:
        """Publish the held events: content has come, or an answer has ended that is nothing but its prelude."""
        raise NotImplementedError

    def release_last(self) -> None:
        """Publish the events of the end, which have waited until the answer was stored."""
        raise NotImplementedError

    def pause(self) -> None:
        """Do not read from the upstream."""
        raise NotImplementedError

    def resume(self) -> None:
        """Read again."""
        raise NotImplementedError

    def tick(self, now: float, *, paused: bool) -> None:
        """Look at the clocks. ``paused``: the upstream is not read, since the readers lag."""
        raise NotImplementedError

    def abort(self, happened: LifecycleEvent) -> None:
        """Break it off from this side; idempotent."""
        raise NotImplementedError
