"""``edge keys``: make, list, revoke and replace the keys that callers have.

In: arguments, and the configuration, for where keys are kept. Out: a key, once, on stdout, and on stderr what is to be
known of it. Must not: show a key that was made before, for it is not kept. A running Edge follows within two seconds.
"""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click
import orjson

from edge.cli.config_option import config_option, load_or_exit
from edge.cli.key_options import Limits, Moment, Name, Span
from edge.cli.store import Nobody
from edge.cli.tables import print_table
from edge.policy.auth.keys import KeyRecord, make_key
from edge.policy.auth.principal import LANES
from edge.policy.limits.allowance import Allowance
from edge.store.opening import MEMORY, Stores
from edge.store.ports import KeyStore, StoreDown, Unusable

T = TypeVar("T")

_expires = click.option("--expires", type=Moment(), help="30d, 12h, a date, or never (the default).")


@click.group()
def keys() -> None:
    """Make, list, revoke and replace API keys; a running Edge follows at once."""


@keys.command()
@config_option
@click.option("--name", required=True, type=Name(), help="Whose it is: in logs, and of the streams and sessions.")
@_expires
@click.option("--models", help="Names of the models it may use, with * and ?, separated by commas; all by default.")
@click.option("--limits", type=Limits(), help="A class of limits, or numbers: requests_per_min=60,concurrent=2.")
@click.option("--lane", multiple=True, type=click.Choice(LANES), help="May be repeated, the default one first.")
@click.option("--admin", is_flag=True, help="It may read the metrics, and change an Ollama's models.")
def create(
    *,
    config: Path | None,
    name: str,
    expires: float | None,
    models: str | None,
    limits: str | Allowance | None,
    lane: tuple[str, ...],
    admin: bool,
) -> None:
    """Make a key, and show it this once."""
    globs = None if models is None else tuple(glob for part in models.split(",") if (glob := part.strip()))
    if globs == ():
        raise click.BadParameter("names no model; leave it out to allow all", param_hint="--models")
    like = KeyRecord(
        "", name, "", 0.0, expires=expires, models=globs, lanes=lane or None, limits=limits, admin=admin
    )  # fmt: skip

    async def make(store: KeyStore) -> tuple[str, KeyRecord]:
        now = time.time()
        if any(record.name == name and record.is_live(now) for record in await store.keys()):
            raise click.ClickException(f"{name} has a key already; edge keys rotate {name} replaces it")
        key, record = make_key(like, now)
        await store.put(record)
        return key, record

    _show_once(*_with_store(config, make))


@keys.command("list")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def list_(config: Path | None, *, as_json: bool) -> None:
    """Show what is known of all keys; the keys themselves are not kept."""

    async def read(store: KeyStore) -> list[KeyRecord]:
        return await store.keys()

    records, now = _with_store(config, read), time.time()
    if as_json:
        fields = [{**asdict(record), "state": _state(record, now)} for record in records]
        for one in fields:
            del one["digest"]
        click.echo(orjson.dumps(fields, option=orjson.OPT_INDENT_2))
    elif records:
        head = ("id", "name", "state", "created", "expires", "models", "limits", "lanes", "admin")
        print_table(head, [_row(record, now) for record in records])
    else:
        click.echo("there are no keys there", err=True)


@keys.command()
@config_option
@click.argument("name_or_id")
@click.option(
    "--forget", is_flag=True, help="Let go of the record too. Without any, and no key configured, none is asked for."
)
def revoke(config: Path | None, name_or_id: str, *, forget: bool) -> None:
    """Let nobody in any more with a key, by its id, or with any key of a name."""

    async def end(store: KeyStore) -> list[KeyRecord]:
        now = time.time()
        found = _matching(await store.keys(), name_or_id, None if forget else now)
        for record in found:
            await (store.forget(record.id) if forget else store.put(replace(record, revoked=now)))
        return found

    for record in _with_store(config, end):
        click.echo(f"{'forgotten' if forget else 'revoked'}: {record.id} of {record.name}", err=True)


@keys.command()
@config_option
@click.argument("name_or_id")
@click.option("--overlap", type=Span(), default="1h", show_default=True, help="How long the old one still works; 0s.")
@click.option(
    "--expires", type=Moment(), help="30d, 12h, a date, or never; by default it lives as long as the old one."
)
def rotate(config: Path | None, name_or_id: str, overlap: float, expires: float | None) -> None:
    """Make a key that replaces another, with the same name and rights, and show it this once."""
    given = click.get_current_context().get_parameter_source("expires") is click.core.ParameterSource.COMMANDLINE

    async def turn(store: KeyStore) -> tuple[str, KeyRecord]:
        now = time.time()
        old = _matching(await store.keys(), name_or_id, now)
        latest = old[-1]
        lives_s = None if latest.expires is None else latest.expires - latest.created
        until = expires if given else None if lives_s is None else now + lives_s
        key, record = make_key(replace(latest, expires=until), now)
        await store.put(record)  # first: there is always one that works
        for one in old:
            await store.put(replace(one, expires=min(now + overlap, one.expires or now + overlap)))
        return key, record

    _show_once(*_with_store(config, turn))
    click.echo(f"the old one works for another {overlap:g} s", err=True)


# --- the store ------------------------------------------------------------------------------------------------------


def _with_store(config: Path | None, work: Callable[[KeyStore], Awaitable[T]]) -> T:
    """Do something with the store that is configured; what cannot be done ends the command with a sentence."""
    settings = load_or_exit(config).settings
    if settings.store.url == MEMORY:
        raise click.ClickException("store.url = memory: keeps no keys; set it to sqlite:, sqlite:PATH or redis://…")

    async def run() -> T:
        stores = Stores(settings, Nobody(), os.environ)
        click.echo(f"keys in {stores.keys.place}", err=True)
        try:
            return await work(stores.keys)
        finally:
            await stores.close()

    try:
        return asyncio.run(run())
    except (StoreDown, Unusable) as error:
        raise click.ClickException(str(error)) from None


def _matching(records: Sequence[KeyRecord], name_or_id: str, live_at: float | None) -> list[KeyRecord]:
    """The keys of this id or name, the oldest first; only those that let anybody in at this time, if one is given."""
    known = [record for record in records if name_or_id in (record.id, record.name)]
    if not known:
        raise click.ClickException(f"there is no key with the id or name {name_or_id}; see edge keys list")
    found = [record for record in known if live_at is None or record.is_live(live_at)]
    if not found:
        raise click.ClickException(f"{name_or_id} has been revoked or has expired already; see edge keys list")
    return found


# --- printing -------------------------------------------------------------------------------------------------------


def _show_once(key: str, record: KeyRecord) -> None:
    expires = "never expires" if record.expires is None else f"expires {_when(record.expires)}"
    click.echo(f"key {record.id} of {record.name}, {expires}; it is shown this once:", err=True)
    sys.stderr.flush()
    click.echo(key)


def _row(record: KeyRecord, now: float) -> tuple[str, ...]:
    limits = record.limits
    if isinstance(limits, Allowance):
        limits = ",".join(f"{name}={value:g}" for name, value in asdict(limits).items() if value is not None)
    return (
        record.id,
        record.name,
        _state(record, now),
        _when(record.created),
        "never" if record.expires is None else _when(record.expires),
        "all" if record.models is None else ", ".join(record.models),
        limits or "the usual",
        "all" if record.lanes is None else ", ".join(record.lanes),
        "yes" if record.admin else "no",
    )


def _state(record: KeyRecord, now: float) -> str:
    return "revoked" if record.revoked is not None else "live" if record.is_live(now) else "expired"


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M UTC")
