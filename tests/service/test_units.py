"""The unit files, judged by systemd's own tools; nothing is booted for it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MOST_EXPOSED = 1.2

ANALYZE = shutil.which("systemd-analyze")
pytestmark = pytest.mark.skipif(ANALYZE is None, reason="THE UNITS WERE NOT JUDGED: there is no systemd-analyze here")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    argv = [sys.executable, "-m", "edge", "service", "install", "--root", str(tmp_path)]
    subprocess.run(argv, check=True, capture_output=True)  # noqa: S603 - our own program
    return tmp_path / "etc/systemd/system"


def analyze(*words: str) -> str:
    done = subprocess.run(  # noqa: S603 - no shell
        [ANALYZE or "", "--no-pager", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_they_are_right(written: Path) -> None:
    assert analyze("verify", str(written / "edge.service"), str(written / "edge.socket")) == ""


def test_they_expose_little(written: Path) -> None:
    said = analyze("security", "--offline=yes", str(written / "edge.service"))
    found = re.search(r"Overall exposure level for edge.service: ([0-9.]+)", said)
    assert found, said
    assert float(found[1]) <= MOST_EXPOSED
