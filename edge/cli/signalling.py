"""What ``edge reload`` and ``edge upgrade`` share: finding the process, and signalling it.

In: a process id, or the environment. Out: a signal, and a line that says so. Must not: signal what may not be Edge.
"""

import os
import sys

import click

from edge.service import pidfile

pid_option = click.option("--pid", type=click.IntRange(min=1), help="The process; without it, the one that is found.")


def send(pid: int | None, number: int, what: str) -> None:
    """Signal the process, or say why not and exit with status 1."""
    found = pid or pidfile.find(os.environ)
    if found is None:
        click.echo(
            "edge: no running Edge was found: there is no edge.pid in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR whose "
            f"process lives, and systemd runs no {pidfile.UNIT}; use --pid",
            err=True,
        )
        sys.exit(1)
    try:
        os.kill(found, number)
    except OSError as error:
        click.echo(f"edge: process {found} cannot be signalled: {error.strerror}", err=True)
        sys.exit(1)
    click.echo(f"process {found} was asked to {what}; its log tells what came of it")
