"""What a generation asks of whoever runs the exchange that it belongs to.

In: what happened to it. Out: when its end may be shown. Must not: do anything.
"""

from collections.abc import Callable

from edge.policy.lifecycle import Outcome
from edge.policy.queue.refusal import Place


class Owner:
    """Who runs the exchange that the generation belongs to."""

    __slots__ = ()

    @property
    def keeps_answer(self) -> bool:
        """Whether ``settle`` keeps what was said, which is to be done before a reader sees the end."""
        raise NotImplementedError

    @property
    def place(self) -> Place | None:
        """Where in the queue the request waits for a slot; None if it does not."""
        raise NotImplementedError

    def wanted(self) -> bool:
        """Somebody waits for the slot that the attempt has."""
        raise NotImplementedError

    def changed(self) -> None:
        """The state changed: time is to be booked on another phase."""
        raise NotImplementedError

    def settle(self, outcome: Outcome, announce: Callable[[], None]) -> None:
        """Nothing more will be generated. Call ``announce``, now or soon, to show the readers how it ended."""
        raise NotImplementedError

    def detached(self) -> None:
        """The last reader has left, and it goes on for one that may come back."""
        raise NotImplementedError
