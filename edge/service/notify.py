"""The notification protocol of sd_notify(3): datagrams to the socket that ``NOTIFY_SOCKET`` names.

In: states, and the environment. Out: datagrams; nothing at all where nobody asked for them. Must not: raise into
the caller, or hold up the event loop for longer than a moment.
"""

import os
import re
import socket
import time
from collections.abc import Mapping

_STATE_WAIT_S = 1.0  # what systemd waits for must arrive, even if it is busy
_STATUS_CHARS = 400
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")


class Notifier:
    """Tells the service manager; silent without one.

    Args:
        address: A path, or ``@NAME`` for an abstract socket; None for nobody.
    """

    def __init__(self, address: str | None) -> None:
        known = address is not None and len(address) > 1 and address[0] in "/@"  # newer systemds know vsock: as well
        self._address = address.replace("@", "\0", 1) if address is not None and known else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Notifier":
        """The manager that started this process, if it wants to be notified."""
        return cls(environ.get("NOTIFY_SOCKET"))

    def __bool__(self) -> bool:
        return self._address is not None

    def ready(self, status: str | None = None) -> None:
        """The start, or a reload, is done."""
        self._send("READY=1" if status is None else f"READY=1\nSTATUS={_line(status)}", _STATE_WAIT_S)

    def reloading(self) -> None:
        """A reload begins; ``ready`` must follow, also if it was refused."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}", _STATE_WAIT_S)

    def stopping(self, within_s: float) -> None:
        """The end begins, and may take this long, whatever the unit's own limit is."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(within_s * 1e6)}", _STATE_WAIT_S)

    def main_pid(self, pid: int) -> None:
        """Another process has taken over."""
        self._send(f"MAINPID={pid}", _STATE_WAIT_S)

    def status(self, text: str) -> bool:
        """One line for people; returns whether it was taken."""
        return self._send(f"STATUS={_line(text)}", 0)

    def watchdog(self) -> None:
        """The event loop turns."""
        self._send("WATCHDOG=1", 0)

    def _send(self, text: str, wait_s: float) -> bool:
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(wait_s)
                sock.sendto(text.encode(), self._address)
        except OSError:
            return False  # nobody there, or too busy: nobody else can be notified
        return True


def watchdog_s(environ: Mapping[str, str]) -> float | None:
    """How long systemd waits for a sign of life before it kills this process; None if it does not watch it."""
    usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not usec.isascii() or not usec.isdigit() or int(usec) == 0:
        return None
    if pid and pid != str(os.getpid()):
        return None
    return int(usec) / 1e6


def _line(text: str) -> str:
    """A value may hold neither a line end, which would begin another assignment, nor what upsets a terminal."""
    return _CONTROL.sub(" ", text)[:_STATUS_CHARS]
