"""Which process is Edge, and what came of what it was asked: two small files, for commands that signal it.

In: the environment. Out: a file that is locked as long as the process lives, or the id of a process that lives; beside
it, the outcome of the last reload or upgrade. Must not: give out the id of a process that has ended (by now it may be
another's), or trust a directory that somebody else could have made.
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec

from edge.service import systemctl

UNIT = "edge.service"
_PID = "edge.pid"
_OUTCOME = "edge.outcome"
_MOST_BYTES = 2**20


class Outcome(msgspec.Struct, frozen=True):
    """What came of a wish.

    Attributes:
        action: ``reload`` or ``upgrade``.
        began: When the process began with it, by the monotonic clock of this machine.
        done: It is done; else it was refused, and nothing has changed.
        lines: What changed, or why it was refused.
    """

    action: str
    began: float
    done: bool
    lines: list[str]


@dataclass(frozen=True)
class Directory:
    """Where the files may be.

    Attributes:
        own: It is Edge's alone, and made if it is missing.
    """

    path: Path
    own: bool = False


def directories(environ: Mapping[str, str], uid: int) -> list[Directory]:
    """Where the files of a user's Edge may be; the first that can be written has them.

    A service has a directory of systemd's or of its container; who is logged in has one too, and variables that are not
    set in a shell of another kind (``sudo -u``, cron) do not change where it is.
    """
    given = [environ.get(name, "").partition(":")[0] for name in ("RUNTIME_DIRECTORY", "STATE_DIRECTORY")]
    given.append(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}")
    temporary = environ.get("TMPDIR") or "/tmp"  # noqa: S108 - the owner and the mode of what is in it are checked
    return [*(Directory(Path(path)) for path in given if path), Directory(Path(temporary, f"edge-{uid}"), own=True)]


Places = list[tuple[Directory, int]]


class PidFile:
    """This process's files; of several processes the last one that was started has them.

    Args:
        places: Where they may be. Without one that can be written there are none.
    """

    def __init__(self, places: Sequence[Directory]) -> None:
        self._places = places
        self._place: Directory | None = None
        self._file: TextIO | None = None

    def hold(self) -> None:
        """Write the id, and hold it until ``release``; again, after another process that was to take over failed."""
        for place in self._places if self._place is None else (self._place,):
            try:
                if place.own:
                    place.path.mkdir(mode=0o700, exist_ok=True)
                if not _is_ours(place, os.getuid()):
                    continue
                file = (place.path / _PID).open("a+")
            except OSError:
                continue
            self._place = place
            fcntl.flock(file, fcntl.LOCK_SH)  # shared with the process that this one replaces, if it replaces one
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            if self._file is not None:
                self._file.close()
            self._file = file
            return

    def write_outcome(self, outcome: Outcome) -> None:
        """Leave this for whoever asked; in one piece. Where it cannot be written, only the log has it."""
        if self._place is None:
            return
        path = self._place.path / f"{_OUTCOME}.{os.getpid()}"
        with suppress(OSError):
            path.write_bytes(msgspec.json.encode(outcome))
            path.replace(self._place.path / _OUTCOME)

    def release(self) -> None:
        """Remove them, if they are still this process's; idempotent."""
        file, self._file = self._file, None
        if file is None or self._place is None:
            return
        file.seek(0)
        if file.read().strip() == str(os.getpid()):
            with suppress(OSError):
                (self._place.path / _OUTCOME).unlink(missing_ok=True)
                (self._place.path / _PID).unlink(missing_ok=True)
                if self._place.own:
                    self._place.path.rmdir()
        file.close()


def find(environ: Mapping[str, str]) -> int | None:
    """The Edge that runs: by its file, else as systemd's unit; None if neither knows one."""
    uid = os.getuid()
    for place in directories(environ, uid):
        if (pid := _alive(place, uid)) is not None:
            return pid
    return _main_pid()


def outcomes(places: Places) -> Iterator[Outcome]:
    """What a process has left for whoever asked it, in any of its places."""
    for place, uid in places:
        try:
            if not _is_ours(place, uid):
                continue
            with (place.path / _OUTCOME).open("rb") as file:
                yield msgspec.json.decode(file.read(_MOST_BYTES), type=Outcome)
        except (OSError, msgspec.MsgspecError):
            continue


def environ_of(pid: int) -> dict[str, str] | None:
    """The environment that a process was started in; None if this user may not know it, or where there is no /proc."""
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    return dict(variable.decode(errors="replace").partition("=")[::2] for variable in variables)


def places_of(pid: int) -> Places:
    """Where a process can leave an outcome, and its user; to be asked while it lives.

    By the environment that it was started in, and under its own root: a service may have a ``/tmp`` of its own. A
    process that was replaced may end as soon as it has left the outcome, and its root with it; what is no ``/tmp`` is
    then still to be found without.
    """
    environ = environ_of(pid)
    try:
        uid = Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        environ = None
    if environ is None:
        return [(place, os.getuid()) for place in directories(os.environ, os.getuid())]
    found = directories(environ, uid)
    rooted = [(Directory(Path(f"/proc/{pid}/root{place.path}"), own=place.own), uid) for place in found]
    return [*rooted, *((place, uid) for place in found)]


def _is_ours(place: Directory, uid: int) -> bool:
    """Whether it is there, and nobody else can have made it: in ``/tmp`` everybody may."""
    if not place.own:
        return place.path.is_dir()
    facts = place.path.lstat()
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == uid and not facts.st_mode & 0o077


def _alive(place: Directory, uid: int) -> int | None:
    try:
        if not _is_ours(place, uid):
            return None
        with (place.path / _PID).open("r+") as file:
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
