"""Other settings for an Edge that runs: what changes now, and what waits for a restart.

In: the settings in force, and those that were just loaded. Out: the settings that can be in force, and the names of
what changed. Must not: repeat a configured value.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from edge.config.fields import KEYS, LISTED, SECTIONS
from edge.config.problems import ConfigError, Problem
from edge.config.rules import conflicts
from edge.settings import Settings

# What is decided when Edge begins to listen.
AT_START = {
    "server": (
        "listen", "admin_listen", "unix_mode", "unix_group", "tls_cert", "tls_key", "max_connections",
        "max_header_bytes", "keepalive_s",
    ),
    "store": ("url",),
}  # fmt: skip
_RESTART = "cannot be changed without a restart, and together with the rest of what is configured now: "


def reconciled(old: Settings, new: Settings) -> tuple[Settings, list[str], list[str]]:
    """What can be in force now, the names of what changes by that, and the names of what waits for a restart.

    Raises:
        ConfigError: the new settings cannot be used with the old ones of those that wait.
    """
    kept = {
        section: replace(getattr(new, section), **{name: getattr(getattr(old, section), name) for name in names})
        for section, names in AT_START.items()
    }
    settings = replace(new, **kept)
    waiting = list(_changed(settings, new))
    if waiting:
        problems = [Problem(conflict.keys[0], None, _RESTART + conflict.message) for conflict in conflicts(settings)]
        if problems:
            raise ConfigError(problems)
    return settings, [*_changed(old, settings), *_listed(old, settings)], waiting


def _changed(old: Settings, new: Settings) -> Iterator[str]:
    for section in (name for name in SECTIONS if name not in LISTED):
        before, after = getattr(old, section), getattr(new, section)
        yield from (f"{section}.{name}" for name in KEYS[section] if getattr(before, name) != getattr(after, name))


def _listed(old: Settings, new: Settings) -> Iterator[str]:
    for section in sorted(LISTED):
        before, after = ({one.name: one for one in getattr(settings, section)} for settings in (old, new))
        yield from (f"{section} {name} added" for name in after if name not in before)
        yield from (f"{section} {name} removed" for name in before if name not in after)
        yield from (f"{section} {name} changed" for name in after if name in before and after[name] != before[name])
        if list(before) != list(after) and before == after:
            yield f"{section} order"
