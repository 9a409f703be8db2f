"""``edge check``: could this configuration serve, here and now?

In: a configuration file and the environment. Out: tables of what was found, and an exit status for scripts: 0 all is
well, 1 an upstream is not up, an address or the store cannot be used, 2 the configuration is wrong.
Must not: serve, send a model anything, or change what is kept: an address is bound for a moment, a Unix socket only
looked at, a store that is not there is not made. An Edge that serves already is no obstacle.
"""

import asyncio
import errno
import os
import platform
import resource
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from edge import __version__
from edge.api.server import connection_limit, somebody_listens
from edge.cli.config_option import config_option, load_or_exit
from edge.cli.health import edge_at
from edge.cli.store import Nobody
from edge.cli.tables import Row, print_table
from edge.config import Listen, Loaded, parse_listen
from edge.policy.auth.keys import CreatedKeys
from edge.policy.routing import printable
from edge.service import pidfile
from edge.settings import Auth, Log, Settings
from edge.store.access import obstacle, user_of
from edge.store.opening import SQLITE, Stores, path_of, shown_url
from edge.store.ports import StoreDown, Unusable
from edge.telemetry import log
from edge.upstream.discovery.servers import Kind
from edge.upstream.fleet import Fleet, Member
from edge.upstream.jwks import KeySet
from edge.upstream.relay.relay import Relay

_SHOWN_MODELS = 8
_TAKEN = os.strerror(errno.EADDRINUSE)
_LISTENS = "something listens there already"


@dataclass(frozen=True, slots=True)
class Address:
    """A listen address.

    Attributes:
        why: It cannot be listened on now; None if it can.
        served_by: The Edge that listens there already, such as ``edge/1.2.3``; None if it is free.
    """

    listen: Listen
    why: str | None
    served_by: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What the check found.

    Attributes:
        nobody: Why there is no upstream at all; None if there is one.
        locked: A sentence for each port where something wants a key that nobody has configured.
        unstored: Why the store cannot be written; None if it can.
        made: How many keys that were made let somebody in, and how many do not any more; or why that is unknown.
        token_keys: With how many keys tokens can be verified, if there are tokens; or why with none.
    """

    addresses: Sequence[Address]
    members: Sequence[Member]
    nobody: str | None
    locked: Sequence[str]
    unstored: str | None
    made: tuple[int, int] | str
    token_keys: int | str | None

    def is_fine(self, settings: Settings) -> bool:
        """All that is configured can be used; of upstreams that were found, one is enough."""
        if self.unstored is not None or isinstance(self.made, str) or isinstance(self.token_keys, str):
            return False
        enough = all if settings.upstream else any
        return not any(address.why for address in self.addresses) and enough(member.up for member in self.members)


@click.command()
@config_option
def check(config: Path | None) -> None:
    """Check the configuration, the listen addresses and the upstreams, and exit with 0, 1 (not up) or 2 (wrong)."""
    loaded = load_or_exit(config)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    log.configure(Log(level="error"))  # the tables show what a look found
    report = asyncio.run(_look(loaded.settings))
    _show(loaded, report)
    sys.exit(0 if report.is_fine(loaded.settings) else 1)


async def _look(settings: Settings) -> Report:
    """Look at everything once."""
    listens = [parse_listen(text) for text in (*settings.server.listen, *settings.server.admin_listen)]
    fleet = Fleet(
        settings,
        lambda pool, upstream, _member: Relay(pool, upstream.name),
        log=log.get_logger(),
        own_ports={listen.port for listen in listens if listen.kind == "tcp"},
    )
    try:
        await fleet.look()
        _, facts = fleet.ready()
        members, locked = fleet.members, fleet.locked
    finally:
        await fleet.close()
    addresses = [_look_at(listen) for listen in listens]
    nobody = None if members else facts["reason"]
    unstored = await _unstored(settings) or _unstored_by_the_one_that_runs(settings)
    return Report(addresses, members, nobody, locked, unstored, await _made(settings), await _token_keys(settings.auth))


async def _unstored(settings: Settings) -> str | None:
    """Why nothing can be written to the store; found out by writing."""
    stores = Stores(settings, Nobody(), os.environ)
    try:
        why = stores.obstacle()
        streams = stores.streams() if stores.shared and why is None and not stores.empty else None
        if streams is not None:
            await stores.start()
            await streams.purge(before=0.0)  # of what ended before 1970: a write that deletes nothing
    except (StoreDown, Unusable, OSError) as error:
        why = str(error)
    finally:
        await stores.close()
    return why


def _unstored_by_the_one_that_runs(settings: Settings) -> str | None:
    """Why the running Edge, if it is another user's, cannot use its file: whoever made that may be somebody else."""
    pid = pidfile.find(os.environ) if settings.store.url.startswith(SQLITE) else None
    user = None if pid is None else user_of(pid)
    if pid is None or user is None or user.uid == os.geteuid():
        return None
    why = obstacle(path_of(settings.store.url, pidfile.environ_of(pid) or os.environ), user)
    return None if why is None else f"process {pid} cannot use it: {why}"


async def _made(settings: Settings) -> tuple[int, int] | str:
    """The keys that were made."""
    stores = Stores(settings, Nobody(), os.environ)
    try:
        keys = CreatedKeys(await stores.keys.keys())
    except (StoreDown, Unusable) as error:
        return str(error)
    finally:
        await stores.close()
    live = keys.live(time.time())
    return live, len(keys) - live


async def _token_keys(auth: Auth) -> int | str | None:
    """What tokens are verified with; a key set is fetched."""
    if not auth.jwt_jwks and not auth.jwt_secret:
        return None
    key_set = KeySet(auth, log.get_logger())
    try:
        if auth.jwt_jwks:
            await key_set.fetch()
    finally:
        await key_set.close()
    return len(key_set.keys or ()) or key_set.why


def _look_at(listen: Listen) -> Address:
    """Whether an address is free, or an Edge has it."""
    why = _cannot_listen(listen)
    served_by = edge_at(listen) if why in {_TAKEN, _LISTENS} else None
    return Address(listen, None if served_by else why, served_by)


def _cannot_listen(listen: Listen) -> str | None:
    """Why this address cannot be listened on now; None if it can."""
    try:
        if listen.kind == "tcp":
            _bind(listen)
        elif listen.kind == "unix":
            return _cannot_create(Path(listen.path))
    except OSError as error:
        return error.strerror or str(error)
    return None


def _bind(listen: Listen) -> None:
    """Bind as ``edge serve`` would, and let go."""
    infos = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, proto, _, address in infos:
        with socket.socket(family, kind, proto) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)


def _cannot_create(path: Path) -> str | None:
    """Binding would create the file, so it is judged by what is there."""
    if path.is_socket():
        return _LISTENS if somebody_listens(path) else None
    if path.exists():
        return "there is a file of that name, which is no socket"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"no socket can be made in {path.parent}: it is not there, or not writable"
    return None


# --- printing -------------------------------------------------------------------------------------------------------


def _show(loaded: Loaded, report: Report) -> None:
    """Print the tables."""
    print_table(("edge", __version__), _facts(loaded, report))
    print_table(("listen", "state"), [_address_row(address) for address in report.addresses])
    if report.members:
        head = ("upstream", "kind", "url", "state", "models", "surfaces", "repairs")
        print_table(head, [_member_row(member) for member in report.members])
    if report.nobody:
        click.echo(report.nobody)  # which names what is locked, too
    else:
        for sentence in report.locked:
            click.echo(sentence)
    if report.unstored:
        click.echo(f"store: {report.unstored}")


def _facts(loaded: Loaded, report: Report) -> list[Row]:
    settings = loaded.settings
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    nofile = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
    return [
        ("binary", str(Path(sys.argv[0]).resolve())),
        ("config", str(loaded.path.resolve()) if loaded.path else "none: defaults and environment"),
        ("python", f"{platform.python_version()} {sys.executable}"),
        ("open files", nofile),
        ("connections", f"at most {connection_limit(settings.server)}"),
        ("tls", settings.server.tls_cert or "none: TCP is plain"),
        ("auth", _auth(settings.auth, report)),
        ("store", _store(settings, report)),
    ]


def _store(settings: Settings, report: Report) -> str:
    """Where it is, and whether it can be used."""
    place = shown_url(settings.store.url, os.environ)
    return place if report.unstored is None else f"{place}, which cannot be used: see below"


def _auth(auth: Auth, report: Report) -> str:
    """Who may call."""
    ways = [f"{len(auth.keys)} key{'s' * (len(auth.keys) > 1)}"] if auth.keys else []
    if isinstance(report.made, str):
        ways.append(f"keys that were made cannot be read: {report.made}")
    else:
        live, ended = report.made
        ways += [f"{live} made with edge keys" + (f" ({ended} ended)" if ended else "")] if live or ended else []
    if isinstance(report.token_keys, str):
        ways.append(f"tokens cannot be verified: {report.token_keys}")
    elif report.token_keys is not None:
        kind = "a secret" if auth.jwt_secret else f"{report.token_keys} keys of {auth.jwt_issuer}"
        ways.append(f"tokens by {kind}")
    if ways:
        return ", ".join(ways)
    return "nobody yet: auth.require_key, and no key has been made" if auth.require_key else "anonymous: no keys"


def _address_row(address: Address) -> Row:
    if address.listen.kind == "systemd":
        return str(address.listen), "the sockets come with the start"
    if address.served_by is not None:
        return str(address.listen), f"Edge serves there already ({address.served_by})"
    return str(address.listen), address.why or "free"


def _member_row(member: Member) -> Row:
    models = [printable(name) for name in sorted(member.models)]
    more = len(models) - _SHOWN_MODELS
    shown = ", ".join(models[:_SHOWN_MODELS]) + (f" and {more} more" if more > 0 else "")
    # An Ollama is asked in its own API alone, which says little of what can be asked of it through Edge.
    spoken = member.surfaces if member.kind is Kind.OLLAMA else member.native
    return (
        member.name,
        str(member.kind),
        member.url or "in Edge",
        "up" if member.up else f"{member.why}",
        shown or ("any" if member.any_model else "none"),
        ", ".join(sorted(spoken)) or "none",
        ", ".join(sorted(member.repairs)) or "none",
    )
