"""The option ``--config``, alike in every command that has it, and what it leads to.

In: a path, or nothing. Out: the loaded configuration, or all mistakes on stderr and exit status 2. Must not: import
what serving needs.
"""

import os
import sys
from pathlib import Path

import click

from edge.config import ConfigError, Loaded, config_file, load

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="TOML file; else $EDGE_CONFIG, ./edge.toml or $XDG_CONFIG_HOME/edge/edge.toml, the first that is there.",
)


def load_or_exit(config: Path | None) -> Loaded:
    """Load the configuration; on mistakes print them all, one a line, and exit with status 2."""
    try:
        return load(config_file(config, os.environ), os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
