"""Which process is Edge: a file with its id, for commands that signal it.

In: the environment. Out: a file that is locked as long as the process lives, or the id of a process that lives. Must
not: give out the id of a process that has ended; by now it may be another's.
"""

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from edge.service import systemctl

UNIT = "edge.service"


def path_in(environ: Mapping[str, str]) -> Path | None:
    """Where the file is, if there is a directory for such things."""
    directory = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0] or environ.get("XDG_RUNTIME_DIR")
    return Path(directory) / "edge.pid" if directory else None


class PidFile:
    """This process's file; of several processes the last one that was started has it.

    Args:
        path: None for no file. One that cannot be written is done without.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None

    def hold(self) -> None:
        """Write it, and hold it until ``release``; again, after another process that was to take over has failed."""
        if self._path is None:
            return
        try:
            file = self._path.open("a+")
        except OSError:
            return
        fcntl.flock(file, fcntl.LOCK_SH)  # shared with the process that this one replaces, if it replaces one
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        if self._file is not None:
            self._file.close()
        self._file = file

    def release(self) -> None:
        """Remove it, if it is still this process's; idempotent."""
        file, self._file = self._file, None
        if file is None or self._path is None:
            return
        file.seek(0)
        if file.read().strip() == str(os.getpid()):
            self._path.unlink(missing_ok=True)
        file.close()


def find(environ: Mapping[str, str]) -> int | None:
    """The Edge that runs: by its file, else as systemd's unit; None if neither knows one."""
    path = path_in(environ)
    return (path and _alive(path)) or _main_pid()


def _alive(path: Path) -> int | None:
    try:
        with path.open("r+") as file:
            text = file.read().strip()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # somebody holds it
                return int(text)
    except (OSError, ValueError):
        return None
    return None


def _main_pid() -> int | None:
    try:
        return int(systemctl.show(UNIT, ["MainPID"])["MainPID"]) or None
    except (systemctl.Failed, KeyError, ValueError):
        return None
