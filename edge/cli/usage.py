"""``edge usage``: requests and tokens by key and day, from the store that an Edge has counted in.

In: a configuration, for its store. Out: a table, or JSON for scripts; exit status 1 with the reason if the store cannot
be read. Must not: write to the store, or need a running Edge.
"""

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import click
import orjson

from edge.cli.serve import load_or_exit
from edge.cli.tables import print_table
from edge.policy.counters import Account, Used, by_day, days_before
from edge.policy.routing import printable
from edge.store.base import StoreDown, Unusable
from edge.store.opening import path_of

_DAYS = 400  # what a store keeps
_LOCKED_S = 5.0


@click.command()
@click.option("--config", "config", type=click.Path(path_type=Path), help="TOML file; without one, the defaults.")
@click.option("--days", type=click.IntRange(1, _DAYS), default=30, show_default=True, help="Today and the days before.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: day, principal, requests, tokens.")
def usage(config: Path | None, days: int, as_json: bool) -> None:  # noqa: FBT001 - click's way
    """Show requests and tokens of each key and day, by UTC."""
    url = load_or_exit(config).settings.store.url
    try:
        found = _read(url, days_before(time.time(), days - 1))
    except (OSError, ValueError, sqlite3.Error, StoreDown, Unusable) as error:
        click.echo(f"edge: the usage cannot be read: {error}", err=True)
        sys.exit(1)
    (_print_json if as_json else _print)(by_day(found.items()))


def _read(url: str, first: str) -> Mapping[Account, Used]:
    kind = url.partition(":")[0]
    if kind == "memory":
        raise ValueError("store.url is memory: nothing outlives the process; use sqlite: or redis://…")
    if kind == "sqlite":
        return _from_file(url, first)
    return asyncio.run(_from_redis(url, first))


def _from_file(url: str, first: str) -> Mapping[Account, Used]:
    from edge.store.sqlite_count_file import read_usage  # noqa: PLC0415 - only what this store needs
    from edge.store.sqlite_file import open_to_read  # noqa: PLC0415 - likewise

    connection = open_to_read(path_of(url, os.environ), _LOCKED_S)
    if connection is None:
        return {}
    try:
        return read_usage(connection, first)
    finally:
        connection.close()


async def _from_redis(url: str, first: str) -> Mapping[Account, Used]:
    from edge.store.redis_counters import RedisCounters  # noqa: PLC0415 - as above
    from edge.store.redis_link import RedisLink  # noqa: PLC0415 - as above

    store = RedisCounters(RedisLink(url, _Silent()))
    try:
        return await store.usage(first)
    finally:
        await store.close()


class _Silent:
    """Who need not be told of outages, as what is asked fails."""

    def stop_asked(self, stream_id: str) -> None:
        """No stream is here."""

    def store_failed(self, why: str) -> None:
        """The question fails by it."""

    def store_recovered(self, after_s: float) -> None:
        """Nobody waits for it."""


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
        told = {"day": day, "principal": principal, "requests": used.requests}
        told |= {"prompt_tokens": used.prompt, "completion_tokens": used.completion, "tokens": used.tokens}
        click.echo(orjson.dumps(told).decode())
