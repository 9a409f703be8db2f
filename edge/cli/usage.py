"""``edge usage``: requests and tokens by key and day, from the store that an Edge has counted in.

In: a configuration, for its store. Out: a table, or JSON for scripts; exit status 1 with the reason if the store cannot
be read. Must not: write to the store, or need a running Edge.
"""

import asyncio
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import orjson

from edge.cli.config_option import config_option, load_or_exit
from edge.cli.store import Nobody
from edge.cli.tables import print_table
from edge.policy.limits.counters import Account, Used, by_day, days_before
from edge.policy.routing import printable
from edge.settings import Settings
from edge.store.opening import MEMORY, Stores
from edge.store.ports import StoreDown, Unusable

_DAYS = 400  # what a store keeps


@click.command()
@config_option
@click.option("--days", type=click.IntRange(1, _DAYS), default=30, show_default=True, help="Today and the days before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: day, principal, requests, tokens.")
def usage(config: Path | None, days: int, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show requests and tokens of each key and day, by UTC."""
    settings = load_or_exit(config).settings
    try:
        found = asyncio.run(_read(settings, days_before(time.time(), days - 1)))
    except (OSError, ValueError, StoreDown, Unusable) as error:
        click.echo(f"edge: the usage cannot be read: {error}", err=True)
        sys.exit(1)
    (_print_json if as_json else _print)(by_day(found.items()))


async def _read(settings: Settings, first: str) -> Mapping[Account, Used]:
    if settings.store.url == MEMORY:
        raise ValueError("store.url is memory: nothing outlives the process; use sqlite: or redis://…")
    stores = Stores(settings, Nobody(), os.environ)
    try:
        return await stores.usage(first)
    finally:
        await stores.close()


def _print(days: Mapping[tuple[str, str], Used]) -> None:
    if not days:
        click.echo("nothing was used")
        return
    rows = [
        (day, printable(principal), *map(str, (used.requests, used.prompt, used.completion, used.tokens)))
        for (day, principal), used in days.items()
    ]
    print_table(("day", "principal", "requests", "prompt tokens", "answer tokens", "tokens"), rows)


def _print_json(days: Mapping[tuple[str, str], Used]) -> None:
    for (day, principal), used in days.items():
        fields = {"day": day, "principal": principal, "requests": used.requests}
        fields |= {"prompt_tokens": used.prompt, "completion_tokens": used.completion, "tokens": used.tokens}
        click.echo(orjson.dumps(fields).decode())
