"""Words to write JSON schemas with.

In: what a field may be. Out: schemas. Must not: know any field.

A field that may be left out may also be null: that is how requests are read (``protocol.fields``).
"""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def text(about: str = "", *, needed: bool = False, **more: Any) -> Schema:
    """A string."""
    return _field("string", about, needed=needed, **more)


def flag(about: str = "") -> Schema:
    """True or false."""
    return _field("boolean", about)


def number(least: float | None = None, most: float | None = None, about: str = "") -> Schema:
    """A number."""
    return _field("number", about, **_bounds(least, most))


def whole(least: int | None = None, most: int | None = None, about: str = "", *, needed: bool = False) -> Schema:
    """A whole number."""
    return _field("integer", about, needed=needed, format="int64", **_bounds(least, most))


def word(*allowed: str | bool, about: str = "", needed: bool = False) -> Schema:
    """One of these."""
    fields: Schema = {"enum": [*allowed, *(() if needed else (None,))]}
    return {**fields, "description": about} if about else fields


def items(of: Schema, about: str = "", *, needed: bool = False, **more: Any) -> Schema:
    """A list."""
    return _field("array", about, needed=needed, items=of, **more)


def record(fields: Mapping[str, Schema], *needed: str, about: str = "", optional: bool = False) -> Schema:
    """An object whose ``needed`` fields must be there; what is not among its fields is passed on."""
    payload = _field("object", about, needed=not optional, properties=dict(fields), additionalProperties=True)
    return {**payload, "required": list(needed)} if needed else payload


def anything(about: str = "") -> Schema:
    """An object that is passed on as it is."""
    return _field("object", about, additionalProperties=True)


def either(*schemas: Schema, about: str = "") -> Schema:
    """Any of these."""
    fields: Schema = {"anyOf": list(schemas)}
    return {**fields, "description": about} if about else fields


def ref(name: str, kind: str = "schemas") -> Schema:
    """What stands under this name in the document's components."""
    return {"$ref": f"#/components/{kind}/{name}"}


def _field(kind: str, about: str, *, needed: bool = False, **more: Any) -> Schema:
    fields: Schema = {"type": kind if needed else [kind, "null"], **more}
    return {**fields, "description": about} if about else fields


def _bounds(least: float | None, most: float | None) -> Schema:
    return {name: bound for name, bound in (("minimum", least), ("maximum", most)) if bound is not None}
