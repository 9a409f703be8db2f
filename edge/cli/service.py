"""``edge service``: run this installation under systemd, and see how it fares there.

In: arguments. Out: unit files, and what systemd says. Must not: start what the administrator has not asked to start.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from edge.service import systemctl, units

_ROOT = Path("/")
_UNITS = ("edge.service", "edge.socket")
_FACTS = ("LoadState", "ActiveState", "SubState", "StateChangeTimestamp", "UnitFileState")
_SERVICE_FACTS = ("MainPID", "NRestarts", "StatusText", "Result", "MemoryCurrent")
_INACTIVE = 3  # what systemctl exits with

_dry_run = click.option("--dry-run", is_flag=True, help="Only print what would be done.")
_root = click.option(
    "--root", type=click.Path(path_type=Path, file_okay=False), default=_ROOT, help="Another tree, and no systemctl."
)


@click.group()
def service() -> None:
    """Install Edge as a systemd service, remove it, or see how it fares."""


@service.command()
@_dry_run
@_root
def install(root: Path, *, dry_run: bool) -> None:
    """Write the units for this Python, and a first /etc/edge/edge.toml. Starts nothing; may be repeated."""
    reason = units.unfit()
    if reason is not None:
        click.echo(f"edge service: {reason}", err=True)
        if root == _ROOT and not dry_run:
            sys.exit(1)
    try:
        if dry_run:
            new = [] if (root / units.CONFIG).exists() else [units.config()]
            click.echo("\n".join(f"# --- {root / file.path}\n{file.text}" for file in [*units.units(), *new]), nl=False)
            return
        _need_root(root)
        for path in units.write(root):
            click.echo(f"wrote {path}")
        if root == _ROOT:
            systemctl.run("daemon-reload")
            click.echo("next: systemctl enable --now edge.socket edge.service")
    except (systemctl.Failed, OSError) as error:
        _fail(error)


@service.command()
@_dry_run
@_root
def uninstall(root: Path, *, dry_run: bool) -> None:
    """Stop the service (running streams may finish) and remove its units. Configuration and state stay."""
    found = units.installed(root)
    if not found:
        click.echo("there is nothing to remove")
        return
    try:
        if dry_run:
            click.echo("\n".join(f"would remove {path}" for path in found))
            return
        _need_root(root)
        if root == _ROOT:  # in one go: the socket would start the service again
            systemctl.run("disable", "--now", *_UNITS)
        for path in units.remove(root):
            click.echo(f"removed {path}")
        if root == _ROOT:
            systemctl.run("daemon-reload")
        click.echo(f"kept {root / units.CONFIG.parent} and {root / 'var/lib/private/edge'}: remove them if you want")
    except (systemctl.Failed, OSError) as error:
        _fail(error)


@service.command()
def status() -> None:
    """Say in short how the service fares; the exit status is 0 if it runs, else 3."""
    try:
        edge = systemctl.show("edge.service", (*_FACTS, *_SERVICE_FACTS))
        socket = systemctl.show("edge.socket", (*_FACTS, "Listen"))
    except systemctl.Failed as error:
        _fail(error)
    if edge["LoadState"] == "not-found":
        click.echo("edge.service  not installed: edge service install")
        sys.exit(_INACTIVE)
    since = f" since {edge['StateChangeTimestamp']}" if edge.get("StateChangeTimestamp") else ""
    click.echo(f"edge.service  {_state(edge)}{since}")
    if edge["ActiveState"] not in ("inactive", "failed"):
        click.echo(f"              {edge['StatusText'] or 'has said nothing yet'}")
        click.echo(f"              pid {edge['MainPID']}, {_memory(edge)}, restarts: {edge['NRestarts']}")
    elif edge["Result"] != "success":
        click.echo(f"              ended by: {edge['Result']}; see journalctl -u edge")
    click.echo(f"edge.socket   {_state(socket)}: {socket.get('Listen') or 'no address'}")
    if edge["ActiveState"] not in ("active", "reloading"):
        sys.exit(_INACTIVE)


def _state(facts: dict[str, str]) -> str:
    boot = {"enabled": "starts at boot", "disabled": "does not start at boot"}.get(facts["UnitFileState"])
    return f"{facts['ActiveState']} ({facts['SubState']})" + (f", {boot}" if boot else "")


def _memory(facts: dict[str, str]) -> str:
    used = facts.get("MemoryCurrent", "")
    return f"{int(used) / 2**20:.0f} MiB" if used.isdigit() else "memory not accounted"


def _need_root(root: Path) -> None:
    if root != _ROOT:
        return
    if os.geteuid() != 0:
        raise PermissionError("needs root to change system units: sudo, or --dry-run to see them")
    systemctl.need()


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, OSError) and error.strerror:
        error = OSError(f"{error.filename}: {error.strerror}")
    click.echo(f"edge service: {error}", err=True)
    sys.exit(1)
