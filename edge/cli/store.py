"""``edge store``: what is kept of streams and sessions, and how to let go of it; also while Edge runs.

In: the configuration. Out: sizes, or what was deleted. Must not: delete anything that is being generated.
"""

import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import click
from typing_extensions import override

from edge.cli.config_option import config_option, load_or_exit
from edge.settings import Settings
from edge.store.opening import Stores, shown_url
from edge.store.ports import Sizes, StoreDown, StoreListener, StreamStore, Unusable

T = TypeVar("T")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_KIB = 1024


class Nobody(StoreListener):
    """``store.ports.StoreListener`` for a command, which ends before anything can happen."""

    @override
    def stop_asked(self, stream_id: str) -> None:
        pass

    @override
    def store_failed(self, why: str) -> None:
        pass

    @override
    def store_recovered(self, after_s: float) -> None:
        pass

    @override
    def store_reopened(self, what: str) -> None:
        click.echo(f"edge: {what}", err=True)


@click.group(invoke_without_command=True)
@config_option
@click.pass_context
def store(context: click.Context, config: Path | None) -> None:
    """Show what is kept of streams and sessions (store.url); see also: edge store purge."""
    context.obj = config
    if context.invoked_subcommand is None:
        settings = load_or_exit(config).settings
        sizes = _ask(settings, lambda streams: streams.sizes(), Sizes(0, 0, 0, 0, 0))
        for line in _told(settings, sizes):
            click.echo(line)


@store.command()
@click.option(
    "--older-than", "older", default="0s", metavar="TIME", help="Only what ended so long ago: 90s, 10m, 12h or 7d."
)
@click.pass_obj
def purge(config: Path | None, older: str) -> None:
    """Delete streams that have ended; sessions stay."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", older)
    if found is None:
        raise click.BadParameter("must be a number and s, m, h or d: 90s, 10m, 12h, 7d", param_hint="--older-than")
    before = time.time() - int(found[1]) * _SECONDS[found[2]]
    gone = _ask(load_or_exit(config).settings, lambda streams: streams.purge(before), 0)
    click.echo(f"{gone} {'stream' if gone == 1 else 'streams'} deleted")


def _ask(settings: Settings, ask: Callable[[StreamStore], Awaitable[T]], nothing: T) -> T:
    """Ask the store; ``nothing`` is the answer where there is none yet."""

    async def asked() -> T:
        stores = Stores(settings, Nobody(), os.environ)
        try:
            if stores.empty:
                return nothing
            streams = stores.streams()
            if streams is None:
                raise Unusable('store.url is "memory:": what is kept is in the memory of the Edge that runs')
            await stores.start()
            return await ask(streams)
        finally:
            await stores.close()

    try:
        return asyncio.run(asked())
    except (StoreDown, Unusable, OSError) as error:
        click.echo(f"edge: {error}", err=True)
        sys.exit(1)


def _told(settings: Settings, sizes: Sizes) -> list[str]:
    return [
        f"store     {shown_url(settings.store.url, os.environ)}",
        f"streams   {sizes.streams}, {sizes.live} of them live, {_size(sizes.stream_bytes)} of events",
        f"sessions  {sizes.sessions}",
        f"in all    {_size(sizes.bytes)}",
    ]


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < _KIB:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= _KIB
    return f"{count:.1f} GiB"
