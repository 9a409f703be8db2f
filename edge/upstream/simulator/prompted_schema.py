"""The JSON schema in a prompt: where structured output is asked for in words, that is where libraries put it.

In: the texts of a prompt. Out: the last schema in them, since examples of what is no answer come before it. Must not:
raise, or look at more than a bounded part of a prompt.
"""

import json
from collections.abc import Iterable
from typing import Any

_MOST_CHARS = 100_000  # of each text
_MOST_TRIES = 50  # braces in a text that begin no JSON: each may cost a look at all that follows
_WRAPPED_IN = ("schema", "json_schema", "parameters")  # as in a response_format, or a tool
_decode = json.JSONDecoder().raw_decode


def schema_in(texts: Iterable[str]) -> dict[str, Any] | None:
    """The last schema in these texts; None if there is none."""
    found = [schema for text in texts for schema in _schemas(text[:_MOST_CHARS])]
    return found[-1] if found else None


def _schemas(text: str) -> list[dict[str, Any]]:
    found = []
    at = tries = 0
    while (at := text.find("{", at)) >= 0 and tries < _MOST_TRIES:
        try:
            value, at = _decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            tries += 1
            continue
        schema = _schema(value)
        if schema is not None:
            found.append(schema)
    return found


def _schema(value: Any) -> dict[str, Any] | None:
    """What was decoded, if it is the schema of an object, or what is wrapped in it."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("properties"), dict) or value.get("type") == "object":
        return value
    if "$ref" in value and isinstance(value.get("$defs"), dict):
        return value
    wrapped = (_schema(value.get(name)) for name in _WRAPPED_IN)
    return next((schema for schema in wrapped if schema is not None), None)
