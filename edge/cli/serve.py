"""``edge serve``: run one process until it is stopped."""

import asyncio
import atexit
import dataclasses
import errno
import functools
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import click
from msgspec.structs import fields, replace

from edge.app import Edge
from edge.cli.config_option import config_option
from edge.cli.examples import examples
from edge.cli.process import Process
from edge.cli.start_screen import start_screen
from edge.config import CommandLine, ConfigError, Loaded, config_file, load, parse_listen
from edge.config.fields import choices
from edge.service.attend import Attendant, status_line
from edge.service.handover import Predecessor, adopt
from edge.service.notify import Notifier, watchdog_s
from edge.service.pidfile import PidFile, directories
from edge.settings import Log
from edge.store.access import this_user
from edge.store.ports import Unusable
from edge.telemetry import log
from edge.telemetry.stray_output import divert
from edge.threads import Threads

# Objects made before a look for cycles. An exchange makes some hundred, nearly all without cycles: with the default of
# 700 the looks took 8 % of a small request.
_GC_THRESHOLD = 10_000
_OVERDUE_S = 5.0  # after all that has a clock of its own; then the process ends as it is


@click.command(
    epilog=examples(
        "edge serve",
        "edge serve --port 8888 --upstream http://127.0.0.1:8000",
        "edge serve --upstream gpu0=http://10.0.0.2:8000 --upstream gpu1=http://10.0.0.3:8000",
        "edge serve --simulate",
    )
)
@config_option
@click.option(
    "--upstream",
    "upstreams",
    multiple=True,
    metavar="[NAME=]URL",
    help="A model server, in place of those configured or found; may be repeated."
    " Its key comes from EDGE_UPSTREAM_NAME_API_KEY.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="HOST:PORT, unix:PATH or systemd, in place of those configured; may be repeated.",
)
@click.option("--port", type=click.IntRange(0, 65535), help="Short for --listen 127.0.0.1:PORT.")
@click.option("--simulate", is_flag=True, help="Serve simulated models and no others, to develop a client against.")
@click.option(
    "--pace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="With --simulate: the time from word to word; 0.05 by default.",
)
@click.option("--script", metavar="FILE", help="With --simulate: what the model named script says.")
@click.option(
    "--log-format", type=click.Choice(choices(fields(Log)[1].type)), help="How log lines are written; auto by default."
)
@click.option("-v", "--verbose", is_flag=True, help="On a terminal: every fact of each request, as key=value.")
@click.option("-q", "--quiet", is_flag=True, help="Warnings and errors only.")
def serve(
    *,
    config: Path | None,
    upstreams: tuple[str, ...],
    listen: tuple[str, ...],
    port: int | None,
    simulate: bool,
    pace: float | None,
    script: str | None,
    log_format: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Serve until stopped.

    Without a configuration, Edge stands in front of the model servers that it finds on the usual loopback ports.
    """
    if port is not None and listen:
        raise click.UsageError("--port and --listen both say where to listen: give one of them")
    if simulate and upstreams:
        raise click.UsageError("--simulate takes the place of all model servers: leave --upstream out")
    given = {key: value for key, value in (("pace_s", pace), ("script", script)) if value is not None}
    if given and not simulate:
        raise click.UsageError("--pace and --script work with --simulate only")
    if sum((log_format is not None, verbose, quiet)) > 1:
        raise click.UsageError("--log-format, --verbose and --quiet exclude each other: give one of them")
    addresses = listen if port is None else (f"127.0.0.1:{port}",)
    of_log = {"level": "warning"} if quiet else {"format": log_format} if log_format else {}
    command = CommandLine(addresses, upstreams, given if simulate else None, of_log)
    path = config_file(config, os.environ)
    divert()  # before anything is printed, or opened
    predecessor = adopt(os.environ)
    again = functools.partial(_load, path, command, verbose=verbose)
    try:
        loaded = again()
    except ConfigError as error:
        _fail(str(error), predecessor)
        sys.exit(2)
    log.configure(loaded.settings.log, starting=True)
    try:
        import uvloop  # noqa: PLC0415 - there is none on some platforms, and asyncio's own loop serves too
    except ImportError:
        asyncio.run(_served(loaded, again, predecessor))
    else:
        uvloop.run(_served(loaded, again, predecessor))


def _load(path: Path | None, command: CommandLine, *, verbose: bool) -> Loaded:
    """Load the configuration; ``verbose`` makes the short lines of a terminal long ones."""
    loaded = load(path, os.environ, command)
    if verbose and log.form(loaded.settings.log, sys.stderr) == "console":
        settings = replace(loaded.settings, log=replace(loaded.settings.log, format="logfmt"))
        return dataclasses.replace(loaded, settings=settings)
    return loaded


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
        if first.path is not None:
            edge.log.info("config file", path=str(first.path.resolve()))
        if predecessor is not None:
            predecessor.ready()
            edge.owns_paths = True
        attendant.ready()
        if log.form(edge.settings.log, sys.stderr) == "console" and edge.settings.log.level in {"debug", "info"}:
            log.write(start_screen(edge, first.path))
            log.configure(edge.settings.log)
        gc.freeze()  # what has been made so far stays; looking through it again and again would find nothing
        gc.set_threshold(_GC_THRESHOLD)
        await process.until_the_end(edge, attendant)
    except (OSError, Unusable) as error:
        why = _described(error)
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            from edge.cli.taken import taken_by  # noqa: PLC0415 - seldom used

            why = await taken_by(first.settings, why)
        _fail(f"edge: {why}", predecessor)
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
