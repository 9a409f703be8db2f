"""What is wrong with a configuration, and where.

In: keys, places and sentences. Out: problems that a person can act upon. Must not: hold a configured value.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake.

    Attributes:
        key: The setting, such as ``stream.heartbeat_s`` or ``upstream[0].url``; empty when it is the file as a whole.
        line: The line in the file, if that is where it came from and the line is known.
        message: What is wrong, and what to do about it.
        where: What a person has to edit: ``FILE:LINE``, a variable, an option.
    """

    key: str
    line: int | None
    message: str
    where: str = ""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


@dataclass(frozen=True, slots=True)
class Conflict:
    """What cannot work, though every value has the right type; reported at the first of its keys that was given."""

    keys: tuple[str, ...]
    message: str


class ConfigError(Exception):
    """The configuration cannot be used. Its text has one line for each problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


@dataclass(frozen=True, slots=True)
class Where:
    """Where a value was written."""

    text: str = ""
    line: int | None = None

    def problem(self, key: str, message: str) -> Problem:
        """A problem with what is written here."""
        return Problem(key, self.line, message, self.text)


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that was probably meant; ``cutoff`` (to 1) is how alike they must be."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None
