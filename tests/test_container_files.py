"""What the container is made from, as far as it can be told without building it."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edge.config import load

REPOSITORY = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-build.lock")
_ENTRY = re.compile(
    r"^([A-Za-z0-9._-]+)==(\S+)(?: ;[^\\]*)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE
)


def locked(name: str) -> dict[str, str]:
    return {entry[1]: entry[2] for entry in _ENTRY.finditer((REPOSITORY / name).read_text())}


def test_what_the_package_needs_is_locked_at_a_version_that_will_do() -> None:
    """Otherwise the image would be built from what the lock forgot, and fail."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    wanted = {"requirements.lock": project["project"]["dependencies"]}
    wanted["requirements-build.lock"] = project["build-system"]["requires"]
    for name, requirements in wanted.items():
        versions = locked(name)
        for requirement in map(Requirement, requirements):
            version = versions.get(canonicalize_name(requirement.name), "nothing")
            assert version in requirement.specifier, f"{requirement}: {name} has {version}"


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_hashes_and_says_nothing_of_where_it_was_made(name: str) -> None:
    text = (REPOSITORY / name).read_text()
    rest = re.sub(r"^#.*\n", "", _ENTRY.sub("", text), flags=re.MULTILINE)
    assert rest == ""
    assert "://" not in text


def test_the_compose_file_gives_edge_settings_that_it_takes() -> None:
    """And what it runs as is what the image allows: no root file system to write, no capabilities."""
    services = yaml.safe_load((REPOSITORY / "config/compose.yaml").read_text())["services"]
    edge = services["edge"]
    given = {
        **edge["environment"],
        "EDGE_AUTH_KEYS": "made-by-the-user",
        "EDGE_SERVER_LISTEN": "0.0.0.0:11435",
    }
    loaded = load(None, given)
    assert loaded.warnings == []
    (upstream,) = loaded.settings.upstream
    assert (upstream.kind, upstream.url) == ("ollama", "http://ollama:11434")
    assert edge["environment"]["EDGE_AUTH_KEYS"].startswith("${EDGE_AUTH_KEYS:?")
    assert float(edge["stop_grace_period"].removesuffix("s")) > loaded.settings.server.drain_s
    assert (edge["read_only"], edge["cap_drop"], edge["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert edge["volumes"] == ["edge:/var/lib/edge"]
    assert {"edge", "ollama"} == services.keys()
