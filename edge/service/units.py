"""The unit files of this installation.

In: the files in ``unit_files/`` (the checkout's ``systemd`` is a link to it); the interpreter that runs. Out: the same
files with this interpreter in ExecStart, written or removed below a root. Must not: call systemd, or touch a
configuration that is there already.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.config.starter import starter

_SOURCE = Path(__file__).with_name("unit_files")
UNITS = Path("etc/systemd/system")
CONFIG = Path("etc/edge/edge.toml")
CREDENTIALS = Path("etc/edge/credentials")
_EXEC_START = re.compile(r"(?m)^ExecStart=\S+ ")
_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")
_HIDDEN = ("/home/", "/root/", "/run/user/")  # ProtectHome=


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it goes, relative to the root, and what is in it."""

    path: Path
    text: str


def unfit() -> str | None:
    """Why the service could not run this installation, and what mends it; None if it can."""
    places = (sys.executable, str(Path(sys.executable).resolve()), sys.prefix, __file__)
    hidden = next((place for place in places if place.startswith(_HIDDEN)), None)
    if hidden is not None:
        return (
            f"the service is shut out of home directories, and this Edge runs from {hidden}; install it elsewhere: "
            "python3 -m venv /opt/edge && /opt/edge/bin/pip install edge-relay"
        )
    if not _PLAIN.fullmatch(sys.executable):
        return f"the path of this Python has characters that a unit would have to quote: {sys.executable}"
    return None


def units() -> list[File]:
    """The units and drop-ins."""
    return [File(UNITS / name, _rendered(_SOURCE / name)) for name in _names()]


def config() -> File:
    """The configuration that a first installation begins with."""
    return File(CONFIG, starter([], service=True))


def write(root: Path) -> Iterator[Path]:
    """Write them all, and yield each file that was written; a configuration that is there is left as it is.

    Raises:
        OSError: A file cannot be written.
    """
    for file in units():
        yield _write(root, file)
    if not (root / CONFIG).exists():
        yield _write(root, config())
    (root / CREDENTIALS).mkdir(mode=0o700, parents=True, exist_ok=True)


def remove(root: Path) -> Iterator[Path]:
    """Remove units and drop-ins, and yield each file that is gone. Configuration, credentials and state stay.

    Raises:
        OSError: A file cannot be removed.
    """
    for path in installed(root):
        path.unlink()
        yield path
    drop_ins = root / UNITS / "edge.service.d"
    if drop_ins.is_dir() and not any(drop_ins.iterdir()):  # others may have put theirs there
        drop_ins.rmdir()


def installed(root: Path) -> list[Path]:
    """Those of our units and drop-ins that are there."""
    return [path for name in _names() if (path := root / UNITS / name).exists()]


def _names() -> list[str]:
    drop_ins = sorted((_SOURCE / "edge.service.d").glob("*.conf"))
    return ["edge.service", "edge.socket", *(f"edge.service.d/{path.name}" for path in drop_ins)]


def _rendered(source: Path) -> str:
    text = source.read_text()
    # -P: the working directory is nothing to import from.
    return _EXEC_START.sub(f"ExecStart={sys.executable} -P -m edge ", text)


def _write(root: Path, file: File) -> Path:
    path = root / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(file.text)
    path.chmod(0o644)
    return path
