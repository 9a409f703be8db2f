"""What ``edge reload`` and ``edge upgrade`` share: finding the process, and signalling it.

In: a process id, or the environment. Out: a signal, and a line that says so. Must not: signal what may not be Edge.
"""

import os
import sys

import click

from edge.service import pidfile, systemctl

pid_option = click.option("--pid", type=click.IntRange(min=1), help="The process; without it, the one that is found.")


def send(pid: int | None, number: int, what: str) -> None:
    """Signal the process, or say why not and exit with status 1."""
    found = pid or pidfile.find(os.environ)
    if found is None:
        click.echo(f"edge: {_none()}", err=True)
        sys.exit(1)
    try:
        os.kill(found, number)
    except OSError as error:
        hint = "; root can, by sudo" if isinstance(error, PermissionError) else ""
        click.echo(f"edge: process {found} cannot be signalled: {error.strerror}{hint}", err=True)
        sys.exit(1)
    click.echo(f"process {found} was asked to {what}; its log tells what came of it")


def _none() -> str:
    """Why there is nobody to signal, and what to do."""
    try:
        unit = systemctl.show(pidfile.UNIT, ("LoadState", "ActiveState", "SubState"))
    except systemctl.Failed:
        unit = {}
    if unit.get("LoadState") == "loaded":
        state = f"{unit['ActiveState']} ({unit['SubState']})"
        return (
            f"{pidfile.UNIT} is {state}: there is no process to ask. Its next start takes what is installed and "
            "configured by then: systemctl start edge; why it ended: journalctl -u edge"
        )
    return (
        "no running Edge was found: there is no edge.pid in $RUNTIME_DIRECTORY or $XDG_RUNTIME_DIR whose process "
        f"lives, and no {pidfile.UNIT} here. Where one runs, name it by --pid; to start one: edge serve"
    )
