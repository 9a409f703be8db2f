"""The package as a user gets it: the wheel, built from the source archive, in an environment that has nothing else."""

import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from service.image import REPOSITORY
from service.package import NAME, PIP, WITHIN_S, Built, done
from support.cli import run, serving
from support.raw import CHAT, ask, chat_body

from edge import __version__


@pytest.fixture
def installed(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Built:
    """``support.cli`` runs the installed one, away from the checkout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setattr(sys, "executable", str(built.python))
    return built


def test_the_source_archive_holds_what_an_administrator_needs(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        names = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "config/edge.toml", "config/compose.yaml"} <= names
    assert {"Dockerfile", ".dockerignore", "requirements.lock", "requirements-build.lock"} <= names
    assert "tests/conftest.py" in names


def test_the_command_is_there_under_its_name(installed: Built) -> None:
    command = [str(installed.python.parent / "edge"), "--version"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=True)  # noqa: S603 - ours
    assert told.stdout == f"edge, version {__version__}\n"


async def test_it_checks_a_configuration(installed: Built) -> None:
    told = await run("check", EDGE_UPSTREAM_KIND="simulator")
    assert (told.status, told.err) == (0, "")
    assert str(installed.python) in told.out


async def test_it_brings_its_unit_files(installed: Built) -> None:
    told = await run("service", "install", "--dry-run")
    assert told.status == 0
    assert "Type=notify" in told.out


async def test_it_serves(installed: Built) -> None:
    async with serving("--simulate", "--pace", "0") as edge:
        await edge.line("upstream found")
        answer = await ask(edge.port, CHAT, chat_body(model="echo"))
        assert (answer.status, answer.events[-1]) == (200, b"data: [DONE]\n\n")
        assert (await edge.signalled(signal.SIGTERM)).status == 0


@pytest.mark.parametrize("platform", ["manylinux_2_17_aarch64", "macosx_11_0_arm64", "macosx_11_0_x86_64"])
def test_what_is_locked_is_there_for_other_machines_too(built: Built, tmp_path: Path, platform: str) -> None:
    """Nothing can be run for them here; but nothing would have to be compiled there."""
    locked = (REPOSITORY / "requirements.lock").read_text()
    if platform == "macosx_11_0_x86_64":  # cryptography 48 is the last one for it, which is what pip takes there
        locked = re.sub(r"^cryptography==[^\n]*\\\n(?:    [^\n]*\n)+", "", locked, flags=re.MULTILINE)
    (tmp_path / "lock").write_text(locked)
    lock = ["--require-hashes", "--requirement", tmp_path / "lock"]
    which = ["--no-deps", "--only-binary", ":all:", "--platform", platform, "--python-version", "3.13"]
    done(built.python, *PIP, "download", "--dest", tmp_path, *which, *lock)
