"""What is kept in JSON, as a version reads it that does not know all of it.

In: a class, and fields. Out: one of the class. Must not: mind fields that a later version has added.
"""

import dataclasses
from collections.abc import Hashable, Mapping
from functools import cache
from typing import Any, TypeVar, cast

T = TypeVar("T")


def known(kind: type[T], facts: Mapping[str, Any]) -> T:
    """A ``kind``, a dataclass, of those of the facts that it knows."""
    names = _names(cast("Hashable", kind))
    return kind(**{name: value for name, value in facts.items() if name in names})


@cache
def _names(kind: Hashable) -> frozenset[str]:
    return frozenset(field.name for field in dataclasses.fields(cast("Any", kind)))
