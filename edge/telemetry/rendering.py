"""How a log line is written: as JSON, or as key=value.

In: the fields of a line, as structlog hands them on. Out: one line of text, that no value can break or forge. Must not:
write anything, or import structlog.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:  # ``edge.telemetry.log`` alone imports structlog: importing it plainly loads rich (5 MB, 50 ms)
    from structlog.typing import EventDict

_BEARER = re.compile(r'(?i)(\bbearer\s+)[^\s"\\]+')
# What could end a line, move a cursor or not be encoded: C0, DEL, C1, the Unicode line ends, lone surrogates.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_BARE = re.compile(r"[^\s\"'=\\]+")  # values that need no quotes in key=value
_BARE_EVENT = re.compile(r"[^\"=\\]+")  # an event may have blanks


def as_json(_: object, __: str, event: "EventDict") -> str:
    """One line of JSON (a structlog processor)."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return harmless(_dumps({**first, **event}))


def as_logfmt(_: object, __: str, event: "EventDict") -> str:
    """``time level event key=value …``; a traceback follows on indented lines, which no record starts with."""
    head = f"{event.pop('timestamp')} {event.pop('level'):<7} {harmless(shown(event.pop('event'), _BARE_EVENT))}"
    trace = str(event.pop("exception", "")).splitlines()
    pairs = [f"{harmless(name)}={harmless(shown(value))}" for name, value in event.items()]
    return "\n".join([" ".join([head, *pairs]), *("    " + harmless(line) for line in trace)])


def shown(value: object, bare: re.Pattern[str] = _BARE) -> str:
    """As it is if it cannot be mistaken for something else, otherwise as JSON."""
    return value if isinstance(value, str) and bare.fullmatch(value) else _dumps(value)


def _dumps(value: object) -> str:
    options = orjson.OPT_NON_STR_KEYS
    try:
        return orjson.dumps(value, default=str, option=options).decode()
    except TypeError:  # a lone surrogate (undecodable header bytes) or an integer beyond 64 bits
        return orjson.dumps(_plain(value), default=str, option=options).decode()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {_plain(name): _plain(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(held) for held in value]
    return value if value is None or isinstance(value, bool | float) else str(value).encode(errors="replace").decode()


def harmless(text: str) -> str:
    """Text that can neither end a line, move a cursor nor show a bearer token."""
    if "bearer" in text.lower():
        text = _BEARER.sub(r"\1[redacted]", text)
    if text.isprintable():
        return text
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
