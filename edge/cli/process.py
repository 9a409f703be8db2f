"""One process of Edge while it serves: what its signals ask for, one after the other.

In: a started Edge, and signals. Out: reloads, a process that takes over, the wish to end; the outcome of each
for whoever asked. Must not: end Edge itself, or let a wish that fails end it.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from edge.app import Edge
from edge.config import ConfigError, Loaded
from edge.service.attend import Attendant
from edge.service.handover import HandoverError, replace_by_new
from edge.service.pidfile import Outcome, PidFile
from edge.telemetry import log

_LAST_LINES_S = 0.2  # for what was logged, before the process is gone


class _RefusedError(Exception):
    """A wish was refused; nothing has changed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(*problems)
        self.problems = problems


class Process:
    """Made with the loop running. Its signals are heard from then on.

    Args:
        load: Loads the configuration, as at the start.
        pid_file: Of this process; a successor that fails may have taken it.

    Attributes:
        replaced: Another process serves now.
    """

    def __init__(self, load: Callable[[], Loaded], pid_file: PidFile) -> None:
        self._load = load
        self._pid_file = pid_file
        self._stop = asyncio.Event()
        self._wishes: asyncio.Queue[int] = asyncio.Queue()
        self.replaced = False
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_or_die, number)
        for number in (signal.SIGHUP, signal.SIGUSR2):
            loop.add_signal_handler(number, self._wishes.put_nowait, number)

    async def until_the_end(self, edge: Edge, attendant: Attendant) -> None:
        """Do what is wished for, until it is to stop, or has been replaced and has nothing left to do."""
        working = asyncio.create_task(self._work(edge, attendant), name="signals")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _work(self, edge: Edge, attendant: Attendant) -> None:
        while not self.replaced:
            reload = await self._wishes.get() == signal.SIGHUP
            action, wish = ("reload", self._reload) if reload else ("upgrade", self._upgrade)
            began = time.monotonic()
            try:
                lines = await wish(edge, attendant)
            except _RefusedError as refused:
                self._pid_file.write_outcome(Outcome(action, began, done=False, lines=refused.problems))
            except Exception as bug:  # a bug of ours in one wish must not end the streams
                edge.log.exception("bug")
                self._pid_file.write_outcome(Outcome(action, began, done=False, lines=[f"a bug in Edge: {bug!r}"]))
            else:
                self._pid_file.write_outcome(Outcome(action, began, done=True, lines=lines))
        await edge.retire()

    async def _reload(self, edge: Edge, attendant: Attendant) -> list[str]:
        attendant.reloading()
        try:
            loaded = await asyncio.to_thread(self._load)
            changed, waiting = await edge.reload(loaded.settings)
        except ConfigError as error:
            raise self._refused(edge, str(error).splitlines()) from None
        except OSError as error:  # a certificate that has gone since it was checked
            raise self._refused(edge, [str(error)]) from None
        else:
            log.configure(edge.settings.log)
            for warning in loaded.warnings:
                edge.log.warning("config", problem=warning)
        finally:
            attendant.ready()
        lines = [f"changed: {', '.join(changed) or 'nothing'}"]
        if waiting:
            lines.append(f"needs a restart, or edge upgrade: {', '.join(waiting)}")
        return [*lines, *(f"warning: {warning}" for warning in loaded.warnings)]

    def _refused(self, edge: Edge, problems: list[str]) -> _RefusedError:
        edge.log.error("reload refused", problems=problems)
        return _RefusedError(problems)

    async def _upgrade(self, edge: Edge, attendant: Attendant) -> list[str]:
        try:
            pid = await replace_by_new(edge.sockets)
        except HandoverError as error:
            self._pid_file.hold()
            edge.log.error("upgrade failed", why=str(error))  # noqa: TRY400 - it is no fault of ours, but its text
            raise _RefusedError(str(error).splitlines()) from None
        attendant.hand_over(pid)  # from here, since systemd listens only to the one it takes for the main process
        self.replaced = True
        streams = len(edge.registry)
        edge.log.info("replaced", pid=pid, streams=streams)
        left = (
            f"the old one ends when its {streams} stream{'s' * (streams != 1)} have ended"
            if streams
            else "no streams are left"
        )
        return [f"process {pid} serves now; {left}"]

    def _stop_or_die(self, number: int) -> None:
        """The first signal drains; a second one means it.

        To a process that was replaced systemd sends SIGTERM once more, as soon as the one that replaced it has ended.
        """
        if self._stop.is_set() and not (self.replaced and number == signal.SIGTERM):
            log.write_out(_LAST_LINES_S)
            self._pid_file.release()
            os._exit(128 + number)
        self._stop.set()
