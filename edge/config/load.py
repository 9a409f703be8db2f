"""Loading: file, environment and command line in, checked settings out, or every mistake at once.

In: a path, the environment, addresses. Out: ``Loaded``, or ``ConfigError``. Must not: stop at the first mistake, or
read anything but that file, the credentials it names and the certificates it names.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.config.authentication import weak_keys
from edge.config.command import CommandLine
from edge.config.fields import KEYS, LISTED, SECTIONS, convert, env_name, faults, section_of
from edge.config.home import expanded, no_place
from edge.config.lines import find_lines, line_of
from edge.config.problems import ConfigError, Problem, Where
from edge.config.rules import conflicts
from edge.config.secrets import Resolver
from edge.config.sources import Found, from_command, from_environ, from_file, keys_by_name, unclaimed
from edge.settings import CLOUD_URLS, URLLESS, Settings

Values = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Loaded:
    """A configuration that can be used. Its settings are left out of its ``repr``: they hold secrets."""

    settings: Settings = field(repr=False)
    path: Path | None
    warnings: list[str]


def load(path: Path | None, environ: Mapping[str, str], command: CommandLine | None = None) -> Loaded:
    """Load the settings.

    Args:
        path: The TOML file, or None for the defaults.
        environ: The environment: ``EDGE_SECTION_KEY`` overrides the file, ``${VAR}`` is looked up here.
        command: What the command line gives; it overrides both.

    Raises:
        ConfigError: With all that is wrong.
    """
    found = Found()
    if path is not None:
        _read(found, path)
    from_environ(found, environ)
    from_command(found, command or CommandLine())
    claimed = keys_by_name(found, environ)
    resolver = Resolver(environ)
    settings = _build(found, _settle(found, resolver, environ))
    problems, warnings = unclaimed(environ, resolver.used | claimed)
    problems = found.problems + _impossible(found, settings) + _homeless(found, settings, environ) + problems
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.line is None, problem.line or 0)))
    return Loaded(settings, path, warnings + weak_keys(settings.auth))


def _read(found: Found, path: Path) -> None:
    """Take what the file gives.

    Raises:
        ConfigError: It cannot be read or is not TOML; nothing more can be said then.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark that TOML does not know
    except OSError as error:
        raise ConfigError([Problem("", None, f"cannot be read: {error.strerror}", str(path))]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem("", None, "is not UTF-8 text", str(path))]) from None
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError([_not_toml(path, text, str(error))]) from None
    lines = find_lines(text)

    def where(key: str) -> Where:
        line = line_of(lines, key)
        return Where(str(path) if line is None else f"{path}:{line}", line)

    from_file(found, table, where)


def _not_toml(path: Path, text: str, message: str) -> Problem:
    """The parser ends its message with "(at line 3, column 9)" or "(at end of document)"."""
    at = re.search(r" \(at line (\d+), column \d+\)$", message)
    line = int(at[1]) if at else max(1, len(text.splitlines()))
    return Problem("", line, f"not TOML: {message}", f"{path}:{line}")


def _settle(found: Found, resolver: Resolver, environ: Mapping[str, str]) -> Values:
    """The values that are right; what is wrong goes to the problems."""
    values: Values = {}
    for place, entries in found.given.items():
        values[place] = {}
        for name, given in entries.items():
            hint = KEYS[section_of(place)][name].type
            value, wrong = resolver.resolve(given.value)
            value, homeless = expanded(f"{section_of(place)}.{name}", value, environ)
            wrong += homeless
            wrong = wrong or faults(hint, value, lax=given.lax)
            if wrong:
                found.problems += [given.where.problem(f"{place}.{name}", text) for text in wrong]
            else:
                values[place][name] = convert(hint, value, lax=given.lax)
    return values


def _build(found: Found, values: Values) -> Settings:
    """The settings, with defaults for what is wrong and empty texts for what is missing."""
    built: dict[str, Any] = {}
    for section, struct in SECTIONS.items():
        if section not in LISTED:
            built[section] = struct(**values.get(section, {}))
            continue
        required = [name for name, info in KEYS[section].items() if info.required]
        built[section] = []
        for place in (place for place in values if section_of(place) == section):
            needs_url = section == "upstream" and values[place].get("kind") not in {*CLOUD_URLS, *URLLESS}
            found.problems += _missing(found, place, [*required, *["url"] * needs_url])
            built[section].append(struct(**dict.fromkeys(required, "") | values[place]))
    return Settings(**built)


def _missing(found: Found, place: str, required: Sequence[str]) -> list[Problem]:
    """What a place must have, and does not."""
    head, section = found.heads[place], section_of(place)
    return [
        head.problem(f"{place}.{name}", "is required" if head.line else f"is required: {env_name(section, name)}")
        for name in required
        if name not in found.given[place]
    ]


def _homeless(found: Found, settings: Settings, environ: Mapping[str, str]) -> list[Problem]:
    """The store's default place, for a user without a home directory."""
    key = "store.url"
    wrong = any(problem.key == key for problem in found.problems)  # then its default is here, which nobody wants
    why = None if wrong else no_place(settings.store.url, environ)
    return [] if why is None else [(found.where(key) or Where()).problem(key, why)]


def _impossible(found: Found, settings: Settings) -> list[Problem]:
    """Conflicts between values that are right by themselves; a key that is wrong already is not reported twice."""
    wrong = {problem.key for problem in found.problems}
    problems = []
    for conflict in conflicts(settings):
        if any(wrong & {key, key.rpartition(".")[0], section_of(key)} for key in conflict.keys):
            continue
        key = next((key for key in conflict.keys if found.where(key)), conflict.keys[0])
        problems.append((found.where(key) or Where()).problem(key, conflict.message))
    return problems
