"""On which line of a TOML text a key stands.

In: the text (``tomllib`` keeps no positions). Out: line numbers by key. Must not: judge anything. Headers and keys at
the start of a line are found; what is inside an inline table has the line of that table.
"""

import re
from collections import Counter

_PART = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*""")
_HEADER = re.compile(r"""^\s*(\[\[?)([A-Za-z0-9_.\s"'-]+)\]\]?\s*(?:#.*)?$""")
_KEY = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*'))*)\s*=""")


def find_lines(text: str) -> dict[str, int]:
    """The line (from 1) of each section and key; entries of ``[[name]]`` are called ``name[0]``, ``name[1]`` …."""
    lines: dict[str, int] = {}
    entries: Counter[str] = Counter()
    section: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            section = _parts(header[2])
            if header[1] == "[[":
                lines.setdefault(section[0], number)
                entries[section[0]] += 1
            if entries[section[0]]:
                section[0] += f"[{entries[section[0]] - 1}]"
            _note(lines, section, number)
        elif key := _KEY.match(line):
            _note(lines, section + _parts(key[1]), number)
    return lines


def line_of(lines: dict[str, int], key: str) -> int | None:
    """The line of a key, or of the nearest thing around it that has one."""
    while key not in lines:
        outer, dot, _ = key.rpartition(".")
        shorter = outer if dot else key.partition("[")[0]
        if shorter == key:
            return None
        key = shorter
    return lines[key]


def _parts(dotted: str) -> list[str]:
    return ["".join(found) for found in _PART.findall(dotted)]


def _note(lines: dict[str, int], parts: list[str], number: int) -> None:
    for length in range(1, len(parts) + 1):
        lines.setdefault(".".join(parts[:length]), number)
