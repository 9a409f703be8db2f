"""The package: both archives, built as a release is, and the wheel installed where nothing else is.

In: the checkout. Out: files, and environments made of them. Must not: take what a package index does not serve here for
a fault of the package.
"""

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from service.image import LOCKED, REPOSITORY
from support.cli import environment

from edge import __version__

NAME = f"edge_relay-{__version__}"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
WITHIN_S = 300.0


@dataclass(frozen=True)
class Built:
    """Both archives, and the Python of an environment in which the wheel is installed."""

    source: Path
    wheel: Path
    python: Path


def done(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([*map(str, argv)], cwd=cwd, env=environment(PYTHONPATH=""), timeout=WITHIN_S, check=True)  # noqa: S603 - ours


def venv(folder: Path, lock: str, *requirements: str | Path) -> Path:
    """The Python of a new environment with these; skipped where an index does not even serve what the lock names."""
    done(sys.executable, "-m", "venv", folder)
    python = folder / "bin/python"
    try:
        done(python, *PIP, "install", *requirements)
    except subprocess.SubprocessError:
        names = ["==".join(found) for found in LOCKED.findall((REPOSITORY / lock).read_text())]
        try:
            done(python, *PIP, "download", "--no-deps", "--dest", folder / "fetched", *names)
        except subprocess.SubprocessError:
            pytest.skip(f"THE WHEEL WAS NOT TESTED: NO INDEX HERE SERVES WHAT {lock} NAMES")
        raise
    return python


def build(folder: Path) -> Built:
    """The source archive from the checkout, the wheel from that, an environment from the wheel."""
    lock = "requirements-build.lock"
    builder = venv(folder / "builder", lock, "--require-hashes", "--requirement", REPOSITORY / lock)
    done(builder, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=REPOSITORY)
    source, wheel = folder / f"{NAME}.tar.gz", folder / f"{NAME}-py3-none-any.whl"
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    done(builder, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=folder / NAME)
    return Built(source, wheel, venv(folder / "user", "requirements.lock", wheel))
