"""``edge reload``: have the running Edge read its configuration again.

In: which process. Out: SIGHUP, and what came of it. Must not: read the configuration itself: the process has its own
environment.
"""

import signal

import click

from edge.cli.signalling import ask, pid_option

_WITHIN_S = 60.0  # new upstreams are looked at before they are used


@click.command()
@pid_option
def reload(pid: int | None) -> None:
    """Have the running Edge read its configuration again; streams that run are left alone.

    Waits for the outcome. Exit status: 0 done, 1 refused, with the reasons, 2 there is no running Edge.
    """
    ask(pid, signal.SIGHUP, "reload", _WITHIN_S)
