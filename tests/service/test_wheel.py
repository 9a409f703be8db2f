"""The package as a user gets it: the wheel, built from the source archive, in an environment that has nothing else."""

import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from service.image import LOCKED, REPOSITORY
from support.cli import environment, run, serving
from support.raw import CHAT, ask, chat_body

from edge import __version__

NAME = f"edge_relay-{__version__}"
PIP = ("-m", "pip", "--quiet", "--disable-pip-version-check")
_WITHIN_S = 300.0


@dataclass(frozen=True)
class Built:
    """Both archives, and the Python of an environment in which the wheel is installed."""

    source: Path
    wheel: Path
    python: Path


def done(*argv: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([*map(str, argv)], cwd=cwd, env=environment(PYTHONPATH=""), timeout=_WITHIN_S, check=True)  # noqa: S603 - ours


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
        except subprocess.SubprocessError as error:
            pytest.skip(f"THE WHEEL WAS NOT TESTED: NO INDEX HERE SERVES WHAT IT NEEDS: {error}")
        raise
    return python


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The source archive from the checkout, the wheel from that, an environment from the wheel."""
    folder = tmp_path_factory.mktemp("package")
    lock = "requirements-build.lock"
    builder = venv(folder / "builder", lock, "--require-hashes", "--requirement", REPOSITORY / lock)
    done(builder, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder, cwd=REPOSITORY)
    source, wheel = folder / f"{NAME}.tar.gz", folder / f"{NAME}-py3-none-any.whl"
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    done(builder, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, cwd=folder / NAME)
    yield Built(source, wheel, venv(folder / "user", "requirements.lock", wheel))
    shutil.rmtree(folder)


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
    told = subprocess.run(command, capture_output=True, text=True, timeout=_WITHIN_S, check=True)  # noqa: S603 - ours
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
