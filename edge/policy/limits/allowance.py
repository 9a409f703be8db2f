"""What a principal may take: a value that keys, tokens and the configuration fill in alike.

In: numbers. Out: the same, and one allowance over another. Must not: know who has it, or count.
"""

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much somebody may take; None is no limit of one's own.

    Attributes:
        requests_per_min: Requests in any 60 seconds.
        tokens_per_min: Tokens of prompts and answers in any 60 seconds.
        concurrent: Requests at once.
        tokens_per_day: Tokens of prompts and answers in a day, which begins at 0:00 UTC.
        tokens_per_month: Likewise in a calendar month.
        max_tokens: Tokens that one answer may have.
        weight: The share of a busy upstream, in proportion to those of others.
    """

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrent: int | None = None
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    max_tokens: int | None = None
    weight: float | None = None

    def over(self, other: "Allowance") -> "Allowance":
        """This one where it says something, the other one where it does not."""
        mine = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return Allowance(**{name: getattr(other, name) for name in _NAMES} | mine)


_NAMES = tuple(field.name for field in fields(Allowance))
UNLIMITED = Allowance()
