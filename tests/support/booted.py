"""A machine with a real systemd, in a container tree: booted, asked, and switched off.

In: a tree (made once, kept in the user's cache), and what is to be seen in it. Out: commands run inside.
Must not: touch the systemd of the machine that the tests run on, or leave the container running.
"""

import fcntl
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from support.debian import Absent, need
from support.hanging import HANG_S

ROOT = Path(__file__).parents[2]
CACHE = Path.home() / ".cache/edge/service"
PACKAGES = "systemd,systemd-sysv,dbus,python3,python3-venv,curl,iproute2,procps"
# The release of Debian whose Python can load the extension modules that are installed here.
SUITES = {(3, 11): "bookworm", (3, 13): "trixie"}
TOOLS = ("systemd-nspawn", "mmdebstrap", "nsenter")
MAKE_S = 300.0
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PYTHONPATH = "/opt/checkout:/opt/packages"
WITHIN_S = HANG_S
_NUMBERS = itertools.count()


class CannotBoot(Exception):
    """What this machine lacks; the text is one line."""


def until(what: str, true: Callable[[], object], within_s: float = WITHIN_S) -> None:
    """Wait for something that happens inside, which no event here tells of."""
    end = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.05)


def tree() -> Path:
    """The tree, made on the first run ever.

    Raises:
        CannotBoot: It cannot be made or booted here.
    """
    if os.geteuid() != 0:
        raise CannotBoot("it needs root")
    try:
        need(*TOOLS)
    except Absent as error:
        raise CannotBoot(str(error)) from None
    suite = SUITES.get(sys.version_info[:2])
    if suite is None:
        raise CannotBoot(f"no Debian has the Python {sys.version_info[:2]} that the dependencies are installed for")
    path = CACHE / f"{suite}-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one run makes it, others wait
        if not path.exists():
            _make(suite, path)
    return path


def _make(suite: str, path: Path) -> None:
    half = path.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    argv = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES}", suite, str(half)]
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=MAKE_S)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotBoot(f"mmdebstrap: {error}") from None
    if done.returncode != 0:
        raise CannotBoot(f"mmdebstrap failed: {' '.join(done.stderr.split())[-200:]}")
    (half / "etc/hosts").write_text("127.0.0.1 localhost\n")
    half.rename(path)


class Machine:
    """A booted container, as a context manager; nothing that it writes stays."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._tree = tree()
        self._name = f"edge-test-{os.getpid()}-{next(_NUMBERS)}"
        self._init = 0

    def __enter__(self) -> Self:
        packages = sysconfig.get_paths()["purelib"]
        argv = [
            *("systemd-nspawn", "--quiet", f"--directory={self._tree}", f"--machine={self._name}"),
            *("--register=no", "--keep-unit", "--volatile=overlay", "--private-network", "--console=pipe"),
            *("--kill-signal=SIGRTMIN+3", f"--bind-ro={packages}:/opt/packages"),
            f"--bind-ro={ROOT / 'edge'}:/opt/checkout/edge",
            "--boot",
        ]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(  # noqa: S603 - likewise
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            self._boot()
        except (OSError, RuntimeError, AssertionError) as error:
            self.__exit__(None, None, None)
            said = " ".join(self._log.read_text(errors="replace").split())[-200:]
            raise CannotBoot(f"systemd did not boot: {error}; {said}") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._init and self._nspawn.poll() is None:
            os.kill(self._init, signal.SIGRTMIN + 4)  # poweroff.target, as systemd understands it
        try:
            self._nspawn.wait(HANG_S)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()  # and with its supervisor, which is its parent, the container goes
            self._nspawn.wait()
        with suppress(OSError):  # left behind by --volatile
            Path(f"/run/systemd/nspawn/propagate/{self._name}").rmdir()

    def start(self, *argv: str, **variables: str) -> subprocess.Popen[str]:
        """Begin a command inside."""
        return subprocess.Popen(  # noqa: S603 - likewise
            [*self._inside(variables), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *argv: str, status: int | None = 0, **variables: str) -> str:
        """Run a command inside to its end; what it said. ``status`` is what it has to exit with, None for anything."""
        done = subprocess.run(  # noqa: S603 - likewise
            [*self._inside(variables), *argv],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WITHIN_S * 2,
        )
        if status is not None:
            assert done.returncode == status, f"{' '.join(argv)}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def edge(self, *argv: str, status: int | None = 0) -> str:
        """Run a command of ``edge`` inside."""
        return self.run("/usr/bin/python3", "-m", "edge", *argv, status=status)

    def python(self, code: str, *args: str) -> subprocess.Popen[str]:
        """Begin a program inside: a client, say."""
        return self.start("/usr/bin/python3", "-c", code, *args)

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file inside."""
        self.run("/bin/sh", "-c", 'mkdir -p "${1%/*}" && umask 077 && printf %s "$2" >"$1" && chmod "$3" "$1"',
                 "sh", path, text, f"{mode:o}")  # fmt: skip

    def copy(self, folder: Path, path: str) -> None:
        """Copy a folder of this machine into it."""
        shutil.copytree(folder, f"/proc/{self._init}/root{path}")

    def show(self, name: str, unit: str = "edge.service") -> str:
        """One property of a unit."""
        return self.run("systemctl", "show", unit, "--value", f"--property={name}").strip()

    def journal(self, unit: str = "edge.service") -> str:
        """What a unit has logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def _inside(self, variables: Mapping[str, str]) -> list[str]:
        settings = {"PATH": PATH, "PYTHONPATH": PYTHONPATH, "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C", **variables}
        words = [f"{name}={value}" for name, value in settings.items()]
        return ["nsenter", "--target", str(self._init), "--all", "--", "/usr/bin/env", "-i", *words]

    def _boot(self) -> None:
        until("the container's first process", self._find_init)
        states = ("running", "degraded")
        until("a booted system", lambda: self.run("systemctl", "is-system-running", status=None).strip() in states)

    def _find_init(self) -> bool:
        """The one child of that nspawn, and never this machine's own."""
        if self._nspawn.poll() is not None:
            raise RuntimeError("systemd-nspawn ended")
        pid = self._nspawn.pid
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        own = Path("/proc/self/ns/pid").readlink()
        ours = [child for child in children if Path(f"/proc/{child}/ns/pid").readlink() != own]
        # Before it has become systemd, what is to be its file system is still being put together.
        if len(ours) != 1 or Path(f"/proc/{ours[0]}/comm").read_text() != "systemd\n":
            return False
        self._init = ours[0]
        return True
