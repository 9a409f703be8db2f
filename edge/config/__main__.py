"""Prints what is derived from the settings: the example file, or with ``--table`` the README's table."""

import sys

from edge.config.reference import render_example, render_table

sys.stdout.write(render_table() if sys.argv[1:] == ["--table"] else render_example())
