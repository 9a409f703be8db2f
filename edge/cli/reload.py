"""``edge reload``: have the running Edge read its configuration again.

In: which process. Out: SIGHUP. Must not: read the configuration itself: the process has its own environment.
"""

import signal

import click

from edge.cli.signalling import pid_option, send


@click.command()
@pid_option
def reload(pid: int | None) -> None:
    """Have the running Edge read its configuration again; streams that run are left alone."""
    send(pid, signal.SIGHUP, "reload")
