"""What servers report of the requests that they can work on at once, and of those that they work on.

In: bodies of their own routes. Out: numbers, or None where a body says nothing. Must not: ask, or trust
a body's shape.
"""

import re
from typing import Any

import orjson

MOST_SLOTS = 65536  # more is not meant

# One line for each engine: vllm:num_requests_running{engine="0",model_name="m"} 1.0
_RUNNING = re.compile(rb"^vllm:num_requests_running(?:\{[^\n]*\})? ([0-9.eE+]+)\s*$", re.MULTILINE)


def total_slots(props: bytes) -> int | None:
    """How many slots a llama.cpp has, by its ``/props``."""
    reported = _json(props)
    slots = reported.get("total_slots") if isinstance(reported, dict) else None
    return _plausible(slots)


def listed_slots(slots: bytes) -> int | None:
    """Likewise, by its ``/slots``."""
    reported = _json(slots)
    return _plausible(len(reported)) if isinstance(reported, list) else None


def busy_slots(slots: bytes) -> int | None:
    """How many slots a llama.cpp works on, by its ``/slots``."""
    reported = _json(slots)
    if not isinstance(reported, list) or not all(
        isinstance(slot, dict) and "is_processing" in slot for slot in reported
    ):
        return None
    return sum(slot["is_processing"] is not False for slot in reported)


def running_requests(metrics: bytes) -> int | None:
    """How many sequences a vLLM works on, by its ``/metrics``; all its engines together.

    A request with ``n = 4``, or with four prompts, is four.
    """
    try:
        reported = [float(number) for number in _RUNNING.findall(metrics)]
        return int(sum(reported)) if reported else None
    except (ValueError, OverflowError):
        return None


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _plausible(slots: object) -> int | None:
    return slots if isinstance(slots, int) and not isinstance(slots, bool) and 0 < slots <= MOST_SLOTS else None
