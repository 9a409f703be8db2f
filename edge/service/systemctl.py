"""Asking and instructing systemd, by ``systemctl``.

In: verbs and units. Out: what it says, as a dictionary or an error of one line. Must not: know what is in a unit.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edge.service.dispositions import not_inherited

_WITHIN_S = 180.0  # a stop waits for the drain


class Failed(Exception):
    """It did not work, or there is no systemd; the text is one line."""


def need() -> str:
    """The path of ``systemctl``, where systemd runs.

    Raises:
        Failed: It does not run here.
    """
    path = shutil.which("systemctl")
    if path is None or not Path("/run/systemd/system").is_dir():
        raise Failed("systemd does not run on this machine (containers have none; macOS neither): start `edge serve`")
    return path


def run(*words: str) -> str:
    """One command; its output.

    Raises:
        Failed: It failed, with what it said.
    """
    argv = [need(), *words]
    try:
        with not_inherited():
            done = subprocess.run(  # noqa: S603 - systemctl and words of ours, no shell
                argv, check=False, capture_output=True, text=True, timeout=_WITHIN_S, env={**os.environ, "LC_ALL": "C"}
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"systemctl {' '.join(words)}: {error}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"status {done.returncode}"
        raise Failed(f"systemctl {' '.join(words)}: {said}")
    return done.stdout


def show(unit: str, properties: Sequence[str]) -> dict[str, str]:
    """What it knows of a unit; for a unit that it does not know, ``LoadState`` is ``not-found``.

    Raises:
        Failed: It did not answer.
    """
    lines = run("show", unit, f"--property={','.join(properties)}").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)
