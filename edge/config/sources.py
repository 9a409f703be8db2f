"""What was given for each key, by the file, the environment and the command line; the later one wins.

In: the parsed file, the environment, addresses. Out: raw values by place and key, each with where it was written, and
the keys that do not exist. Must not: check or resolve a value.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_origin

from edge.config.command import CommandLine
from edge.config.fields import ENV_NAMES, KEYS, LISTED, SECTIONS, bare, env_name, section_of
from edge.config.problems import Problem, Where, nearest
from edge.config.search import VARIABLE

_OF_COMMANDS = {VARIABLE, "EDGE_API_KEY", "EDGE_BENCH_KEY"}  # these two are sent by commands that ask a running Edge
_NOT_IN_A_VARIABLE = re.compile(r"[^A-Za-z0-9]")
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
            message = f"the file has {given[section]} {section}s, so a variable cannot name one: set it in the file"
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


def from_command(found: Found, command: CommandLine) -> None:
    """Take what the command line gives: its upstreams take the place of all others."""
    if command.listen:
        found.given.setdefault("server", {})["listen"] = Given(list(command.listen), Where("--listen"))
    if command.log:
        of_log = {key: Given(value, Where("the command line")) for key, value in command.log.items()}
        found.given.setdefault("log", {}).update(of_log)
    upstreams, where = command.only_upstreams, Where(command.upstream_option)
    if not upstreams:
        return
    configured = [place for place in found.given if section_of(place) == "upstream"]
    variables = {}
    if command.simulator is None and len(upstreams) == 1:  # EDGE_UPSTREAM_API_KEY and the like are for this one
        of_first = found.given.get("upstream[0]", {})
        variables = {key: given for key, given in of_first.items() if given.lax and key not in {"name", "url"}}
    for place in configured:
        del found.given[place]
    for number, settings in enumerate(upstreams):
        place = f"upstream[{number}]"
        found.given[place] = {**{key: Given(value, where) for key, value in settings.items()}, **variables}
        found.heads[place] = where


def keys_by_name(found: Found, environ: Mapping[str, str]) -> set[str]:
    """Take ``EDGE_UPSTREAM_NAME_API_KEY`` for the upstream of that name, unless it has an ``api_key`` of its own.

    Returns:
        The variables that belong to an upstream.
    """
    claimed = set()
    for place, entries in found.given.items():
        name = entries["name"].value if section_of(place) == "upstream" and "name" in entries else None
        if not isinstance(name, str):
            continue
        variable = env_name("upstream", f"{_NOT_IN_A_VARIABLE.sub('_', name)}_api_key")
        if variable in environ:
            claimed.add(variable)
            entries.setdefault("api_key", Given(environ[variable], Where(variable), lax=True))
    return claimed


def unclaimed(environ: Mapping[str, str], used: set[str]) -> tuple[list[Problem], list[str]]:
    """The ``EDGE_`` variables that are no setting: mistakes, and (for other sections' names) warnings.

    Args:
        environ: The environment.
        used: Variables that the configuration refers to itself; they are in their right.
    """
    problems, warnings = [], []
    for variable in sorted(environ.keys() - ENV_NAMES.keys() - _OF_COMMANDS - used):
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
