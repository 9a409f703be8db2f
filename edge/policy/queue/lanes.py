"""The words of admission: lanes, their bounds, and for whom a slot is.

In: nothing. Out: values. Must not: decide.
"""

from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """How much hurry there is."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Claim:
    """For whom a slot is.

    Attributes:
        weight: Above 0; of two principals that always have something waiting one gets as many times more of the slots'
            time as its weight is larger.
        sequences: How many answers the server works on for it at once.
    """

    principal: str
    weight: float = 1.0
    lane: Lane = Lane.INTERACTIVE
    sequences: int = 1


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one lane of each queue.

    Attributes:
        length: How many may wait.
        wait_s: How long.
    """

    length: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Rules:
    """The bounds of the lanes, and ``ageing_s``: see the module."""

    interactive: Bounds
    batch: Bounds
    ageing_s: float

    def of(self, lane: Lane) -> Bounds:
        """Those of one lane."""
        return self.batch if lane is Lane.BATCH else self.interactive
