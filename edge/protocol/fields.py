"""Reading a request field by field, with errors that name the field and what it must be.

In: one JSON object of a request, and its path in it. Out: values of the right type, or None where a field is missing or
null. Must not: guess, or convert a value of the wrong type.
"""

from collections.abc import Iterator
from typing import Any

from edge.errors import BadRequest

# Larger ones come as floats; as whole numbers they could not be written again.
_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64 - 1


class Fields:
    """One JSON object. What has been asked for is known; ``rest`` is what has not.

    Args:
        path: Of the object in the request (``messages.0.``), for errors; empty for the request itself.
    """

    def __init__(self, body: dict[str, Any], path: str = "") -> None:
        self.body = body
        self.path = path
        self._known: set[str] = set()

    def wrong(self, name: str, wanted: str) -> BadRequest:
        """The error for a field that is not what it must be."""
        return BadRequest(f"{self.path}{name}: {wanted}", param=f"{self.path}{name}")

    def any(self, name: str) -> Any:
        """Whatever it is."""
        self._known.add(name)
        return self.body.get(name)

    def known(self, *names: str) -> None:
        """These are no news, though nobody needs them here."""
        self._known.update(names)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.any(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "must be a string")
        return value

    def needed_text(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise self.wrong(name, "required, a string")
        return value

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.any(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def number(self, name: str, least: float | None = None, most: float | None = None) -> float | None:
        """A number within bounds."""
        value = self.any(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(name, "must be a number")
        self._within(name, value, least, most)
        return value

    def whole(self, name: str, least: int | None = None, most: int | None = None) -> int | None:
        """A whole number within bounds."""
        value = self.any(name)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(name, "must be a whole number")
        if not _LEAST_WHOLE <= value <= _MOST_WHOLE:
            raise self.wrong(name, "must be a whole number of at most 64 bits")
        self._within(name, value, least, most)
        return value

    def one_of(self, name: str, *allowed: str) -> str | None:
        """One of these strings."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise self.wrong(name, f"must be one of {', '.join(allowed)}")
        return value

    def texts(self, name: str) -> list[str]:
        """A string, or a list of strings; empty if it is missing."""
        value = self.any(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [value]
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "must be a string or a list of strings")
        return value

    def object(self, name: str) -> "Fields | None":
        """An object."""
        value = self.any(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return Fields(value, f"{self.path}{name}.")

    def needed_object(self, name: str) -> "Fields":
        """An object that must be there."""
        value = self.object(name)
        if value is None:
            raise self.wrong(name, "required, an object")
        return value

    def objects(self, name: str) -> "list[Fields]":
        """A list of objects; empty if it is missing."""
        value = self.any(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(name, "must be a list")
        return list(self._objects(name, value))

    def rest(self) -> dict[str, Any]:
        """The fields that nobody asked for, without those that are null."""
        return {name: value for name, value in self.body.items() if name not in self._known and value is not None}

    def _objects(self, name: str, values: list[Any]) -> "Iterator[Fields]":
        for number, value in enumerate(values):
            if not isinstance(value, dict):
                raise self.wrong(f"{name}.{number}", "must be an object")
            yield Fields(value, f"{self.path}{name}.{number}.")

    def _within(self, name: str, value: float, least: float | None, most: float | None) -> None:
        if least is not None and value < least:
            raise self.wrong(name, f"must be at least {least:g}")
        if most is not None and value > most:
            raise self.wrong(name, f"must be at most {most:g}")
