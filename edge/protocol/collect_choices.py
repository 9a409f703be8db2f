"""What the collectors of chat completions and completions share: choices by index, the head fields, and usage.

In: decoded chunks. Out: the parts of the answer, for a subclass to finish.
Must not: raise on any JSON, or know what is inside a choice.
"""

from typing import Any

from edge.protocol.merge import fold, item_index, whole

# Fields of a chunk that its non-stream answer does not have, or has in another form.
_CHUNK_ONLY = frozenset({"choices", "object", "obfuscation"})
# What a server measures; sent together, hence kept together.
_MEASURED = ("usage", "timings")


class ChoicesCollector:
    """Folds OpenAI-shaped chunks into the fields of the answer."""

    def __init__(self) -> None:
        self._head: dict[str, object] = {}
        self._choices: dict[int, object] = {}
        self._latest = 0
        self._totals: dict[int, dict[str, object]] = {}
        self._shares: dict[int, dict[str, object]] = {}

    def add(self, event: dict[str, object]) -> None:
        """Take one chunk; what is not a chunk is ignored (llama.cpp really sends ``data: null``)."""
        if not isinstance(event, dict):
            return
        listed = event.get("choices")
        choices = [choice for choice in listed if isinstance(choice, dict)] if isinstance(listed, list) else []
        for choice in choices:
            self._latest = item_index(choice) or 0
            told = self.choice(choice, self._latest)
            self._choices[self._latest] = fold(self._choices.get(self._latest), told)
        for name, value in event.items():
            if name not in _CHUNK_ONLY and (value is not None or name not in self._head):
                self._head[name] = value
        measured = {name: event[name] for name in _MEASURED if event.get(name) is not None}
        if measured:
            (self._shares if choices else self._totals)[self._latest] = measured

    def choice(self, choice: dict[str, Any], number: int) -> dict[str, Any]:  # noqa: ARG002 - a subclass looks at it
        """What to fold of choice ``number``."""
        return choice

    def head(self) -> dict[str, object]:
        """The fields beside the choices: the last value that is not null of each."""
        # A chunk without choices reports for the whole answer, unless there are several: llama.cpp reports each choice
        # after its end (or, for completions, on its last chunk) and its non-stream answer tells the first one's.
        reports = self._totals or self._shares
        return {**self._head, **reports[min(reports)]} if reports else dict(self._head)

    def choices(self) -> list[dict[str, Any]]:
        """The choices, in order, each with the fields that every non-stream choice has."""
        found = []
        for index in sorted(self._choices):
            choice = whole(self._choices[index])
            found.append({"finish_reason": None, **choice, "index": index})
        return found
