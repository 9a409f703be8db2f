"""JSON as model servers and their clients write it: read without loss, and written as it came.

In: bytes or text. Out: values, and back. Must not: decode what orjson alone reads rightly any slower than it does.

orjson is stricter than what Edge stands in for (half of a surrogate pair, NaN, infinities), and makes doubles of whole
numbers beyond 64 bits. Python's parser, some ten times slower, reads only what needs it.
"""

import json
import math
import re
from typing import Any, Self

import orjson

# Half of a surrogate pair, as an escape or, from writers that do not check, as three bytes.
_ESCAPED = re.compile(
    rb"(?<!\\)((?:\\\\)*+)\\u[dD](?:[89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|[89a-fA-F][0-9a-fA-F]{2})"
)
_PAIR_CHARS = 12
_BYTES = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
_UNKNOWN_ESCAPED = rb"\ufffd"
_UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_UNKNOWN_BYTES = _UNKNOWN.encode()
# The escape of half a character; whole ones are two of them, so that finding one proves nothing yet.
HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_LONE = re.compile("[\ud800-\udfff]")

# Signs of a number that a double may not hold, once every digit has been made a zero: no 19 digits are over 64 bits,
# but for a negative number. Turning and searching takes 1 ns a byte; a regular expression took ten.
_ZEROS = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_LONG, _NEGATIVE, _SMALL, _SMALL_TOO = b"0" * 20, b"-" + b"0" * 19, b"e-000", b"E-000"
_SURE_DIGITS = 18  # so many are within 64 bits, with a sign too
_DOUBLE_DIGITS = 17  # any double can be written with so many
_LEAST_WHOLE, _MOST_WHOLE = -(2**63), 2**64 - 1
_NO_MEMORY = "Not enough memory"  # how orjson begins to say so, in an error that is otherwise the text's fault


class ExactNumber(float):
    """A number that no double, and no whole number of 64 bits, holds exactly; ``dumps`` writes it as it came."""

    __slots__ = ("text",)

    def __new__(cls, text: str) -> Self:
        """``text`` is the number's JSON."""
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # a number's text, where float has its value
        """For pickle: large requests are read in another process."""
        return (self.text,)


def loads(data: bytes | str, *, finite: bool = False) -> Any:
    """The value of one JSON text.

    Args:
        data: UTF-8.
        finite: NaN and infinities are errors.

    Raises:
        orjson.JSONDecodeError: it is none; the message may be that there was not enough memory.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        return loads_strictly(raw)
    except orjson.JSONDecodeError as error:
        if out_of_memory(error):
            raise
        return _leniently(raw, error, finite=finite)


def loads_strictly(raw: bytes) -> Any:
    """The same, but half characters, NaN, infinities and numbers that are infinite as doubles are errors."""
    zeros = raw.translate(_ZEROS)
    if _LONG in zeros or _NEGATIVE in zeros or _SMALL in zeros or _SMALL_TOO in zeros:  # in a loop it takes 1 µs more
        orjson.loads(raw)
        return _exactly(raw, finite=True)
    return orjson.loads(raw)


def dumps(value: object) -> bytes:
    """One line of JSON; NaN and infinities become null, which every client can read.

    Raises:
        orjson.JSONEncodeError: nested too deep.
    """
    return orjson.dumps(value, _as_it_came)


def out_of_memory(error: orjson.JSONDecodeError) -> bool:
    """Whether the text is not at fault."""
    return str(error).startswith(_NO_MEMORY)


def _leniently(raw: bytes, error: orjson.JSONDecodeError, *, finite: bool) -> Any:
    mended = _BYTES.sub(_UNKNOWN_BYTES, _ESCAPED.sub(_whole_character, raw))
    try:
        return _exactly(mended, finite=finite) if mended == raw else loads(mended, finite=finite)
    except (ValueError, RecursionError):
        raise error from None  # of the text as it came


def _whole_character(match: re.Match[bytes]) -> bytes:
    backslashes = match[1]
    pair = len(match[0]) - len(backslashes) == _PAIR_CHARS
    return match[0] if pair else backslashes + _UNKNOWN_ESCAPED


def _exactly(raw: bytes, *, finite: bool) -> Any:
    constant = _refuse if finite else float
    return json.loads(raw.decode(), parse_int=_whole, parse_float=_fraction, parse_constant=constant)


def _refuse(name: str) -> float:
    raise ValueError(name)


def _whole(text: str) -> int | ExactNumber:
    if len(text) > _SURE_DIGITS and not _LEAST_WHOLE <= float(text) < _MOST_WHOLE + 1:
        return ExactNumber(text)
    value = int(text)
    return value if _LEAST_WHOLE <= value <= _MOST_WHOLE else ExactNumber(text)


def _fraction(text: str) -> float:
    value = float(text)
    digits = text.lower().partition("e")[0].lstrip("-0.").replace(".", "")
    is_zero_by_rounding = value == 0 and digits
    held = math.isfinite(value) and not is_zero_by_rounding and len(digits) <= _DOUBLE_DIGITS
    return value if held else ExactNumber(text)


def _as_it_came(value: object) -> orjson.Fragment:
    if isinstance(value, ExactNumber):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")


class Halves:
    """Decodes those events of one stream that a strict parser refuses; holds the first halves that have come so far.

    Servers that cut text by UTF-16 units send an emoji as two escapes, each in an event of its own. Each half is joined
    with the one that it belongs to; what is left alone is replaced, since nobody could write it as UTF-8.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[object, ...], str] = {}  # by the place of the text that they end

    def loads(self, data: bytes) -> Any:
        """The event's JSON.

        Raises:
            ValueError: it is none, for another reason too.
        """
        try:
            if HALF.search(data) is None:
                value = loads(data)
                if isinstance(value, float):
                    raise ValueError("a bare NaN is no event")
                return value
            return self._joined(json.loads(data.decode()), ())
        except RecursionError:
            raise ValueError("nested too deep") from None

    def _joined(self, value: Any, place: tuple[object, ...]) -> Any:
        if isinstance(value, str):
            return self._text(value, place)
        if isinstance(value, list):
            return [self._joined(item, place) for item in value]
        if isinstance(value, dict):
            inside = (*place, value.get("index") if isinstance(value.get("index"), int) else None)
            return {self._bare(name): self._joined(item, (*inside, name)) for name, item in value.items()}
        return value

    def _text(self, text: str, place: tuple[object, ...]) -> str:
        if not text:
            return text
        text = self._held.pop(place, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._held[place], text = text[-1], text[:-1]
        return self._bare(text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass"))

    def _bare(self, text: str) -> str:
        """What is left as half a character belongs to nothing."""
        return _LONE.sub(_UNKNOWN, text)
