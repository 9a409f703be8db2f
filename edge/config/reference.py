"""The settings as documentation: ``config/edge.toml`` and the README's table.

In: the structs of ``edge.settings``. Out: text. Must not: say anything about a setting that the structs do not say.
"""

import json
from dataclasses import dataclass
from typing import Any

from msgspec import NODEFAULT
from msgspec.structs import FieldInfo

from edge.config.fields import KEYS, LISTED, SECTIONS, choices, env_name, facts

REQUIRED = "required"
UNSET = "unset"

_HEAD = """\
# The settings of Edge, each with its default. All are optional.
#
# A variable EDGE_SECTION_KEY overrides a key: EDGE_STREAM_HEARTBEAT_S=5, EDGE_SERVER_LISTEN="127.0.0.1:80,systemd".
# In a variable, list items are separated by commas, and a table is a JSON object.
# In a string, ${VAR} stands for an environment variable; the string "credential:NAME" for a systemd credential.
# In brackets: the unit, or the values that a key may take.
#
# Written by `python -m edge.config > config/edge.toml`; change the help in edge/settings.py, not here.
"""

# Values that show what is meant where no default does.
_EXAMPLES = {
    ("upstream", "name"): '"local"',
    ("upstream", "url"): '"http://127.0.0.1:8000"',
    ("upstream", "max_concurrency"): "4",
    ("upstream", "allow_management"): "true",
    ("upstream", "repairs"): '["drop-null-events"]',
    ("limit", "name"): '"everybody"',
}


@dataclass(frozen=True, slots=True)
class Row:
    """One setting, as documentation shows it.

    Attributes:
        section: Its section.
        key: Its name in there.
        default: The default as TOML, or "required", or "unset".
        unit: Its unit, or the values it may take, or nothing.
        help: One line.
        env: The variable that overrides it.
    """

    section: str
    key: str
    default: str
    unit: str
    help: str
    env: str


def settings_rows() -> list[Row]:
    """Every setting, in the order of the structs."""
    return [_row(section, field) for section, keys in KEYS.items() for field in keys.values()]


def render_example() -> str:
    """The text of ``config/edge.toml``: it gives every default, so loading it changes nothing."""
    return "\n".join([_HEAD, *(_section(section) for section in SECTIONS)])


def render_table() -> str:
    """The README's table, in Markdown."""
    lines = ["| setting | default | unit or values | | environment |", "|---|---|---|---|---|"]
    for row in settings_rows():
        default = row.default if row.default in (REQUIRED, UNSET) else f"`{row.default}`"
        cells = (f"`{row.section}.{row.key}`", default, row.unit, row.help, f"`{row.env}`")
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _section(section: str) -> str:
    title = (SECTIONS[section].__doc__ or "").strip()
    rows = [row for row in settings_rows() if row.section == section]
    if section in LISTED:  # having one is a choice, so it is shown as a comment: "# " is text, "#key" a setting
        lines = [f"# {title} One such block for each; take away the # before a key to set it.", f"#[[{section}]]"]
        return (
            "\n".join(lines + [line for row in rows for line in (_comment(row), f"#{row.key} = {_shown(row)}")]) + "\n"
        )
    lines = [f"# {title}", f"[{section}]"]
    return "\n".join(lines + [line for row in rows for line in (_comment(row), f"{row.key} = {_shown(row)}")]) + "\n"


def _comment(row: Row) -> str:
    return f"# {row.help} [{row.unit}]" if row.unit else f"# {row.help}"


def _shown(row: Row) -> str:
    return _EXAMPLES.get((row.section, row.key), row.default)


def _row(section: str, field: FieldInfo) -> Row:
    known = facts(field.type)
    unit = known.get("unit") or ", ".join(choices(field.type))
    return Row(section, field.name, _default(field), unit, known["description"], env_name(section, field.name))


def _default(field: FieldInfo) -> str:
    if field.required:
        return REQUIRED
    value = field.default if field.default_factory is NODEFAULT else field.default_factory()
    return UNSET if value is None else _toml(value)


def _toml(value: Any) -> str:
    """A default as TOML: JSON's strings, lists, numbers, booleans and empty table are TOML's too."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value, ensure_ascii=False)
