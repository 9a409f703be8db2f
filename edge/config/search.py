"""Which configuration file is read when the command line names none.

In: the environment and the current directory. Out: a path, or None for the defaults. Must not: read the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "EDGE_CONFIG"
_NAME = "edge.toml"


def config_file(given: Path | None, environ: Mapping[str, str]) -> Path | None:
    """``--config``, else ``$EDGE_CONFIG``, else ``./edge.toml``, else ``$XDG_CONFIG_HOME/edge/edge.toml``.

    A file that the command line or the variable names need not be there: whoever reads it reports that.

    Args:
        given: What the command line names.
        environ: The environment: EDGE_CONFIG, XDG_CONFIG_HOME and HOME count.
    """
    if given is not None:
        return given
    if environ.get(VARIABLE):
        return Path(environ[VARIABLE])
    return next((path for path in _usual(environ) if os.path.lexists(path)), None)


def _usual(environ: Mapping[str, str]) -> list[Path]:
    """The usual places. A relative XDG_CONFIG_HOME does not count: https://specifications.freedesktop.org/basedir/."""
    places = [Path(_NAME)]
    home = environ.get("XDG_CONFIG_HOME", "")
    if not home.startswith("/"):
        home = f"{environ['HOME']}/.config" if environ.get("HOME", "").startswith("/") else ""
    return [*places, Path(home) / "edge" / _NAME] if home else places
