"""Programs of this machine that the tests of the service need: Debian's packages, installed where that is allowed.

In: the names of programs. Out: their paths, or one line that says why they cannot be had. Must not: change a machine
whose owner has not started the tests as root, or have it start a server.
"""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

# The packages that hold them. Debian and Ubuntu call them the same.
_PACKAGES = {
    "buildah": "buildah",
    "haproxy": "haproxy",
    "mmdebstrap": "mmdebstrap",
    "nginx": "nginx-light",
    "nsenter": "util-linux",
    "systemd-analyze": "systemd",
    "systemd-nspawn": "systemd-container",
    "systemd-socket-activate": "systemd",
    "unshare": "util-linux",
}
_SERVERS = {"haproxy", "nginx"}
# Containers have it, and with it no package starts anything. Elsewhere these two would be started, now and at boot.
_STARTS_NOTHING = Path("/usr/sbin/policy-rc.d")
_SYSTEM = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
_LOCK = Path("/run/lock/edge-tests-apt")
_WITHIN_S = 300.0

_refused: dict[str, str] = {}  # packages that could not be installed, and why: nobody waits for that twice


class Absent(Exception):
    """A program cannot be had here; the text says why, in one line."""


def need(*programs: str) -> list[str]:
    """The paths of these programs; what is absent is installed.

    Raises:
        Absent: That cannot be.
    """
    absent = [program for program in programs if _path(program) is None]
    if absent:
        packages = sorted({_PACKAGES[program] for program in absent})
        _tried(packages)
        lacks = f"{', '.join(absent)} not installed (apt-get install {' '.join(packages)})"
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise Absent(lacks)
        if _SERVERS.intersection(absent) and not _STARTS_NOTHING.exists():
            raise Absent(f"{lacks}; not done here, where it would be started as a service of this machine")
        try:
            _install(packages)
        except Absent as error:
            _refused.update(dict.fromkeys(packages, str(error)))
            raise
    found = [path for program in programs if (path := _path(program))]
    if len(found) < len(programs):
        raise Absent(f"{' '.join(programs)}: not in the packages that should hold them")
    return found


def _tried(packages: Sequence[str]) -> None:
    for package in packages:
        if package in _refused:
            raise Absent(_refused[package])


def _path(program: str) -> str | None:
    return shutil.which(program, path=_SYSTEM)


def _install(packages: Sequence[str]) -> None:
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *packages)


def _apt(*words: str) -> None:
    argv = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120", "-o", "Acquire::Retries=3", *words]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(  # noqa: S603 - no shell, words of ours
            argv, env=environment, capture_output=True, text=True, timeout=_WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"apt-get {words[0]}: {error}") from None
    if done.returncode:
        raise Absent(f"apt-get {' '.join(words)} failed: {' '.join(done.stderr.split())[-300:]}")
