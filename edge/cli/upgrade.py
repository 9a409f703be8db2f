"""``edge upgrade``: have the running Edge replaced by a new process, such as after a new version was installed.

In: which process. Out: SIGUSR2. Must not: start the new process itself: it is made by the old one, and is like it.
"""

import signal

import click

from edge.cli.signalling import pid_option, send


@click.command()
@pid_option
def upgrade(pid: int | None) -> None:
    """Have a new process take over from the running Edge, without a cut."""
    send(pid, signal.SIGUSR2, "be replaced")
