"""``edge serve``: run one process until it is told to stop."""

import asyncio
import atexit
import functools
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click

from edge.app import Edge
from edge.cli.process import Process
from edge.config import ConfigError, Loaded, load, parse_listen
from edge.service.attend import Attendant, status_line
from edge.service.handover import Predecessor, adopt
from edge.service.notify import Notifier, watchdog_s
from edge.service.pidfile import PidFile, directories
from edge.store.access import this_user
from edge.store.ports import Unusable
from edge.telemetry import log
from edge.telemetry.stray_output import divert
from edge.threads import Threads

# Objects made before a look for cycles. An exchange makes some hundred, nearly all without cycles: with the default of
# 700 the looks took 8 % of a small request.
_GC_THRESHOLD = 10_000
_OVERDUE_S = 5.0  # after all that has a clock of its own; then the process ends as it is


@click.command()
@click.option("--config", "config", type=click.Path(path_type=Path), help="TOML file; without one, the defaults.")
@click.option("--listen", multiple=True, help="HOST:PORT, unix:PATH or systemd; overrides the config, may be repeated.")
@click.option("--simulate", is_flag=True, help="Serve simulated models, and no others: for developing clients.")
@click.option(
    "--pace", type=click.FloatRange(min=0), help="With --simulate: seconds from word to word; 0.05 by default."
)
@click.option("--script", help="With --simulate: a file with what the model called script says.")
def serve(
    config: Path | None, listen: tuple[str, ...], *, simulate: bool, pace: float | None, script: str | None
) -> None:
    """Serve, beside the model servers that are configured or found on the usual loopback ports."""
    given = {key: value for key, value in (("pace_s", pace), ("script", script)) if value is not None}
    if given and not simulate:
        raise click.UsageError("--pace and --script are of use with --simulate only")
    divert()  # before anything is printed, or opened
    predecessor = adopt(os.environ)
    again = functools.partial(load, config, os.environ, listen, given if simulate else None)
    try:
        loaded = again()
    except ConfigError as error:
        _fail(str(error), predecessor)
        sys.exit(2)
    log.configure(loaded.settings.log)
    try:
        import uvloop  # noqa: PLC0415 - there is none on some platforms, and asyncio's own loop serves too
    except ImportError:
        asyncio.run(_served(loaded, again, predecessor))
    else:
        uvloop.run(_served(loaded, again, predecessor))


async def _served(first: Loaded, load_again: Callable[[], Loaded], predecessor: Predecessor | None) -> NoReturn:
    """Serve, and exit with the status.

    Not before everything is written, but without a wait for threads that hang on a dead disk, and without the new
    thread in which a loop would wait for them: there may be none to be had.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(Threads(thread_name_prefix="edge"))
    # uvloop looks names up in threads of libuv's, which ends the process if it cannot start them. Listening on a port
    # starts them; without one this does: an address without a kind of socket goes that way too, and takes no time.
    if all(parse_listen(text).kind != "tcp" for text in first.settings.server.listen):
        with suppress(OSError):
            await loop.getaddrinfo("127.0.0.1", None)
    status = await _serve(first, load_again, predecessor)
    atexit._run_exitfuncs()  # noqa: SLF001 - what os._exit leaves out, but for the wait for threads
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:  # as it is where the descriptor was closed from the start
                stream.flush()
    os._exit(status)


def load_or_exit(config: Path | None) -> Loaded:
    """Load the configuration; on mistakes print them all, one a line, and exit with status 2."""
    try:
        return load(config, os.environ)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


async def _serve(first: Loaded, load_again: Callable[[], Loaded], predecessor: Predecessor | None) -> int:
    pid_file = PidFile(directories(os.environ, os.getuid()))
    process = Process(load_again, pid_file)  # before the start, so that it can be stopped in good order too
    try:
        edge = Edge(first.settings)
    except Unusable as error:  # a URL of the store that its client library does not take
        _fail(f"edge: {error}", predecessor)
        return 2
    for warning in first.warnings:
        edge.log.warning("config", problem=warning)
    attendant = Attendant(Notifier.from_environ(os.environ), watchdog_s(os.environ), lambda: status_line(edge))
    try:
        # Not sooner: the file may be that of an Edge that has the address. Not later: who reads the log finds the file.
        await edge.start(predecessor.sockets if predecessor else None, pid_file.hold)
        if predecessor is not None:
            predecessor.ready()
            edge.owns_paths = True
        attendant.ready()
        gc.freeze()  # what has been made so far stays; looking through it again and again would find nothing
        gc.set_threshold(_GC_THRESHOLD)
        await process.until_the_end(edge, attendant)
    except (OSError, Unusable) as error:
        _fail(f"edge: {_described(error)}", predecessor)
        return 1
    finally:
        if not process.replaced:  # else the service goes on, by another process
            attendant.stopping(edge.stops_within_s)
        asyncio.get_running_loop().call_later(edge.stops_within_s + _OVERDUE_S, os._exit, 1)
        await edge.stop()
        attendant.close()
        pid_file.release()
    return 0


def _described(error: OSError | Unusable) -> str:
    """What went wrong, and with which file."""
    why = getattr(error, "strerror", None) or str(error)
    path = getattr(error, "filename", None)
    if path is None:
        return why
    if isinstance(error, PermissionError):
        return (
            f"{path}: {why}: {this_user()} may not use it; mend its owner or mode, or name another in the configuration"
        )
    return f"{path}: {why}"


def _fail(why: str, predecessor: Predecessor | None) -> None:
    click.echo(why, err=True)
    if predecessor is not None:
        predecessor.failed(why)
