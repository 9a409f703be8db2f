"""A booted systemd with Edge installed in it, shared by every test in here; all of them are marked ``service``."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from service.package import Built, build
from support.booted import CannotBoot, Machine, until
from support.within import CONFIG, install

HERE = f"{Path(__file__).parent}/"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Before the marks are looked at: these tests run only when they are asked for."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.service)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The package; skipped, loudly, where no index serves what it needs."""
    folder = tmp_path_factory.mktemp("package")
    yield build(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine that runs systemd; skipped, loudly, where none can be booted: test_standin.py is what remains."""
    try:
        one = Machine(tmp_path_factory.mktemp("machine") / "console")
        with one:
            yield one
    except CannotBoot as error:
        pytest.skip(f"NO SYSTEMD WAS BOOTED, ONLY ITS STAND-INS WERE USED: {error}")


@pytest.fixture(scope="session")
def installed(machine: Machine) -> Machine:
    """With Edge installed by its own command, and started."""
    install(machine)
    return machine


@pytest.fixture
def edge(installed: Machine) -> Machine:
    """The same, running, as it was configured."""
    if installed.show("ActiveState") != "active":
        installed.write("/etc/edge/edge.toml", CONFIG)
        until("an active service", lambda: installed.show("ActiveState") == "active")
    return installed
