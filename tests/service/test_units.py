"""The unit files, judged by systemd's own tools; nothing is booted for it."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.debian import Absent, need

MOST_EXPOSED = 1.2

Analyze = Callable[..., str]


@pytest.fixture(scope="module")
def analyze() -> Analyze:
    """``systemd-analyze``: what it says of words, which has to be no complaint."""
    try:
        (path,) = need("systemd-analyze")
    except Absent as error:
        pytest.skip(f"THE UNITS WERE NOT JUDGED: {error}")

    def said(*words: str) -> str:
        argv = [path, "--no-pager", *words]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)  # noqa: S603 - no shell
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    return said


@pytest.fixture
def written(tmp_path: Path) -> Path:
    argv = [sys.executable, "-m", "edge", "service", "install", "--root", str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True)  # noqa: S603 - our own program
    return tmp_path / "etc/systemd/system"


def test_they_are_right(analyze: Analyze, written: Path) -> None:
    assert analyze("verify", str(written / "edge.service"), str(written / "edge.socket")) == ""


def test_they_expose_little(analyze: Analyze, written: Path) -> None:
    said = analyze("security", "--offline=yes", str(written / "edge.service"))
    found = re.search(r"Overall exposure level for edge.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSED
