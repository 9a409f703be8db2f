"""Compact lines for somebody who sits at a terminal: one for each finished request, never wider than the terminal.

In: the fields of a line, as structlog hands them on. Out: text with colours, or without. Must not: write anything,
hide a warning or any part of one, or let a value move the cursor.
"""

import os
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, TextIO

from edge.telemetry.rendering import harmless, shown

if TYPE_CHECKING:  # see ``rendering``
    from structlog.typing import EventDict

_DIM, _RED, _GREEN, _YELLOW = "2", "31", "32", "33"
_LEVEL_COLOURS = {"warning": _YELLOW, "error": _RED, "critical": _RED}
_OUTCOME_COLOURS = {"complete": _GREEN, "client_gone": _DIM, "client_stall": _YELLOW, "stopped": _DIM}
_USUAL_COLUMNS = 80  # where the width cannot be found out
_LEAST_COLUMNS = 40
_MODEL_COLUMNS = 20
_LEAST_MODEL_COLUMNS = 8
_SURFACE_COLUMNS = 16
# The parts of the total time, in plain words; which of them are worth a mention.
_PARTS = {
    "upstream_s": "model",
    "queued_s": "queue",
    "client_blocked_s": "reader",
    "connecting_s": "connecting",
    "edge_s": "Edge",
}
_WORTH_A_MENTION = 0.05
# The start screen says these once for all, and of a request only its end is shown.
_LEFT_OUT = frozenset({"start", "listening", "config file"})
_LEFT_OUT_AT_START = _LEFT_OUT | {"upstream found", "upstream models changed"}


@dataclass(frozen=True, slots=True)
class _Cell:
    """A part of a line: at least ``least`` columns wide; the one with the highest rank is left out first, 0 never."""

    text: str
    least: int
    colour: str = ""
    rank: int = 0

    @property
    def padded(self) -> str:
        return self.text + " " * (self.least - _cells(self.text))

    def cut(self, columns: int) -> "_Cell":
        return replace(self, text=_cut(self.text, columns), least=min(self.least, columns))


class ConsoleRenderer:
    """A structlog processor that ends the chain.

    Args:
        columns: How wide the terminal is now.
        colours: Whether to use them.
        starting: The start screen will name the upstreams that are found before it.
    """

    def __init__(self, columns: Callable[[], int], *, colours: bool, starting: bool = False) -> None:
        self._left_out = _LEFT_OUT_AT_START if starting else _LEFT_OUT
        self._columns = columns
        self._colours = colours

    def __call__(self, _: object, __: str, event: "EventDict") -> str:
        """Returns an empty text for a line that is left out."""
        name = str(event["event"])
        if name in self._left_out:
            return ""
        columns = max(self._columns(), _LEAST_COLUMNS)
        if name == "exchange":
            return self._exchange(event, columns)
        if name == "refused" and "status" in event:
            words = (event.get(key, "") for key in ("status", "error", "method", "path"))
            event["event"] = f"refused {' '.join(map(str, words))}"
            for key in ("status", "error", "method", "path", "request_id"):
                event.pop(key, None)
        return self._plain(event, columns)

    def _exchange(self, event: Mapping[str, object], columns: int) -> str:
        """``time model surface TTFT rate outcome total: where it went``, as far as it fits."""
        outcome = str(event["outcome"])
        words = [str(event["status"]), outcome, str(event["error"])] if event.get("error") else [outcome]
        ended = " ".join(dict.fromkeys(words))  # an error is often named as the outcome is
        colour = _OUTCOME_COLOURS.get(outcome, _LEVEL_COLOURS.get(str(event["level"]), _YELLOW))
        ttft, rate = event.get("ttft_s"), event.get("tokens_per_s")
        cells = [
            _Cell(_time(event), 8, _DIM),
            _Cell(_cut(harmless(str(event.get("model") or "-")), _MODEL_COLUMNS), _MODEL_COLUMNS),
            _Cell(_cut(harmless(str(event["surface"])), _SURFACE_COLUMNS), 9, _DIM, rank=1),
            _Cell("" if ttft is None else f"{_seconds(ttft)} TTFT", 12, rank=2),
            _Cell("" if rate is None else f"{rate:.1f} tok/s", 11, rank=3),
            _Cell(harmless(ended), 8, colour),
        ]
        where = (_Cell(text, 0, _DIM) for text in _where(event))
        cells += [cell for cell in where if _width([*cells, cell]) <= columns][:1]
        for rank in (3, 2, 1):
            if _width(cells) > columns:
                cells = [cell for cell in cells if cell.rank != rank]
        over = _width(cells) - columns
        if over > 0:  # the model, then the outcome
            cells[1] = cells[1].cut(max(_LEAST_MODEL_COLUMNS, _MODEL_COLUMNS - over))
            cells[-1] = cells[-1].cut(columns - _width(cells[:-1]) - 1)
        return " ".join(self._coloured(cell.padded, cell.colour) for cell in cells).rstrip()

    def _plain(self, event: "EventDict", columns: int) -> str:
        """``time event  key value …``; information is cut to the width, a warning goes on in further lines."""
        level, name = str(event.pop("level")), harmless(str(event.pop("event")))
        time = _time({"timestamp": event.pop("timestamp")})
        trace = str(event.pop("exception", "")).splitlines()
        pairs = [f"{harmless(key)}: {harmless(_plain_value(value))}" for key, value in event.items()]
        colour = _LEVEL_COLOURS.get(level, "")
        text = "  ".join([name, *pairs])
        room = columns - 9
        lines = textwrap.wrap(text, room) or [""] if colour else [_cut(text, room)]
        head = f"{self._coloured(time, _DIM)} {self._coloured(lines[0], colour)}"
        further = [" " * 9 + self._coloured(line, colour) for line in lines[1:]]
        return "\n".join([head, *further, *("    " + harmless(line) for line in trace)])

    def _coloured(self, text: str, colour: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if colour and self._colours and text.strip() else text


def console_renderer(stream: TextIO | None, *, starting: bool = False) -> ConsoleRenderer:
    """One for what is written to this stream: in colours if it is a terminal that has them, and NO_COLOR is not set."""
    terminal = stream is not None and stream.isatty()
    colours = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"
    return ConsoleRenderer(lambda: _columns_of(stream), colours=colours, starting=starting)


def _width(cells: Sequence[_Cell]) -> int:
    return sum(_cells(cell.padded) + 1 for cell in cells) - 1


def _columns_of(stream: TextIO | None) -> int:
    try:
        return _USUAL_COLUMNS if stream is None else os.get_terminal_size(stream.fileno()).columns or _USUAL_COLUMNS
    except (OSError, ValueError):  # no terminal, or closed
        return _USUAL_COLUMNS


def _time(event: Mapping[str, object]) -> str:
    return datetime.fromisoformat(str(event["timestamp"])).astimezone().strftime("%H:%M:%S")


def _where(event: Mapping[str, object]) -> list[str]:
    """Such as ``6.52s: model 6.20s, queue 0.30s``: the total and the parts that matter, largest first; then shorter."""
    total = event.get("total_s")
    if not isinstance(total, float | int):
        return []
    spent = {word: value for part, word in _PARTS.items() if isinstance(value := event.get(part), float | int)}
    named = sorted((word for word in spent if spent[word] >= total * _WORTH_A_MENTION), key=lambda word: -spent[word])
    parts = [f"{word} {_seconds(spent[word])}" for word in named]
    fuller = [f"{_seconds(total)}: {', '.join(parts[:count])}" for count in range(len(parts), 0, -1)]
    return [*fuller, _seconds(total)]


def _seconds(value: object) -> str:
    return f"{value:.2f}s" if isinstance(value, float | int) and value < 100 else f"{value:.0f}s"


def _plain_value(value: object) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(map(_plain_value, value)) if isinstance(value, list | tuple) else shown(value)


def _cells(text: str) -> int:
    """Columns that it takes up."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


def _cut(text: str, columns: int) -> str:
    if _cells(text) <= columns:
        return text
    while text and _cells(text) > columns - 1:
        text = text[:-1]
    return f"{text}…"
