"""The configuration: an optional TOML file and the environment in, checked ``Settings`` out.

In: a path, the environment, what the command line overrides. Out: ``Loaded``, or one ``ConfigError`` that names every
mistake at once. Must not: open sockets, log, or put a configured value into a message (it may be a secret).

``python -m edge.config`` prints ``config/edge.toml``; with ``--table`` it prints the README's table.
"""

from edge.config.certificate import server_context
from edge.config.changes import reconciled
from edge.config.command import CommandLine
from edge.config.listen import Listen, is_loopback, parse_listen
from edge.config.load import Loaded, load
from edge.config.problems import ConfigError, Problem
from edge.config.reference import Row, render_example, render_table, settings_rows
from edge.config.search import config_file

__all__ = [
    "CommandLine",
    "ConfigError",
    "Listen",
    "Loaded",
    "Problem",
    "Row",
    "config_file",
    "is_loopback",
    "load",
    "parse_listen",
    "reconciled",
    "render_example",
    "render_table",
    "server_context",
    "settings_rows",
]
