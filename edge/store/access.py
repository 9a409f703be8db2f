"""May a user keep the store's file where ``store.url`` says? Answered by what is there, without making anything.

In: a path, and perhaps another process's user. Out: what the user may not, and what mends it. Must not: open the file:
closing it would drop the locks that SQLite has on it.
"""

import os
import pwd
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_READ, _WRITE, _SEARCH = 4, 2, 1  # of a mode's three bits


@dataclass(frozen=True, slots=True)
class User:
    """Whom a process runs as.

    Attributes:
        mine: It is this process's, which the kernel can be asked about: capabilities and ACLs count then.
    """

    uid: int
    gids: Collection[int]
    mine: bool = False

    def __str__(self) -> str:
        return f"user {_name(self.uid)}"

    def may(self, path: Path, wanted: int) -> bool:
        """Whether it may read (4), write (2), search (1), or several of these, what is at a path that it can reach."""
        if self.mine:
            return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)
        facts = path.stat()
        if self.uid == 0:
            return True
        shift = 6 if facts.st_uid == self.uid else 3 if facts.st_gid in self.gids else 0
        return (facts.st_mode >> shift) & wanted == wanted


def this_user() -> User:
    """Whom this process runs as."""
    return User(os.geteuid(), {os.getegid(), *os.getgroups()}, mine=True)


def user_of(pid: int) -> User | None:
    """Whom another process runs as; None where that cannot be found out."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    uid, gid = (int(fields[name].split()[1]) for name in ("Uid", "Gid"))  # the effective ones
    return User(uid, {gid, *map(int, fields["Groups"].split())})


def obstacle(path: Path, user: User | None = None) -> str | None:
    """Why a user, by default this process's, cannot keep its file there; None if nothing stands in the way."""
    user = user or this_user()
    place = path.absolute()
    try:
        for directory in reversed(place.parents):
            if not directory.exists():
                break
            if not directory.is_dir():
                return _told(f"{directory} is no directory")
            if not user.may(directory, _SEARCH):
                return _told(f"{user} may not enter {_described(directory)}")
        return _at(place, user)
    except PermissionError as error:  # this process cannot see what the other user can
        return _told(f"{this_user()} may not look at {error.filename or path}")
    except OSError as error:
        return _told(f"{error.filename or path}: {error.strerror}")


def _at(path: Path, user: User) -> str | None:
    """The same, where every directory that is there can be entered."""
    if path.exists():
        if not path.is_file():
            return _told(f"{path} is no file")
        if not user.may(path, _READ | _WRITE):
            return _told(f"{user} may not read and write {_described(path)}")
    nearest = next(directory for directory in path.parents if directory.exists())
    if not user.may(nearest, _WRITE | _SEARCH):
        what = f"the files that SQLite has beside {path.name}" if path.exists() else str(path)
        return _told(f"{user} may not make {what} in {_described(nearest)}")
    return None


def _described(path: Path) -> str:
    facts = path.stat()
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{path}, which is on a read-only file system"
    return f"{path}, which is {_name(facts.st_uid)}'s with mode {stat.S_IMODE(facts.st_mode):04o}"


def _told(what: str) -> str:
    return f"{what}; change its owner or mode, or set store.url to another place"


def _name(uid: int) -> str:
    try:
        return f"{pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return str(uid)
