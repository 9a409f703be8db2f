"""What ``edge reload`` and ``edge upgrade`` share: finding the process, asking it, and waiting for what comes of it.

In: a process id, or the environment. Out: a signal; what the process says, and an exit status: 0 it is done, 1 it is
not, 2 there is nobody to ask. Must not: signal what may not be Edge, or wait for ever.
"""

import os
import sys
import time
from typing import NoReturn

import click

from edge.service import pidfile, systemctl
from edge.service.pidfile import Outcome

DONE, NOT_DONE, NOBODY = 0, 1, 2
_LOOK_S = 0.05

pid_option = click.option("--pid", type=click.IntRange(min=1), help="The process; without it, the one that is found.")


def ask(pid: int | None, number: int, action: str, within_s: float) -> NoReturn:
    """Signal the process, wait until it has said what came of it, print that, and exit.

    Args:
        pid: The process; None for the one that is found.
        number: The signal.
        action: ``Outcome.action``.
        within_s: How long it may take.
    """
    found = pid or pidfile.find(os.environ)
    if found is None:
        _end(_none(), NOBODY)
    places = pidfile.places_of(found)
    asked_at = time.monotonic()
    try:
        os.kill(found, number)
    except ProcessLookupError as error:
        _end(f"process {found} cannot be signalled: {error.strerror}", NOBODY)
    except OSError as error:
        hint = "; root can, by sudo" if isinstance(error, PermissionError) else ""
        _end(f"process {found} cannot be signalled: {error.strerror}{hint}", NOT_DONE)
    outcome = _outcome(found, places, action, asked_at, within_s)
    if isinstance(outcome, str):
        _end(outcome, NOT_DONE)
    lines = [_printable(line) for line in outcome.lines]
    if not outcome.done:
        _end("\n  ".join([f"{action} refused by process {found}, which goes on as it was:", *lines]), NOT_DONE)
    click.echo("\n  ".join([f"process {found}: {action} done", *lines]))
    sys.exit(DONE)


def _outcome(pid: int, places: pidfile.Places, action: str, asked_at: float, within_s: float) -> Outcome | str:
    """What it says; or why it says nothing."""
    while True:
        lives = _lives(pid)  # before the look: it may say it, and end
        for outcome in pidfile.outcomes(places):
            # One that it was at already may have read the configuration of before.
            if outcome.action == action and outcome.began >= asked_at:
                return outcome
        if not lives:
            return f"process {pid} ended before it reported the outcome of the {action}; its log says more"
        if time.monotonic() > asked_at + within_s:
            return (
                f"process {pid} was asked to {action}, and has not said within {within_s:g} s what came of it; "
                "its log says more"
            )
        time.sleep(_LOOK_S)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _printable(line: str) -> str:
    """Root may ask another user's process, which must not reach root's terminal by it."""
    return "".join(char if char.isprintable() else "?" for char in line)


def _end(why: str, status: int) -> NoReturn:
    click.echo(f"edge: {why}", err=True)
    sys.exit(status)


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
    places = ", ".join(str(place.path) for place in pidfile.directories(os.environ, os.getuid()))
    return (
        f"no running Edge of this user was found: none of {places} has an edge.pid whose process lives, and there is "
        f"no {pidfile.UNIT} here. Where one runs, name it by --pid; to start one: edge serve"
    )
