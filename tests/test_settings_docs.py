"""The settings, config/edge.toml and the README's table say the same."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from edge.config import Row, load, render_example, render_table, settings_rows
from edge.settings import Limit, Settings, Upstream

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "config" / "edge.toml"
ROWS = settings_rows()
LISTED = {"upstream": Upstream, "limit": Limit}


def with_blocks() -> str:
    """The example with its commented blocks in force."""
    return re.sub(r"^#(?=[a-z\[])", "", EXAMPLE.read_text(), flags=re.MULTILINE)


def test_the_example_file_is_the_generated_one():
    """After a change of the settings: python -m edge.config > config/edge.toml."""
    assert render_example() == EXAMPLE.read_text()


def test_the_example_file_changes_nothing():
    """Whoever starts from the example has the defaults."""
    assert Settings() == load(EXAMPLE, {}).settings


def test_the_blocks_of_the_example_work_once_they_are_uncommented(tmp_path):
    file = tmp_path / "edge.toml"
    file.write_text(with_blocks())
    settings = load(file, {}).settings
    shown = {"max_concurrency": 4, "allow_management": True, "repairs": ["drop-null-events"]}
    assert [Upstream(name="local", url="http://127.0.0.1:8000", **shown)] == settings.upstream
    assert [Limit(name="everybody")] == settings.limit


def test_the_example_file_names_every_setting():
    """Sections and keys, the commented blocks' too, are those of the structs."""
    table = tomllib.loads(with_blocks())
    table |= {section: table[section][0] for section in LISTED}
    named = [f"{section}.{key}" for section, content in table.items() for key in content]
    assert [f"{row.section}.{row.key}" for row in ROWS] == named


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.env)
def test_every_setting_has_its_help_and_unit_above_it(row: Row):
    """The line above a key is the description in the struct, with the unit or the values in brackets."""
    struct = LISTED.get(row.section) or type(getattr(Settings(), row.section))
    description = msgspec.json.schema(struct)["$defs"][struct.__name__]["properties"][row.key]["description"]
    section = EXAMPLE.read_text().partition(f"[{row.section}]")[2]
    above = re.search(rf"^# (.*)\n#?{row.key} = ", section, flags=re.MULTILINE)
    assert above is not None
    assert row.help == description
    assert above[1] == (f"{description} [{row.unit}]" if row.unit else description)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.env)
def test_a_unit_in_the_name_is_the_unit(row: Row):
    """A key in seconds ends in _s, one in bytes in _bytes, and the documentation says so."""
    endings = {"_s": "s", "_bytes": "bytes"}
    named = next((unit for ending, unit in endings.items() if row.key.endswith(ending)), None)
    assert named == (row.unit if row.unit in endings.values() else None)


def test_the_table_has_every_setting_with_its_variable():
    """A row each, in order, and no cell that breaks the table."""
    lines = render_table().splitlines()[2:]
    assert [f"| `{row.section}.{row.key}` |" for row in ROWS] == [line[: line.index("|", 1) + 1] for line in lines]
    assert all(line.endswith(f"| `{row.env}` |") for row, line in zip(ROWS, lines, strict=True))
    assert {6} == {len(re.findall(r"(?<!\\)\|", line)) for line in lines}


def test_the_readme_has_the_table():
    """Between its two markers; python -m edge.config --table prints it."""
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- settings -->\n(.*)<!-- /settings -->", readme, flags=re.DOTALL)
    assert found is not None, "README.md has no <!-- settings --> … <!-- /settings -->"
    assert render_table().strip() == found[1].strip()


@pytest.mark.parametrize(("option", "expected"), [((), render_example()), (("--table",), render_table())])
def test_the_command_prints_them(option: tuple[str, ...], expected: str):
    """In a process of its own, as the head of the example file says, with an ASCII locale too."""
    command = [sys.executable, "-m", "edge.config", *option]
    env = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True)  # noqa: S603 - our own module
    assert expected == done.stdout.decode()
