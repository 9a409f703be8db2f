"""``edge init``: write a configuration file to start from.

In: for which servers, or what answers on this host. Out: a file that was not there before, or text on stdout. Must not:
overwrite anything, or start anything.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from edge.cli.examples import examples
from edge.config import load, render_example
from edge.config.starter import CHOICES, Server, found_at, starter, usual
from edge.settings import Log, Settings
from edge.telemetry import log
from edge.upstream.discovery.servers import Kind
from edge.upstream.fleet import Fleet
from edge.upstream.relay.relay import Relay

_STDOUT = "-"
_NAME = "edge.toml"


@click.command(
    epilog=examples("edge init", "edge init --for ollama", "edge init --for openai --for anthropic -o clouds.toml")
)
@click.option("-o", "--output", default=_NAME, show_default=True, metavar="PATH", help="The file; - prints it.")
@click.option(
    "--for", "choices", multiple=True, type=click.Choice(CHOICES), help="May be repeated; else what is found."
)
@click.option("--reference", is_flag=True, help="Every setting with its default, instead of a short file.")
def init(*, output: str, choices: tuple[str, ...], reference: bool) -> None:
    """Write an annotated edge.toml for what runs on this host, or for what you name. Never overwrites a file."""
    if reference and choices:
        raise click.UsageError("--reference has every setting for every server: leave --for out")
    if output != _STDOUT and Path(output).exists():
        _fail(f"{output} is there already, and is left as it is: name another with -o, or delete it")
    servers = [usual(choice) for choice in choices] or ([] if reference else asyncio.run(_found()))
    text = render_example() if reference else starter(servers)
    if output == _STDOUT:
        click.echo(text, nl=False)
        return
    try:
        with Path(output).open("x", encoding="utf-8") as file:  # "x": also if it has come into being meanwhile
            file.write(text)
    except OSError as error:
        _fail(f"{output}: {error.strerror}")
    named = ", ".join(f"{server.name} ({server.url})" if server.url else server.name for server in servers)
    click.echo(f"wrote {output}" + (f" for {named}" if named else ""))
    if not servers and not reference:
        click.echo("no model server answers on the usual ports yet; Edge will look for one by itself")
    option = "" if output == _NAME else f" --config {output}"
    click.echo(f"next: edge check{option}, then edge serve{option}")


async def _found() -> list[Server]:
    """The model servers that answer on the usual ports."""
    log.configure(Log(level="error"))  # the last lines say what was found
    settings = Settings(discovery=load(None, os.environ).settings.discovery)
    fleet = Fleet(settings, lambda pool, upstream, _member: Relay(pool, upstream.name), log=log.get_logger())
    try:
        await fleet.look()
        return [found_at(_choice(member.kind), member.name, member.url) for member in fleet.members]
    finally:
        await fleet.close()


def _choice(kind: Kind) -> str:
    """The kind as ``--for`` spells it, if it has one."""
    return kind.lower().replace(" ", "-")


def _fail(why: str) -> NoReturn:
    click.echo(f"edge init: {why}", err=True)
    sys.exit(1)
