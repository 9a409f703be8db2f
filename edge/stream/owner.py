"""The port from a generation to the exchange that it belongs to.

In: what happens to the generation. Out: when its readers may see its end. Must not: do anything itself.
"""

from collections.abc import Callable

from edge.policy.lifecycle import Outcome
from edge.policy.queue.refusal import Place


class Owner:
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
