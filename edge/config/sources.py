"""What was given for each key, by the file, the environment and the command line; the later one wins.

In: the parsed file, the environment, addresses. Out: raw values by place and key, each with where it was written, and
the keys that do not exist. Must not: check or resolve a value.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_origin

from edge.config.fields import ENV_NAMES, KEYS, LISTED, SECTIONS, bare, env_name, section_of
from edge.config.problems import Problem, Where, nearest

# What one of a listed section is called that the environment alone describes.
NAMES = {"upstream": "local", "limit": "default"}


@dataclass(frozen=True, slots=True)
class Given:
    """One raw value; ``lax`` where numbers and booleans are spelt as text."""

    value: object = field(repr=False)
    where: Where
    lax: bool = False


@dataclass
class Found:
    """Everything that was given: raw values by place (``stream``, ``upstream[0]``) and key; and what is no key."""

    given: dict[str, dict[str, Given]] = field(default_factory=dict)
    heads: dict[str, Where] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, key: str) -> Where | None:
        """Where a key was given, if it was."""
        place, _, name = key.rpartition(".")
        given = self.given.get(place, {}).get(name)
        return given.where if given else None


def from_file(found: Found, table: Mapping[str, Any], where: Callable[[str], Where]) -> None:
    """Take what the file gives."""
    for section, content in table.items():
        if section not in SECTIONS:
            found.problems.append(where(section).problem(section, _unknown_section(section)))
            continue
        for place, entry in _entries(section, content):
            if isinstance(entry, dict):
                _take(found, place, entry, where)
            else:
                heading = f"[[{section}]] for each {section}" if section in LISTED else f"[{section}] as a section"
                found.problems.append(where(place).problem(place, f"must be written as {heading}"))


def from_environ(found: Found, environ: Mapping[str, str]) -> None:
    """Take what ``EDGE_SECTION_KEY`` variables give."""
    given = Counter(map(section_of, found.given))
    for variable in sorted(environ.keys() & ENV_NAMES.keys()):
        section, key = ENV_NAMES[variable]
        where = Where(variable)
        place = f"{section}[0]" if section in LISTED else section
        if section in LISTED and given[section] > 1:
            message = f"the file has {given[section]} {section}s, so a variable cannot tell which: set it in the file"
            found.problems.append(where.problem(f"{section}.{key}", message))
        elif not environ[variable].strip():
            message = "the variable is set but empty: give it a value, or unset it for the default"
            found.problems.append(where.problem(f"{place}.{key}", message))
        else:
            if section in LISTED and place not in found.given:
                found.given[place] = {"name": Given(NAMES[section], where)}
                found.heads[place] = where
            value = _from_text(KEYS[section][key].type, environ[variable])
            found.given.setdefault(place, {})[key] = Given(value, where, lax=True)


def from_command(found: Found, listen: Sequence[str], simulator: Mapping[str, object] | None) -> None:
    """Take the command line's addresses, if there are any, and its simulator in place of all upstreams."""
    if listen:
        found.given.setdefault("server", {})["listen"] = Given(list(listen), Where("--listen"))
    if simulator is not None:
        for place in [place for place in found.given if section_of(place) == "upstream"]:
            del found.given[place]
        given = {"name": "simulator", "kind": "simulator", **simulator}
        found.given["upstream[0]"] = {key: Given(value, Where("--simulate")) for key, value in given.items()}
        found.heads["upstream[0]"] = Where("--simulate")


def unclaimed(environ: Mapping[str, str], used: set[str]) -> tuple[list[Problem], list[str]]:
    """The ``EDGE_`` variables that are no setting: mistakes, and (for other sections' names) warnings.

    Args:
        environ: The environment.
        used: Variables that the configuration refers to itself; they are in their right.
    """
    problems, warnings = [], []
    for variable in sorted(environ.keys() - ENV_NAMES.keys() - used):
        section = next((name for name in SECTIONS if variable.startswith(env_name(name, ""))), None)
        if section is not None:
            meant = nearest(variable, [env_name(section, key) for key in KEYS[section]])
            hint = f"did you mean {meant}?" if meant else f"there are {', '.join(KEYS[section])}"
            problems.append(Where(variable).problem(variable[5:].lower().replace("_", ".", 1), f"no such key; {hint}"))
        elif variable.startswith("EDGE_"):
            meant = nearest(variable, ENV_NAMES, cutoff=0.8)  # all begin with EDGE_: less would suggest anything
            hint = f"; did you mean {meant}?" if meant else ""
            warnings.append(f"{variable} is ignored: Edge has no such setting{hint}")
    return problems, warnings


def _entries(section: str, content: object) -> Iterator[tuple[str, object]]:
    if section in LISTED and isinstance(content, list):
        yield from ((f"{section}[{n}]", entry) for n, entry in enumerate(content))
    else:
        yield section, None if section in LISTED else content


def _take(found: Found, place: str, entry: Mapping[str, object], where: Callable[[str], Where]) -> None:
    section = section_of(place)
    found.heads[place] = where(place)
    taken = found.given.setdefault(place, {})
    for name, value in entry.items():
        key = f"{place}.{name}"
        if name in KEYS[section]:
            taken[name] = Given(value, where(key))
        else:
            found.problems.append(where(key).problem(key, _unknown_key(section, name)))


def _unknown_section(name: str) -> str:
    meant = nearest(name.lower(), SECTIONS) or _elsewhere(name)
    return f"no such section; did you mean {meant}?" if meant else f"no such section; there are {', '.join(SECTIONS)}"


def _unknown_key(section: str, name: str) -> str:
    meant = nearest(name.lower(), KEYS[section]) or _elsewhere(name)
    return f"no such key; did you mean {meant}?" if meant else f"no such key; there are {', '.join(KEYS[section])}"


def _elsewhere(name: str) -> str | None:
    homes = {key: f"{section}.{key}" for section, keys in KEYS.items() for key in keys}
    meant = nearest(name.lower(), homes)
    return homes[meant] if meant else None


def _from_text(hint: Any, text: str) -> object:
    kind = get_origin(bare(hint))
    if kind is list:
        return [item.strip() for item in text.split(",")]
    if kind is dict:
        try:
            return json.loads(text)
        except ValueError:
            return None
    return text
