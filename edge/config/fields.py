"""What may be set: sections, keys, their environment names and what each key takes.

In: the structs of ``edge.settings``. Out: facts about their fields, and the check of one value. Must not: know where a
value came from, or repeat it.
"""

import math
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import FieldInfo, fields

from edge.settings import Settings

_UNITS = {"s": " of seconds", "bytes": " of bytes"}


def bare(hint: Any) -> Any:
    """A type without its annotations and without ``| None``."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) is UnionType:
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    return hint


def _struct(hint: Any) -> type[Struct]:
    inner = bare(hint)
    struct: type[Struct] = get_args(inner)[0] if get_origin(inner) is list else inner
    return struct


SECTIONS: dict[str, type[Struct]] = {field.name: _struct(field.type) for field in fields(Settings)}
# Sections of which there may be any number, each written as [[section]].
LISTED = frozenset(field.name for field in fields(Settings) if get_origin(bare(field.type)) is list)
KEYS: dict[str, dict[str, FieldInfo]] = {
    section: {field.name: field for field in fields(struct)} for section, struct in SECTIONS.items()
}


def env_name(section: str, key: str) -> str:
    """The environment variable of a key."""
    return f"EDGE_{section}_{key}".upper()


ENV_NAMES: dict[str, tuple[str, str]] = {env_name(s, key): (s, key) for s, keys in KEYS.items() for key in keys}


def section_of(place: str) -> str:
    """The section of a place: ``upstream`` of ``upstream[0]``."""
    return place.partition("[")[0]


def facts(hint: Any) -> dict[str, Any]:
    """The annotations of a type: its description, unit and bounds, those that are there."""
    found: dict[str, Any] = {}
    for meta in get_args(hint)[1:] if get_origin(hint) is Annotated else ():
        if isinstance(meta, Meta):
            names = ("description", "gt", "ge", "pattern")
            found |= {name: getattr(meta, name) for name in names if getattr(meta, name) is not None}
            found |= meta.extra or {}
    return found


def choices(hint: Any) -> tuple[str, ...]:
    """The only values that a key, or each item of it, may take; empty if there is no such list."""
    inner = bare(hint)
    if get_origin(inner) is list:
        inner = get_args(inner)[0]
    return get_args(inner) if get_origin(inner) is Literal else ()


def expects(hint: Any) -> str:
    """What a value of this type looks like, in words."""
    inner, known = bare(hint), facts(hint)
    words: dict[Any, str] = {
        bool: "true or false",
        str: f"a string that matches {known['pattern']}" if "pattern" in known else "a string",
        list: "a list",
        dict: "a table of strings (in a variable: a JSON object)",
        Literal: "one of: " + ", ".join(choices(hint)),
    }
    if (kind := get_origin(inner) or inner) in words:
        return words[kind]
    number = ("a whole number" if inner is int else "a number") + _UNITS.get(known.get("unit", ""), "")
    if "ge" in known:
        return f"{number}, at least {known['ge']}"
    return f"{number}, above {known['gt']}" if "gt" in known else number


def faults(hint: Any, value: object, *, lax: bool) -> list[str]:
    """What is wrong with a value, each in a few words; empty if it can be converted.

    Args:
        hint: The field's type with its annotations.
        value: The value as it was given.
        lax: Whether numbers and booleans may be spelt as text, as environment variables must.
    """
    inner = bare(hint)
    if get_origin(inner) is list and isinstance(value, list):
        item = get_args(inner)[0]
        return [f"item {n} {fault}" for n, part in enumerate(value, start=1) for fault in faults(item, part, lax=lax)]
    try:
        converted = convert(hint, value, lax=lax)
    except msgspec.ValidationError:
        return [f"must be {expects(hint)}"]
    if isinstance(converted, float) and not math.isfinite(converted):
        return ["must be a finite number"]
    return []


def convert(hint: Any, value: object, *, lax: bool) -> Any:
    """The value as the settings hold it."""
    return msgspec.convert(value, hint, strict=not lax)
