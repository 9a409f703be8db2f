"""What a codec hands on: the whole events of one network read, and what was seen in them.

In: nothing. Out: plain values, made once per network read on the hot path, hence slots and no validation.
Must not: hold anything that is per event.
"""

from dataclasses import dataclass

from edge.errors import UpstreamSaid

_MOST_TOKENS = 10**9  # of one answer; what is beyond is a server's bug, and is not reckoned with


def count_in(holder: object, *names: str) -> int | None:
    """The count under the first of these names that has one; None if it is no count that can be."""
    if isinstance(holder, dict):
        for name in names:
            value = holder.get(name)
            if type(value) is int:
                return value if 0 <= value <= _MOST_TOKENS else None
    return None


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as the upstream reported them; ``None`` where it said nothing."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    reasoning: int | None = None

    def merged(self, newer: "Usage") -> "Usage":
        """Later figures win field by field (Anthropic sends input first, output later)."""
        return Usage(
            self.prompt if newer.prompt is None else newer.prompt,
            self.completion if newer.completion is None else newer.completion,
            self.cached if newer.cached is None else newer.cached,
            self.reasoning if newer.reasoning is None else newer.reasoning,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What the upstream says of its own time, in seconds; ``None`` where it said nothing."""

    load_s: float | None = None  # until the model was in memory
    prompt_s: float | None = None  # reading the prompt
    output_s: float | None = None  # generating


class Batch:
    """The complete events cut from one network read, as client-surface bytes, plus the observation of them.

    Attributes:
        data: Whole events, ready to be written downstream; may be empty.
        events: How many data-bearing events ``data`` holds.
        tokens: How many of them carried generated content.
        terminated: The surface's regular end was among them (anything after it has been dropped). It is in ``data``
            only if the answer is finished: an end that is not true is not passed on.
        error: The upstream's own in-band error, if it was among them (anything after it has been dropped).
        error_in_data: ``data`` ends with that error, in the surface's own shape; else it has not gone out yet.
    """

    __slots__ = ("data", "error", "error_in_data", "events", "terminated", "tokens")

    def __init__(
        self,
        data: bytes,
        events: int = 0,
        tokens: int = 0,
        *,
        terminated: bool = False,
        error: UpstreamSaid | None = None,
        error_in_data: bool = False,
    ) -> None:
        self.data = data
        self.events = events
        self.tokens = tokens
        self.terminated = terminated
        self.error = error
        self.error_in_data = error_in_data

    def __repr__(self) -> str:
        flags = " terminated" * self.terminated + " error" * (self.error is not None)
        return f"<Batch {len(self.data)} B, {self.events} events, {self.tokens} tokens{flags}>"
