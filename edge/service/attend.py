"""Attending to systemd while Edge runs: ready, alive, how it goes, leaving.

In: a running Edge, asked once every few seconds. Out: notifications, from the event loop itself, so that a loop that
hangs is found out. Must not: cost anything where nobody listens, or repeat what has not changed.
"""

import asyncio
from collections.abc import Callable

from edge.app import Edge
from edge.service.notify import Notifier

STATUS_S = 2.0


class Attendant:
    """Made with the loop running; ``close`` must follow.

    Args:
        watchdog_s: How long systemd waits for a sign of life; None if it does not.
        status: How Edge is now, in one line.
    """

    def __init__(self, notifier: Notifier, watchdog_s: float | None, status: Callable[[], str]) -> None:
        self._notifier = notifier
        self._watchdog_s = watchdog_s
        self._status = status
        self._told = ""
        self._timers: list[_Every] = []

    def ready(self) -> None:
        """Edge serves; or a reload is over, whether it was taken or refused."""
        if not self._notifier:
            return
        self._told = self._status()
        self._notifier.ready(self._told)
        if self._timers:
            return
        self._timers.append(_Every(STATUS_S, self._report))
        if self._watchdog_s is not None:
            self._timers.append(_Every(self._watchdog_s / 2, self._notifier.watchdog))

    def reloading(self) -> None:
        """A reload begins; ``ready`` must follow."""
        self._notifier.reloading()

    def hand_over(self, pid: int) -> None:
        """Another process is the service now; this one says no more."""
        self._notifier.main_pid(pid)
        self.close()

    def stopping(self, within_s: float) -> None:
        """Edge leaves, after at most this long."""
        self._notifier.stopping(within_s)

    def close(self) -> None:
        """Say no more; idempotent."""
        while self._timers:
            self._timers.pop().cancel()

    def _report(self) -> None:
        status = self._status()
        if status != self._told and self._notifier.status(status):
            self._told = status


class _Every:
    """A timer of the loop that goes off again and again."""

    def __init__(self, period_s: float, act: Callable[[], None]) -> None:
        self._period_s = period_s
        self._act = act
        self._arm()

    def cancel(self) -> None:
        """Never again."""
        self._handle.cancel()

    def _arm(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._period_s, self._go_off)

    def _go_off(self) -> None:
        self._arm()
        self._act()


def status_line(edge: Edge) -> str:
    """Streams, upstreams and drain, in one line: ``2 streams; upstreams: ollama up, vllm down (...)``."""
    count = len(edge.registry)
    streams = f"{count} stream{'s' * (count != 1)}"
    if edge.registry.draining:
        return f"draining: {streams} left"
    members = [f"{member.name} {'up' if member.up else f'down ({member.why})'}" for member in edge.fleet.members]
    return f"{streams}; upstreams: {', '.join(members) or 'none yet'}"
