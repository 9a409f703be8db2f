"""``edge upgrade``: have the running Edge replaced by a new process, such as after a new version was installed.

In: which process. Out: SIGUSR2, and what came of it. Must not: start the new process itself: it is made by the old one,
and is like it.
"""

import signal

import click

from edge.cli.signalling import ask, pid_option
from edge.service.handover import START_S

_WITHIN_S = 2 * START_S  # a reload may be under way


@click.command()
@pid_option
def upgrade(pid: int | None) -> None:
    """Have a new process take over from the running Edge, without a cut.

    Waits for the outcome. Exit status: 0 done, 1 refused, with the reason, 2 there is no running Edge.
    """
    ask(pid, signal.SIGUSR2, "upgrade", _WITHIN_S)
