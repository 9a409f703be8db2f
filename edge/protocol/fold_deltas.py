"""Folds streamed pieces of a JSON value into the whole value, without knowing the surface.

In: the held value and the next piece (any decoded JSON). Out: the held value again; ``whole`` makes plain JSON of it.
Must not: raise on any JSON, recurse as deep as an upstream likes, or copy text per piece (pieces are joined once).

How two values of one field become one: null changes nothing; text is joined; objects are merged field by field; list
items that carry an ``index`` are merged by it and other items are appended; anything else is replaced.
"""

from typing import Any

MAX_DEPTH = 16  # no surface streams pieces of anything deeper; below that a value is taken whole, the last one wins

# Text, always joined, even if every piece is the same.
_TEXT = frozenset(
    {"arguments", "content", "data", "reasoning", "reasoning_content", "refusal", "text", "thinking", "transcript"}
)
# Names of things, never joined: the last that is not empty wins.
_LABELS = frozenset({"finish_reason", "format", "id", "role", "severity", "signature", "stop_reason", "type"})


class _Text:
    """A string that arrives in pieces.

    Strings of unknown meaning are joined, unless all pieces are the same: that is a label repeated on every chunk.
    """

    __slots__ = ("_key", "_pieces")

    def __init__(self, key: str) -> None:
        self._key = key
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        if not piece:
            return
        if self._key in _LABELS:
            self._pieces.clear()
        self._pieces.append(piece)

    def whole(self) -> str:
        pieces = self._pieces
        if self._key not in _TEXT and len(pieces) > 1 and pieces.count(pieces[0]) == len(pieces):
            return pieces[0]
        return "".join(pieces)


class _Object(dict[str, object]):
    """An object whose fields are folded; a plain dict is a value that was taken whole."""


class _List:
    """A list whose indexed items are folded."""

    __slots__ = ("_items", "_next")

    def __init__(self) -> None:
        self._items: dict[int, object] = {}
        self._next = 0

    def extend(self, items: list[Any], depth: int) -> None:
        for item in items:
            index = item_index(item)
            if index is None:
                index, folded = self._next, item
            else:
                folded = fold(self._items.get(index), item, depth=depth)
            self._items[index] = folded
            self._next = max(self._next, index + 1)

    def whole(self) -> list[object]:
        return [whole(self._items[index]) for index in sorted(self._items)]


def item_index(item: object) -> int | None:
    """The ``index`` that an item of a streamed list belongs to, if it has one."""
    index = item.get("index") if isinstance(item, dict) else None
    return index if isinstance(index, int) and not isinstance(index, bool) else None


def fold(held: object, piece: object, key: str = "", depth: int = 0) -> object:
    """Take the next piece of the field ``key`` into what is held of it (None at first)."""
    if piece is None:
        return held
    if isinstance(piece, str):
        text = held if isinstance(held, _Text) else _Text(key)
        text.add(piece)
        return text
    if depth < MAX_DEPTH and isinstance(piece, dict):
        fields = held if isinstance(held, _Object) else _Object()
        for name, value in piece.items():
            fields[name] = fold(fields.get(name), value, name, depth + 1)
        return fields
    if depth < MAX_DEPTH and isinstance(piece, list):
        items = held if isinstance(held, _List) else _List()
        items.extend(piece, depth + 1)
        return items
    return piece


def whole(held: object) -> Any:
    """Plain JSON of what is held; the held value stays as it is."""
    if isinstance(held, _Object):
        return {name: whole(value) for name, value in held.items()}
    if isinstance(held, _Text | _List):
        return held.whole()
    return held
