"""A value that a JSON schema allows: what the simulator calls a tool with, or answers where a schema is asked for.

In: a schema, as a client sent it. Out: one value, always the same. Must not: raise for any schema, or follow one for
ever. Patterns, conditions and the like are not looked at: what comes out is plausible, not proven.
"""

import math
import re
from typing import Any

_MOST_NODES = 1000  # of the schema, visited: one that refers to itself has no end
_MOST_DEPTH = 40
_MOST_CHARS = 1000  # that a minLength is granted, and of a description that are read
_MOST_WHOLE = 2**53  # what any JSON parser can hold
_NAMED = ("const", "default")
_LISTED = ("enum", "examples")
_COMBINED = ("anyOf", "oneOf", "allOf")
_TEXTS = {
    "date": "2026-01-31",
    "time": "12:30:00Z",
    "date-time": "2026-01-31T12:30:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "12345678-1234-4234-8234-123456789abc",
    "ipv4": "192.0.2.1",
}
# Words of the name of a property whose number is a whole one, whatever its type allows.
_COUNTED = frozenset(
    {
        "index", "idx", "indexes", "indices", "id", "ids", "count", "number", "num", "page", "pages", "line", "lines",
        "row", "rows", "column", "columns", "col", "limit", "offset", "position", "step", "steps", "rank", "level",
        "depth", "tab", "slot", "seed", "port", "year", "month", "day", "quantity",
    }
)  # fmt: skip
_COUNTED_IN_WORDS = re.compile(
    r"\b(?:index|indices|integer|whole number|number of|(?:0|1|zero|one)-based)\b", re.IGNORECASE
)
_FROM_ZERO = re.compile(
    r"\b(?:0|zero)[- ](?:based|indexed)\b|\b(?:starts?|starting|counted) (?:at|from|with) (?:0|zero)\b", re.IGNORECASE
)
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


def plausible(schema: dict[str, Any] | None) -> Any:
    """A value for ``schema``; without one, an empty object."""
    return {} if schema is None else _Maker(schema).value(schema, "text", 0)


class _Maker:
    """Makes one value.

    Args:
        root: What references are relative to.
    """

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._left = _MOST_NODES

    def value(self, schema: object, name: str, depth: int) -> Any:
        """A value for one schema; ``name`` is the property that it is of."""
        self._left -= 1
        if self._left < 0 or depth > _MOST_DEPTH or not isinstance(schema, dict):
            return None
        if "$ref" in schema:
            return self.value(self._referred(schema["$ref"]), name, depth + 1)
        for key in _NAMED:
            if key in schema:
                return schema[key]
        for key in _LISTED:
            if _list(schema, key):
                return schema[key][0]
        for key in _COMBINED:
            if _list(schema, key):
                return self._chosen(schema, key, name, depth)
        return self._made(schema, name, depth)

    def _made(self, schema: dict[str, Any], name: str, depth: int) -> Any:  # noqa: PLR0911 - one case per type
        match self._kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "integer":
                return _whole(schema, _first(schema))
            case "number":
                return _whole(schema, _first(schema)) if _counts(schema, name) else _number(schema, 1.5)
            case "boolean":
                return True
            case "null":
                return None
        return _text(schema, name)

    def _kind(self, schema: dict[str, Any]) -> object:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((one for one in kind if one != "null"), "null")
        return kind or ("object" if "properties" in schema else "array" if "items" in schema else None)

    def _chosen(self, schema: dict[str, Any], key: str, name: str, depth: int) -> Any:
        """For the first alternative, or for all that must hold together, as far as they are objects."""
        beside = {other: value for other, value in schema.items() if other != key}
        options = [option for option in schema[key] if isinstance(option, dict)]
        if key != "allOf":
            return self.value({**beside, **(options[0] if options else {})}, name, depth + 1)
        properties: dict[str, Any] = {}
        required: list[Any] = []
        for option in (beside, *options):
            part = self._referred(option["$ref"]) if "$ref" in option else option
            beside |= part
            properties |= _dict(part, "properties")
            required += _list(part, "required")
        beside.pop("$ref", None)
        if properties:
            beside |= {"properties": properties, "required": required}
        return self.value(beside, name, depth + 1)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """All properties of the outermost object, only the required ones of those within."""
        required = _list(schema, "required")
        return {
            name: self.value(one, name, depth + 1)
            for name, one in _dict(schema, "properties").items()
            if (depth == 0 or name in required) and self._left > 0
        }

    def _array(self, schema: dict[str, Any], name: str, depth: int) -> list[Any]:
        least = schema.get("minItems")
        count = max(least if isinstance(least, int) else 0, 1 if depth <= 1 else 0)
        return [self.value(schema.get("items", {}), name, depth + 1) for _ in range(min(count, max(self._left, 0)))]

    def _referred(self, reference: object) -> dict[str, Any]:
        """What ``#/$defs/Name`` names."""
        found: Any = self._root
        for part in str(reference).removeprefix("#").strip("/").split("/"):
            if part:
                found = found.get(part.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found if isinstance(found, dict) else {}


def _list(schema: dict[str, Any], name: str) -> list[Any]:
    value = schema.get(name)
    return value if isinstance(value, list) else []


def _dict(schema: dict[str, Any], name: str) -> dict[str, Any]:
    value = schema.get(name)
    return value if isinstance(value, dict) else {}


def _number(schema: dict[str, Any], usual: float) -> float:
    """The usual one, if it is within the bounds; else the bound."""
    least, most = _bound(schema, "minimum"), _bound(schema, "maximum")
    above, below = _bound(schema, "exclusiveMinimum"), _bound(schema, "exclusiveMaximum")
    if above is not None and (least is None or above >= least):
        least = above + 1
    if below is not None and (most is None or below <= most):
        most = below - 1
    if most is not None and usual > most:
        usual = most
    return least if least is not None and usual < least else usual


def _whole(schema: dict[str, Any], usual: int) -> int:
    least = math.ceil(_within_reach(_number(schema, usual)))
    step = schema.get("multipleOf")
    return -(-least // step) * step if isinstance(step, int) and step > 0 else least


def _within_reach(number: float) -> float:
    return max(-_MOST_WHOLE, min(_MOST_WHOLE, number))


def _counts(schema: dict[str, Any], name: str) -> bool:
    """Whether a ``number`` can only be meant as a whole one: an index, a page, a count, as its name or words show."""
    step = schema.get("multipleOf")
    if isinstance(step, int | float) and not isinstance(step, bool):
        return step == int(step) if math.isfinite(step) else False
    if _has_fraction(schema):
        return False
    words = {word.lower() for word in _NAME_WORD.findall(name)}
    return bool(words & _COUNTED) or _COUNTED_IN_WORDS.search(_words_of(schema)) is not None


def _has_fraction(schema: dict[str, Any]) -> bool:
    """Whether a bound of it has: from 0 to 0.5 there is no index."""
    bounds = (_bound(schema, name) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"))
    return any(bound is not None and bound % 1 for bound in bounds)


def _first(schema: dict[str, Any]) -> int:
    """What is counted from: 1, unless the words say 0."""
    return 0 if _FROM_ZERO.search(_words_of(schema)) else 1


def _words_of(schema: dict[str, Any]) -> str:
    return " ".join(str(schema.get(name, ""))[:_MOST_CHARS] for name in ("title", "description"))


def _bound(schema: dict[str, Any], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(schema: dict[str, Any], name: str) -> str:
    text = _TEXTS.get(str(schema.get("format")), f"some {name}")
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int):
        text = text.ljust(min(least, _MOST_CHARS), "x")
    return text[:most] if isinstance(most, int) and most >= 0 else text
