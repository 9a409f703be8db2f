"""Tool calls in deltas: which call a delta belongs to, and when what it brings can be handed on.

In: the deltas of one choice, as servers spell them. Out: a number for each delta's call; arguments that are JSON.
Must not: know who reads them, or raise on any JSON.

Servers differ. Some leave the index out, some give all parallel calls the same one, some send the name after the id,
some send no arguments, blank ones or ``null`` for a function without parameters.
"""

from typing import Any

_NOTHING = ("null", '"null"')  # what some models write for no arguments


def no_arguments(text: str) -> bool:
    """Whether this text of arguments says nothing: it then means ``{}``."""
    return text.strip() in ("", *_NOTHING)


class CallNumbers:
    """Numbers the calls of one choice. A number is the server's own index where no other call has it."""

    __slots__ = ("_by_id", "_by_index", "_last", "_named")

    def __init__(self) -> None:
        self._by_id: dict[str, int] = {}
        self._by_index: dict[int, int] = {}  # by the server's index: the latest call that had it
        self._named: dict[int, list[bool]] = {}  # of each call: whether its id, and its name, have come
        self._last: int | None = None

    def number(self, delta: dict[str, Any]) -> int:
        """The number of the call that a delta belongs to: another id, or another name, begins another call."""
        function = delta.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        index, identity = delta.get("index"), delta.get("id")
        index = index if isinstance(index, int) and not isinstance(index, bool) else None
        identity = identity if isinstance(identity, str) else ""
        if not identity and not name and index in self._by_index:  # more of a call that is known, as most deltas are
            self._last = self._by_index[index]
            return self._last
        at = self._by_id.get(identity) if identity else None
        if at is None:
            at = self._last if index is None else self._by_index.get(index)
            if at is None or self._begins(at, identity=bool(identity), name=bool(name)):
                at = self._next(index)
        if identity:
            self._by_id[identity] = at
        if index is not None:
            self._by_index[index] = at
        known = self._named.setdefault(at, [False, False])
        known[:] = known[0] or bool(identity), known[1] or bool(name)
        self._last = at
        return at

    def _begins(self, at: int, *, identity: bool, name: bool) -> bool:
        """Whether a delta with an unknown id, or with a name, is not of this call."""
        has_id, has_name = self._named[at]
        return (identity and has_id) or (name and has_name)

    def _next(self, index: int | None) -> int:
        if index is not None and index not in self._named:
            return index
        return max(self._named, default=-1) + 1


class Arguments:
    """The arguments of one call, as they come in pieces.

    What may turn out to say nothing is held, so that no reader is given ``null`` for an object.
    """

    __slots__ = ("_begun", "_held")

    def __init__(self) -> None:
        self._begun = False
        self._held = ""

    def add(self, piece: str) -> str:
        """Take the next piece; returns what can be handed on, which may be nothing yet."""
        if self._begun:
            return piece
        self._held += piece
        text = self._held.strip()
        if any(nothing.startswith(text) for nothing in _NOTHING):
            return ""
        self._begun, held, self._held = True, self._held, ""
        return held

    def end(self) -> str:
        """What is still to be handed on when the call is whole."""
        if self._begun:
            return ""
        self._begun = True
        return "{}" if no_arguments(self._held) else self._held
