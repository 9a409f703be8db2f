"""What is said of a key on the command line.

In: texts. Out: values, or a sentence about what is wrong with the text. Must not: know where keys are kept.
"""

import re
import time
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import click

from edge.policy.auth.keys import is_name
from edge.policy.limits.allowance import Allowance

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"([0-9]{1,9})([smhdw])")
_CLASS = re.compile(r"[A-Za-z0-9._-]{1,64}")
_NUMBERS = {field.name for field in fields(Allowance)}


class Span(click.ParamType):  # type: ignore[type-arg]  # of older versions it takes none
    """A span of time, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See click."""
        if not isinstance(value, str):
            return float(value)
        seconds = span_s(value)
        if seconds is None:
            self.fail("must be a number with its unit: 90s, 30m, 1h, 7d or 2w", param, ctx)
        return seconds


class Moment(click.ParamType):  # type: ignore[type-arg]  # of older versions it takes none
    """A moment in the future: Unix time, or None for never."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """See click."""
        if value == "never" or not isinstance(value, str):
            return None
        now = time.time()
        seconds = span_s(value)
        moment = now + seconds if seconds is not None else _parsed(value)
        if moment is None:
            self.fail("must be a span (30d, 12h), a date (2030-01-31, which begins it, UTC), or never", param, ctx)
        if moment <= now:
            self.fail("is in the past", param, ctx)
        return moment


class Name(click.ParamType):  # type: ignore[type-arg]  # of older versions it takes none
    """What a key is called."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See click."""
        text = str(value)
        if not is_name(text):
            self.fail(
                "must be 1 to 64 letters, digits or . _ @ -, and must not begin with anonymous or key-", param, ctx
            )
        return text


class Limits(click.ParamType):  # type: ignore[type-arg]  # of older versions it takes none
    """The name of a class of limits, or numbers by the names that they have in the configuration."""

    name = "limits"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Allowance:
        """See click."""
        text = str(value)
        if "=" not in text:
            if not _CLASS.fullmatch(text):
                self.fail("must be a name, or numbers such as requests_per_min=60,concurrent=2", param, ctx)
            return text
        found: dict[str, Any] = {}
        for part in text.split(","):
            name, _, number = (piece.strip() for piece in part.partition("="))
            if name not in _NUMBERS:
                self.fail(f"there is no {name!r}; there are {', '.join(sorted(_NUMBERS))}", param, ctx)
            if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?" if name == "weight" else "[0-9]{1,15}", number):
                self.fail(f"{name} must be a number", param, ctx)
            found[name] = float(number) if name == "weight" else int(number)
        if found.get("weight") == 0:
            self.fail("weight must be above 0", param, ctx)
        return Allowance(**found)


def span_s(text: str) -> float | None:
    """Seconds of a span such as ``30d``; None if it is none."""
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _UNITS_S[found[2]] if found else None


def _parsed(text: str) -> float | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
