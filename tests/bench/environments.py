"""Virtual environments for the peers that are not part of this project, made once and kept in the user's cache.

In: requirements. Out: the environment's folder. Must not: touch the project's own environment, or hide why one
cannot be had.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_INSTALL_S = 600.0


class Missing(Exception):
    """A peer cannot be measured here; the text says why."""


_missing: dict[Path, str] = {}  # what could not be installed: nobody waits for that twice


def environment(name: str, requirements: Sequence[str], use: str = "bench") -> Path:
    """The folder of an environment that has these; ``use`` is the cache's folder for it.

    Raises:
        Missing: They cannot be installed.
    """
    mark = hashlib.sha256(repr((sys.version, list(requirements))).encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "edge" / use / f"{name}-{mark}"
    if folder in _missing:
        raise Missing(_missing[folder])
    if not (folder / "complete").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            _run([sys.executable, "-m", "venv", str(folder)])
            _run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *requirements])
        except Missing as error:
            _missing[folder] = str(error)
            raise
        (folder / "complete").touch()
    return folder


def version(folder: Path, distribution: str) -> str:
    """Which version of a distribution an environment has."""
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    return _run([str(folder / "bin/python"), "-c", code, distribution]).strip()


def _run(argv: Sequence[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{Path(argv[0]).name} {' '.join(argv[1:4])}: {error}") from None
    if done.returncode:
        said = [line for line in done.stderr.strip().splitlines() if not line.startswith("[notice]")]
        raise Missing(f"cannot be installed: {said[-1] if said else f'status {done.returncode}'}"[:300])
    return done.stdout
